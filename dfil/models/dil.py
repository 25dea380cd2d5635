"""DIL: Intra-SIM and Inter-SIM in a 2-D ResNet (the paper's Figure 2 and its section
"Instantiation")."""

from __future__ import annotations

import torch

from dfil.models.detector import About, Detector, check_choice, check_input
from dfil.models.inter_sim import InterSIM
from dfil.models.intra_sim import IntraSIM
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
        depth, width, stem: see ResNet.
    """

    about = About(
        "DIL", 2022, "forgery",
        "Gu et al., Delving into the Local: Dynamic Inconsistency Learning, AAAI 2022",
    )  # fmt: skip

    def __init__(
        self, *, frames=4, intra=True, inter=True, stages=(1, 2, 3, 4), alternate="stage",
        single="alternate", bp=True, ca=True, lk=True, reduction=16, min_channels=4, gamma=2,
        kernel_size=3, kernel_bn=False, conv_u="depthwise", **backbone,
    ):  # fmt: skip
        super().__init__()
        check_choice("DIL", "alternate", alternate, "stage", "network")
        check_choice("DIL", "single", single, "alternate", "every")
        if not set(stages) <= {1, 2, 3, 4}:
            raise ValueError(f"DIL: stages are among 1, 2, 3, 4, not {tuple(stages)}")
        self.frames = frames
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

    def frame_logits(self, x: torch.Tensor, keep: dict | None = None) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> (B, U, T): the classifier on every frame's features, before they
        are averaged."""
        shape = check_input("DIL", x, self.frames)
        return self.backbone(x.flatten(0, 2), snippets=shape[1], keep=keep).unflatten(0, shape)

    @torch.no_grad()
    def explain(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """The named intermediates that Figures 3-5 show, for x (B, U, T, 3, H, W):

        "logits" (B,), "frame_logits" (B, U, T), and per block, under "layer1.0/" and so on: of an
        Intra-SIM "attention_h" and "attention_w" (B, U, T, C/2, H, W) (or "attention" without
        coordinate attention) and "kernel" (B, U, C/2, k); of an Inter-SIM "f1" and "f2" (B, C, U,
        T) and "ut_map" (B, U, T), the mean over channels of F1 ⊙ F2. Run in the mode the model
        is in.
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
