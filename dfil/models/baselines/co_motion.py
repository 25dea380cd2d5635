"""Co-motion: which parts of a face move together, and boosted decision stumps on that."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, conv2d, pad

from dfil.models.baselines.fitted import FittedDetector, boxes, to_grey
from dfil.models.detector import About, Sampling, check_choice, check_input

# Brows, eyes, nose, halves of the mouth and chin of an average face in the crop: x0, y0, x1, y1 in
# fractions of its side.
PARTS = ((0.2, 0.26, 0.5, 0.34), (0.5, 0.26, 0.8, 0.34), (0.2, 0.34, 0.5, 0.46),
         (0.5, 0.34, 0.8, 0.46), (0.36, 0.46, 0.64, 0.62), (0.3, 0.62, 0.5, 0.8),
         (0.5, 0.62, 0.7, 0.8), (0.34, 0.8, 0.66, 0.92))  # fmt: skip
SIDE = 64  # pixels; motion is measured in crops of at most that
STUMPS = 50


class CoMotion(FittedDetector):
    """Co-motion pattern (Wang, Zhou and Wu, arXiv 2008.04848): no network. The motion of several
    places of the face is correlated over a segment of the video, and the matrix is classified.

    Known from the source's abstract: that much. All else is a reading:
    - Eight parts; optical flow around landmarks of eight parts in the source [memory]. The crop
      store holds no landmarks, so the parts are those of an average face in the crop.
    - A part's motion between neighbouring frames is one vector, from Lucas and Kanade's equation
      (IJCAI 1981) over all its pixels.
    - 28 features, the correlations r of the pairs of parts i and j: with v less its mean over
      time, r_ij = sum_t v_i(t) · v_j(t) / sqrt(sum_t |v_i(t)|^2 sum_t |v_j(t)|^2).
    - scikit-learn's AdaBoost of 50 stumps; AdaBoost in the source [memory].
    - The 70 of its name are read as the frames of a segment. Here a segment has 16, the longest
      that is cut with one box, which adds no motion of its own; two of a test video, whose
      probabilities are averaged.

    Args:
        frames: T, consecutive frames of a segment.
        depth, width, stem: accepted and ignored: there is no network.
    """

    sampling = Sampling(train=1, test=2, frames=16)
    about = About(
        "Co-motion-70", 2020, "forgery",
        "Wang et al., Exposing Deep-faked Videos by Anomalous Co-motion Pattern Detection, arXiv "
        "2008.04848",
        "scratch", read=True, note="segments of 16 frames in place of 70",
    )  # fmt: skip

    def __init__(self, *, frames: int = 16, depth=(), width=64, stem="imagenet"):
        super().__init__()
        check_choice("CoMotion", "stem", stem, "imagenet", "small")
        self.frames = frames
        pairs = len(PARTS) * (len(PARTS) - 1) // 2
        self.votes = nn.Parameter(torch.full((STUMPS,), 1 / STUMPS, dtype=torch.float64))
        # A stump says `below` where its feature is at most the threshold, else `above`.
        self.register_buffer("feature", torch.arange(STUMPS) % pairs)
        self.register_buffer("threshold", torch.zeros(STUMPS, dtype=torch.float64))
        self.register_buffer("below", torch.full((STUMPS,), -1.0, dtype=torch.float64))
        self.register_buffer("above", torch.full((STUMPS,), 1.0, dtype=torch.float64))

    def part_features(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> (B, U, 28), a segment's correlations of motion."""
        check_input("CoMotion", x, self.frames)
        motion_butp2 = motions(to_grey(x))
        r_bupp = correlations(motion_butp2)
        i, j = torch.triu_indices(len(PARTS), len(PARTS), 1)
        return r_bupp[..., i, j]

    def decide(self, features: torch.Tensor) -> torch.Tensor:
        below = features[..., self.feature].float() <= self.threshold  # float: as the trees compare
        return (torch.where(below, self.below, self.above) * self.votes).sum(-1)

    def snippet_logits(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> (B, U)."""
        return self.part_logits(x)

    def fit(self, features_nf: np.ndarray, labels_n: np.ndarray) -> None:
        from sklearn.ensemble import AdaBoostClassifier  # loads pandas, which only a fit needs

        boosted = AdaBoostClassifier(n_estimators=STUMPS, random_state=0).fit(features_nf, labels_n)
        trees = [each.tree_ for each in boosted.estimators_]
        with torch.no_grad():
            self.votes.zero_()  # of stumps that are not needed
            for m, tree in enumerate(trees):
                leaves = (1, 2) if tree.node_count > 1 else (0, 0)
                below, above = (2.0 * tree.value[leaf, 0].argmax() - 1 for leaf in leaves)
                self.votes[m] = 2 * boosted.estimator_weights_[m] / boosted.estimator_weights_.sum()
                self.feature[m] = max(int(tree.feature[0]), 0)
                self.threshold[m], self.below[m], self.above[m] = tree.threshold[0], below, above


def motions(grey: torch.Tensor) -> torch.Tensor:
    """How far each part moves from frame to frame: grey levels (..., T, H, W) -> (..., T - 1, 8, 2)
    in pixels of pictures of at most SIDE a side, to the right and down.

    v = -(sum g g^T)^-1 sum g d,  g the picture's gradient, d the difference of the two frames
    """
    start, (t, h, w) = grey.shape[:-3], grey.shape[-3:]
    h, w = min(h, SIDE), min(w, SIDE)
    small = adaptive_avg_pool2d(grey.reshape(-1, t, *grey.shape[-2:]), (h, w))
    blur = grey.new_tensor((1, 4, 6, 4, 1)) / 16
    kernel = torch.outer(blur, blur)[None, None]
    soft = conv2d(pad(small.flatten(0, 1)[:, None], (2, 2, 2, 2), "replicate"), kernel)
    soft_nthw = soft.squeeze(1).unflatten(0, (-1, t))
    between, step = (soft_nthw[:, 1:] + soft_nthw[:, :-1]) / 2, soft_nthw.diff(dim=1)
    down, right = torch.gradient(between, dim=(2, 3))
    weight = boxes(PARTS, h, w).to(grey)

    def over_parts(product: torch.Tensor) -> torch.Tensor:
        return torch.einsum("nthw,phw->ntp", product, weight)

    xx, xy, yy = (over_parts(a * b) for a, b in ((right, right), (right, down), (down, down)))
    xt, yt = over_parts(right * step), over_parts(down * step)
    xx, yy = xx + 1e-3, yy + 1e-3  # a part without any texture does not move
    area = xx * yy - xy * xy
    motion = torch.stack([xy * yt - yy * xt, xy * xt - xx * yt], -1) / area[..., None]
    return motion.reshape(*start, t - 1, len(PARTS), 2)


def correlations(motion: torch.Tensor) -> torch.Tensor:
    """Of motions (..., T, P, 2) the correlations of all pairs of parts, (..., P, P)."""
    v = (motion - motion.mean(-3, keepdim=True)).transpose(-3, -2).flatten(-2)  # ..., P, 2 T
    length = v.square().sum(-1, keepdim=True).add(1e-12).sqrt()
    v = v / length
    return v @ v.transpose(-1, -2)
