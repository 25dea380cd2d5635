"""ImageNet weights for the backbone: torchvision's own, or a file."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.error import URLError

import torch
from safetensors.torch import load_file
from torchvision.models import ResNet50_Weights

from dfil.models.detector import Detector
from dfil.models.resnet import load_backbone
from dfil.system.errors import RunError


def load_imagenet(model: Detector, file: Path | None = None) -> str:
    """Load ImageNet weights into `model.backbone` and return where they came from; a method with weights of its own loads those, and
    one without any starts from scratch.

    `file` (or $DFIL_BACKBONE_WEIGHTS) is a .safetensors or .pth state dict of torchvision's resnet50; without one torchvision fetches
    its own into torch's cache. Raises RunError with what to do where neither can be had.
    """
    if hasattr(model, "pretrained"):
        return model.pretrained(file)
    if model.about.start == "scratch":
        return "scratch"
    named = file or os.environ.get("DFIL_BACKBONE_WEIGHTS")
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise RunError(
                f"{path}: no such file; give torchvision's resnet50 weights by --backbone-weights or $DFIL_BACKBONE_WEIGHTS"
            )
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
        source = str(path)
    else:
        source = f"torchvision {ResNet50_Weights.IMAGENET1K_V1}"
        try:
            state = ResNet50_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
        except (URLError, OSError) as error:
            raise RunError(
                f"the ImageNet weights of ResNet-50 could not be fetched ({error}); download resnet50-0676ba61.pth elsewhere "
                "and name it by --backbone-weights FILE or $DFIL_BACKBONE_WEIGHTS"
            ) from error
    load_backbone(model.backbone, state, source)
    return source
