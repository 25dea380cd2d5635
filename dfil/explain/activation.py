"""Where a trained detector looks: Grad-CAM (Selvaraju et al., ICCV 2017) and its own attention.

Every function takes one video's snippets x (U, T, 3, H, W), uint8 as SnippetDataset gives them, and
returns maps (U, T, H, W) >= 0 by name, in float64 and at the crop's size. They are not scaled to
0..1 one by one: of two frames of a video, the detector saw more in the one with the larger values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from torch import nn

from dfil.models import Detector
from dfil.models.resnet import ResNet
from dfil.system.errors import RunError
from dfil.train.snippets import normalise


class _Frames(nn.Module):
    """One video as a batch of frames (U·T, 3, H, W) -> logit (1,), as the library wants."""

    def __init__(self, model: Detector, snippets: int):
        super().__init__()
        self.model, self.snippets = model, snippets

    def forward(self, frames_nchw: torch.Tensor) -> torch.Tensor:
        return self.model(frames_nchw.unflatten(0, (self.snippets, -1))[None])


class _PerLayer(GradCAM):
    """GradCAM with a map per layer as it is; the library's scales frames and averages layers."""

    def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth):
        seen = self.activations_and_grads
        pairs = zip(self.target_layers, seen.activations, seen.gradients, strict=True)
        found = [
            self.get_cam_image(input_tensor, layer, targets, a.numpy(), g.numpy(), eigen_smooth)
            for layer, a, g in pairs
        ]
        return [np.maximum(cam_nhw, 0) for cam_nhw in found]

    def aggregate_multi_layers(self, cam_per_target_layer):
        return cam_per_target_layer


def grad_cam(
    model: Detector, x: torch.Tensor, layers: Mapping[str, nn.Module],
    channels: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Grad-CAM of the logit at several layers: ReLU(sum_c w_c A_c), w_c = mean d logit / d A_c.

    The mean is over H x W, and a frame's weights come from its own gradient. layers: modules whose
    output is (U·T, C, h, w), in the order in which the model runs them. channels: picks some of
    them, (N, C, h, w) -> (N, C', h, w). Leaves the model in evaluation mode, without gradients.
    """
    device = next(model.parameters()).device
    frames_nchw = normalise(x.to(device)).flatten(0, 1)
    asked = _PerLayer(_Frames(model, len(x)), list(layers.values()), reshape_transform=channels)
    # A GPU's own recurrent layers have no gradient in evaluation mode; torch's plain ones have.
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    how = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
    with torch.enable_grad(), how, asked as cam:
        maps = cam(frames_nchw, [lambda logit: logit])
    model.zero_grad(set_to_none=True)
    return {name: enlarged(found_nhw, x) for name, found_nhw in zip(layers, maps, strict=True)}


def class_activation(model: Detector, x: torch.Tensor, name="Grad-CAM") -> dict[str, np.ndarray]:
    """Figure 3: Grad-CAM of the logit at the last residual block of any method with our ResNet;
    RunError for one without."""
    return grad_cam(model, x, {name: blocks(model)[-1][1]})


def intra_activation(model: Detector, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Figure 4: Grad-CAM of the logit at what Intra-SMA has weighed, as "stage 1", ...

    In the last Intra-SI block of each stage, at the long branch's output, O_2 of Eq. 5; the other
    half is the untouched short branch. Raises RunError without Intra-SIM.
    """
    modules = {stage: sim for stage, (_, sim) in _last_of_stage(model, "intra").items()}
    return grad_cam(model, x, modules, channels=lambda output: output[:, output.shape[1] // 2 :])


@torch.no_grad()
def intra_attention(model: Detector, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Atten_h ⊙ Atten_w, mean over channels, in the last Intra-SI block of each stage.

    A sigmoid is nowhere zero: the lowest value of the video is taken off, so that maps say where
    attention is raised. Raises RunError without Intra-SIM.
    """
    found, maps = explained(model, x), {}
    for stage, (block, sim) in _last_of_stage(model, "intra").items():
        names = ("attention_h", "attention_w") if sim.ca else ("attention",)
        both = torch.stack([found[f"{block}/{name}"][0] for name in names])
        raised = both.prod(0).mean(2)  # U, T, h, w
        maps[stage] = enlarged((raised - raised.min()).flatten(0, 1).cpu().numpy(), x)
    return maps


def ut_maps(model: Detector, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Figure 5: F1 ⊙ F2, mean over channels, (U, T), in the last Inter-SI block of each stage.
    Raises RunError without Inter-SIM."""
    found = explained(model, x)
    return {
        stage: found[f"{block}/ut_map"][0].double().cpu().numpy()
        for stage, (block, _) in _last_of_stage(model, "inter").items()
    }


def query_map(model: Detector, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Beside Figure 5: how much of each frame DIL's queries take, (U, T), summing to 1 over all.

    Where in the frames is in `model.explain`. Raises RunError without queries.
    """
    found = explained(model, x)
    if "query_map" not in found:
        raise RunError("this model has no queries; look at one that was built with them")
    return {"query map": found["query_map"][0].double().sum((2, 3)).cpu().numpy()}


def frame_probabilities(model: Detector, x: torch.Tensor) -> np.ndarray:
    """The model's probability of fake for each frame, (U, T): the sigmoid of the frames' logits."""
    with torch.no_grad():
        return torch.sigmoid(model.frame_logits(batch(model, x))[0].double()).cpu().numpy()


def explained(model: Detector, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """`model.explain` of one video, with a leading batch of one."""
    return model.explain(batch(model, x))


def enlarged(maps_nhw: np.ndarray, x: torch.Tensor) -> np.ndarray:
    """(U·T, h, w) at a layer's size -> (U, T, H, W) at the crop's, bilinear."""
    maps = torch.from_numpy(np.asarray(maps_nhw, np.float64))[:, None]
    size = tuple(x.shape[-2:])
    large = nn.functional.interpolate(maps, size, mode="bilinear", align_corners=False)
    return large[:, 0].unflatten(0, x.shape[:2]).numpy()


def batch(model: Detector, x: torch.Tensor) -> torch.Tensor:
    """x (U, T, 3, H, W) uint8 as a model takes it, on its device: (1, U, T, 3, H, W)."""
    return normalise(x.to(next(model.parameters()).device))[None]


def blocks(model: Detector) -> list[tuple[str, nn.Module]]:
    """The residual blocks in order, with their names, such as "layer1.0"."""
    if not isinstance(getattr(model, "backbone", None), ResNet):
        lacks = f"{type(model).__name__} has no ResNet whose last block could be looked at"
        raise RunError(f"{lacks}; take dil or resnet50")
    return model.backbone.blocks()


def _last_of_stage(model: Detector, kind: str) -> dict[str, tuple[str, nn.Module]]:
    """The last block of each stage that has such a module: "stage 2" -> (block's name, module).

    kind: "intra" or "inter".
    """
    found = {
        f"stage {name.removeprefix('layer').split('.')[0]}": (name, getattr(block, kind))
        for name, block in blocks(model)
        if getattr(block, kind, None) is not None
    }
    if not found:
        name = f"{kind.capitalize()}-SIM"
        raise RunError(f"this model has no {name}; look at one that was built with it")
    return found
