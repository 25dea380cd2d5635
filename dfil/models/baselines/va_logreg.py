"""VA-LogReg: textures of the eyes and the teeth, or of the nose and the face, and a logistic
regression."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, conv2d, interpolate, pad

from dfil.models.baselines.dianet import ORGANS
from dfil.models.baselines.fitted import FittedDetector, boxes, to_grey
from dfil.models.detector import About, Sampling, check_choice, check_input

# Laws' vectors: level, edge, spot, ripple.
LAWS = {
    "L": (1, 4, 6, 4, 1),
    "E": (-1, -2, 0, 2, 1),
    "S": (-1, 0, 2, 0, -1),
    "R": (1, -4, 6, -4, 1),
}
# In the published coefficients' order, which follows from Python 2.7's dictionaries [derived].
ENERGIES = ("ER", "RR", "LR", "EE", "LS", "SS", "LE", "SR", "ES")
PIPELINES = ("deepfake", "face2face")
PUBLISHED = {  # intercept, then the energies of the first region and of the second [code]
    "deepfake": (
        5.212897,
        (.159433, .09589, -.237926, .007508, .085077, .517499, .18338, -.599364, -.228047),
        (-.101268, .192176, -.015667, -.060515, -.002416, -.260249, -.031605, .164397, .058021),
    ),
    "face2face": (
        10.17218,
        (.079342, .030492, .061039, -.062366, -.047623, -.072147, .027855, .001574, .089989),
        (-1.086086, 2.283512, -1.112278, .029271, .294481, 1.47537, -.109822, -1.410874, -.587065),
    ),
}  # fmt: skip
SIDE = 256  # of the pictures that the published coefficients are for
MARGIN = 1.3  # of the project's crops: their side over the face box's


class VALogReg(FittedDetector):
    """Visual-artefact detector (Matern, Riess and Stamminger, WACV Workshops 2019), one frame at a
    time: Laws' texture energies of two regions, 18 numbers, and a logistic regression on them.

    Fixed by the source: the energies (see `energies`); the regions, eyes and teeth where whole
    faces are swapped ("deepfake"), nose and whole face where expressions are ("face2face");
    scikit-learn's regression, L2, C = 1, features not scaled [code].

    What is read, and how:
    - Regions are those of an average face in the crop, as the crop store holds no landmarks; the
      code takes hulls of 68 landmarks, of the teeth the brighter half of the open mouth, and
      drops frames with closed eyes or mouth [code]. Here no frame is dropped, the mouth stands for
      the teeth and an ellipse for the face.
    - `deepfake` by default, also for training on all manipulations: Table 3 tests on Deepfakes and
      Celeb-DF.
    - Energies are taken at the crops' size and in floating point. The code enlarges the larger side
      to 256 and filters in 8 bits, where what is negative becomes 0 [code].
    - Borders are mirrored; a video's probability is the mean of its frames'.

    Args:
        frames, depth, width, stem: accepted and ignored: there is no network.
        pipeline: `deepfake` or `face2face`.
        weights: `fitted`; or `published`: the authors' 19 numbers of the pipeline, nothing is
            fitted, and then their 256 pixels and 8 bits. Their order is derived, and on regions
            without landmarks they are not what they were.
    """

    sampling = Sampling(train=16, test=32, frames=1)
    about = About(
        "VA-LogReg", 2019, "forgery",
        "Matern et al., Exploiting Visual Artifacts to Expose Deepfakes and Face Manipulations, "
        "WACV Workshops 2019",
        "scratch", 19e-6, "18 coefficients and an intercept of the authors' code",
        note="regions of an average face in place of landmarks",
    )  # fmt: skip

    def __init__(
        self, *, frames=1, pipeline: str = "deepfake", weights: str = "fitted", depth=(), width=64,
        stem="imagenet",
    ):  # fmt: skip
        super().__init__()
        check_choice("VALogReg", "pipeline", pipeline, *PIPELINES)
        check_choice("VALogReg", "weights", weights, "fitted", "published")
        check_choice("VALogReg", "stem", stem, "imagenet", "small")
        self.pipeline, self.fixed = pipeline, weights == "published"
        self.fc = nn.Linear(2 * len(ENERGIES), 1, dtype=torch.float64)
        if self.fixed:
            intercept, *coefficients = PUBLISHED[pipeline]
            self._take(np.concatenate(coefficients), intercept)

    def part_features(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> (B, U T, 18): the mean energies of the first region, then those
        of the second."""
        b, u, t = check_input("VALogReg", x)
        found = []
        for frames in x.flatten(0, 2).split(4):  # more of them would leave the caches
            grey = to_grey(frames)[:, None].float()  # (N, 1, H, W)
            if self.fixed:
                grey = interpolate(grey, (SIDE, SIDE), mode="bilinear").round()
            flat = _limited(grey - _mean(grey, 15), self.fixed)
            weights_rp = weights(self.pipeline, *grey.shape[-2:]).to(grey).flatten(1)
            found.append(weights_rp @ energies(flat, self.fixed).flatten(2).transpose(1, 2))
        return torch.cat(found).double().flatten(1).unflatten(0, (b, u * t))  # (N, 2, 9) before

    def decide(self, features: torch.Tensor) -> torch.Tensor:
        return self.fc(features).squeeze(-1)

    def frame_logits(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> (B, U, T)."""
        return self.part_logits(x).unflatten(1, x.shape[1:3])

    def fit(self, features_nf: np.ndarray, labels_n: np.ndarray) -> None:
        from sklearn.linear_model import LogisticRegression  # loads pandas, only a fit needs it

        # Newton's steps do not mind that the features have very different sizes.
        found = LogisticRegression(C=1.0, solver="newton-cholesky", max_iter=1000)
        found.fit(features_nf, labels_n)
        self._take(found.coef_[0], found.intercept_[0])

    def _take(self, coefficients: np.ndarray, intercept: float) -> None:
        with torch.no_grad():
            self.fc.weight.copy_(torch.as_tensor(coefficients)[None])
            self.fc.bias.fill_(intercept)


def energies(flat_n1hw: torch.Tensor, eight_bits: bool = False) -> torch.Tensor:
    """Laws' energies of every pixel, not yet averaged over its neighbours, of pictures less their
    15 x 15 means: (N, 1, H, W) -> (N, 9, H, W), in the order of ENERGIES.

    Of a pair of vectors a and b: |a^T b * picture|, and the average of that and of b^T a's where
    they differ. eight_bits: filters' results are rounded to whole numbers and kept between 0 and
    255.
    """
    vectors = {letter: flat_n1hw.new_tensor(vector) for letter, vector in LAWS.items()}
    masks = torch.stack([torch.outer(a, b) for a in vectors.values() for b in vectors.values()])
    found = conv2d(pad(flat_n1hw, (2, 2, 2, 2), "reflect"), masks[:, None])
    found = _limited(found, eight_bits).abs().unflatten(1, (4, 4))
    place = {letter: i for i, letter in enumerate(LAWS)}
    pairs = [(found[:, place[a], place[b]] + found[:, place[b], place[a]]) / 2 for a, b in ENERGIES]
    return torch.stack(pairs, 1)


@lru_cache
def weights(pipeline: str, h: int, w: int) -> torch.Tensor:
    """What each pixel counts in the two regions' means of means over 10 x 10 pixels: (2, H, W)
    float64. Both means are linear: these are their derivatives."""
    regions_rhw = regions(pipeline, h, w)
    with torch.enable_grad():
        pixels = torch.zeros(1, 1, h, w, dtype=torch.float64, requires_grad=True)
        means_r = (_mean(pixels, 10)[0] * regions_rhw).sum((1, 2)) / regions_rhw.sum((1, 2))
        of_each = [torch.autograd.grad(mean, pixels, retain_graph=True)[0] for mean in means_r]
    return torch.cat(of_each)[:, 0]


def regions(pipeline: str, h: int, w: int) -> torch.Tensor:
    """Which part of each pixel belongs to the two regions of an average face: (2, H, W) float64."""
    left, right, nose, mouth = boxes(ORGANS, h, w)
    if pipeline == "deepfake":
        return torch.stack([left + right, mouth])
    y, x = (torch.arange(n, dtype=torch.float64).add(0.5).div(n) - 0.5 for n in (h, w))
    face = (x**2 + y[:, None] ** 2 < (0.5 / MARGIN) ** 2).double()
    return torch.stack([nose, face])


def _mean(maps_nchw: torch.Tensor, side: int) -> torch.Tensor:
    """Means over side x side pixels, the borders mirrored; of an even side the middle is the later
    of the two."""
    before, after = side // 2, (side - 1) // 2
    padded = pad(maps_nchw, (before, after, before, after), "reflect")
    return avg_pool2d(avg_pool2d(padded, (side, 1), 1), (1, side), 1)


def _limited(maps: torch.Tensor, eight_bits: bool) -> torch.Tensor:
    """In place: what is left of the maps in 8 bits, or all of it."""
    return maps.round_().clamp_(0, 255) if eight_bits else maps
