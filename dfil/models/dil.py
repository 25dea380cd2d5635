"""DIL: Intra-SIM and Inter-SIM in a 2-D ResNet (the paper's Figure 2 and its section
"Instantiation")."""

from __future__ import annotations

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from dfil.models.alignment import with_gradients
from dfil.models.detector import About, Detector, check_choice, check_input
from dfil.models.inter_sim import InterSIM
from dfil.models.intra_sim import IntraSIM
from dfil.models.query_pooling import QueryPooling
from dfil.models.resnet import ResNet


class DIL(Detector):
    """Dynamic Inconsistency Learning, Gu et al., AAAI 2022.

    Args:
        frames: T, consecutive frames per snippet. U is free at run time.
        intra, inter: whether the modules are there (Table 4).
        stages: the stages (1-4) that get modules (Table 6).
        alternate: `stage` starts Intra, Inter, Intra, ... anew in every stage (9 + 7 blocks in
            ResNet-50); `network` keeps one parity through the whole network (8 + 8).
        single: where the module goes when only one of `intra`, `inter` is on: `alternate` keeps
            its own places and leaves the others plain; `every` puts it into every block.
        bp, ca, lk: Intra-SIM's parts (Table 5).
        reduction, min_channels, gamma, kernel_size, kernel_bn: see IntraSIM; the first two are
            InterSIM's too.
        conv_u: see InterSIM.
        queries, alignment, uniformity: later than the paper and in none of its tables: number of
            queries that pool the last map (query_pooling.py), 0 for average pooling; weights of
            two terms of the loss (alignment.py).
        depth, width, stem: see ResNet.
    """

    about = About(
        "DIL", 2022, "forgery",
        "Gu et al., Delving into the Local: Dynamic Inconsistency Learning, AAAI 2022",
    )  # fmt: skip

    def __init__(
        self, *, frames=4, intra=True, inter=True, stages=(1, 2, 3, 4), alternate="stage",
        single="alternate", bp=True, ca=True, lk=True, reduction=16, min_channels=4, gamma=2,
        kernel_size=3, kernel_bn=False, conv_u="depthwise", queries=0, alignment=0.0,
        uniformity=0.0, **backbone,
    ):  # fmt: skip
        super().__init__()
        check_choice("DIL", "alternate", alternate, "stage", "network")
        check_choice("DIL", "single", single, "alternate", "every")
        if not set(stages) <= {1, 2, 3, 4}:
            raise ValueError(f"DIL: stages are among 1, 2, 3, 4, not {tuple(stages)}")
        if min(queries, alignment, uniformity) < 0:
            raise ValueError("DIL: queries, alignment and uniformity are not below 0")
        self.frames, self.alignment, self.uniformity = frames, alignment, uniformity
        self.backbone = ResNet(**backbone)
        everywhere, count = single == "every" and intra != inter, 0
        squeezed = {"reduction": reduction, "min_channels": min_channels}
        parts = {"bp": bp, "ca": ca, "lk": lk, "gamma": gamma, "kernel_size": kernel_size}
        for number, stage in enumerate(self.backbone.stages(), 1):
            for place, block in enumerate(stage):
                is_intra = (place if alternate == "stage" else count) % 2 == 0
                count += 1
                if number not in stages:
                    continue
                planes = block.conv1.out_channels
                if intra and (is_intra or everywhere):
                    block.intra = IntraSIM(planes, frames, kernel_bn=kernel_bn, **squeezed, **parts)
                if inter and (not is_intra or everywhere):
                    block.inter = InterSIM(planes, frames, conv_u=conv_u, **squeezed)
        # last, so that a seed gives all other weights the same values with it and without
        channels = self.backbone.fc.in_features
        self.pool = QueryPooling(channels, queries) if queries else None

    def frame_features(self, x: torch.Tensor, keep: dict | None = None) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> (B, U, T, C), whose mean over U, T is the video's embedding."""
        shape = check_input("DIL", x, self.frames)
        maps = self.backbone.maps(x.flatten(0, 2), shape[1], keep)
        if self.pool is None:
            return maps.mean((2, 3)).unflatten(0, shape)
        return self.pool(maps.unflatten(0, shape), keep)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Features (B, U, T, C) -> logits (B, U, T)."""
        logits = self.backbone.fc(features.flatten(0, 2)).squeeze(1)
        return logits.unflatten(0, features.shape[:3])

    def frame_logits(self, x: torch.Tensor, keep: dict | None = None) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> (B, U, T): the classifier on every frame's features, before they
        are averaged."""
        return self.classify(self.frame_features(x, keep))

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """As every method's; `alignment` and `uniformity` add gradients to it."""
        features = self.frame_features(x)
        logits, embeddings = self.classify(features).float().mean((1, 2)), features.mean((1, 2))
        entropy = binary_cross_entropy_with_logits(logits, y.float())
        return with_gradients(entropy, embeddings, y, self.alignment, self.uniformity)

    @torch.no_grad()
    def explain(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """The named intermediates that Figures 3-5 show, for x (B, U, T, 3, H, W):

        "logits" (B,), "frame_logits" (B, U, T), and per block, under "layer1.0/" and so on: of an
        Intra-SIM "attention_h" and "attention_w" (B, U, T, C/2, H, W) (or "attention" without
        coordinate attention) and "kernel" (B, U, C/2, k); of an Inter-SIM "f1" and "f2" (B, C, U,
        T) and "ut_map" (B, U, T), the mean over channels of F1 ⊙ F2. With `queries` also
        "query_map" (B, U, T, H', W') of the last map's size. Run in the mode the model is in.
        """
        kept: dict[str, torch.Tensor] = {}
        frame_logits = self.frame_logits(x, kept).float()
        named = {"logits": frame_logits.mean((1, 2)), "frame_logits": frame_logits}
        for name, value in kept.items():
            if "/attention" in name:
                value = value.unflatten(0, x.shape[:3])
            elif name.endswith("/kernel"):
                # The static kernel of lk=False is one for all snippets.
                value = value.expand(x.shape[0] * x.shape[1], -1, -1).unflatten(0, x.shape[:2])
            named[name] = value
        return named
