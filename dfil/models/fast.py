"""The equations of intra_sim.py and inter_sim.py in fewer passes over memory, and nothing else.

Both texts give the same outputs, gradients and running statistics up to rounding; tests hold them
together. `with plain():` switches this one off. What makes it fast, mostly on a CPU:

- Elementwise work along a handful of channels is done on rows of several neighbouring pixels.
- Eq. 5 and its gradient are one operation that keeps the sigmoids and makes the rest again.
- Behind a 1x1 convolution, batch normalisation takes its statistics from the few channels that go
  in and becomes the convolution's scale and bias.
- Scoring writes Eq. 5 over its input, a few snippets at a time, which stay in the caches.

Folded activations are (N, C, H, W) with N = B·U·T, frames fastest, channels_last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F

_CACHED = 2**18  # numbers of one frame of some snippets, a megabyte: it stays in a core's caches
_switched_on = True


@contextmanager
def plain() -> Iterator[None]:
    """Within it every module computes its equations as its own file writes them."""
    global _switched_on
    before, _switched_on = _switched_on, False
    try:
        yield
    finally:
        _switched_on = before


def takes(x: torch.Tensor, bn: nn.Module) -> bool:
    """Whether the fast text serves x. Statistics over several processes need the plain one."""
    return _switched_on and not isinstance(bn, nn.SyncBatchNorm) and x.device.type != "meta"


# Intra-SIM, Eq. 1 to 6


def intra_sim(m: nn.Module, x: torch.Tensor, overwrite: bool) -> torch.Tensor:
    """IntraSIM.forward: x (B·U·T, C, H, W) -> the same shape, over x where that is allowed."""
    if overwrite and _may_overwrite(m, x):
        return _overwrite(m, x)
    i1, i2 = _Halves.apply(x)
    logits = [_pointwise_norm(recover, view) for view, recover in _views(m, i2)]
    rows, *weights = (as_rows(t).unflatten(0, (-1, m.frames)) for t in (i2, *logits))
    kernel = m.kernels(i2).permute(2, 0, 1)[:, :, None, None]
    taps = per_row(kernel, rows).to(rows.dtype)  # k, B·U, 1, 1, r·C/2
    first, second = (*weights, None)[:2]
    return torch.cat([i1, from_rows(_WeighAndAggregate.apply(rows, taps, first, second), i2)], 1)


class _Halves(torch.autograd.Function):
    """x (N, C, H, W) -> I1, a view, and I2, channels_last, as is x's gradient: torch's own of two
    chunks is not, and every operation before then reads it slowly."""

    @staticmethod
    def forward(ctx, x):
        i1, i2 = x.chunk(2, 1)
        return i1.view_as(i1), i2.clone(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx, *grads):
        n, half, h, w = grads[1].shape
        like = {"dtype": grads[1].dtype, "device": grads[1].device}
        out = torch.empty(n, 2 * half, h, w, memory_format=torch.channels_last, **like)
        return torch.cat(grads, 1, out=out)


def _views(m: nn.Module, i2: torch.Tensor) -> list[tuple[torch.Tensor, nn.Sequential]]:
    """For each attention map what it is made of, (B·U·T, c, H, W), and its recovery."""
    conv, bn = m.squeeze
    f = batch_norm(bn, conv(i2)) if bn.training else _pointwise(i2, *_fold(conv.weight, bn))
    f, g = (t.unflatten(0, (-1, m.frames)) for t in (f, m.neighbour(f)))
    d = _MeanDifference.apply(f, g) if m.bp else difference_to_next(f, g)
    if not m.ca:
        return [(d.flatten(0, 1), m.recover)]
    return [(_plane_conv(m.view_h, d), m.recover_h), (_plane_conv(m.view_w, d), m.recover_w)]


def _plane_conv(view: nn.Module, d: torch.Tensor) -> torch.Tensor:
    """PlaneConv: d (G, T, c, H, W) -> (G·T, c, H, W), in evaluation by a single convolution."""
    if view.bn.training:
        return batch_norm(view.bn, _conv(view, d, view.weight), residual=d.flatten(0, 1))
    weight, bias = _fold(view.weight, view.bn)
    eye = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
    return _conv(view, d, weight + F.pad(eye[..., None, None], (1, 1, 1, 1)), bias)


def _conv(view: nn.Module, d: torch.Tensor, weight: torch.Tensor, bias=None) -> torch.Tensor:
    # No permutation: folded channels_last frames are a snippet in channels_last_3d.
    weight = weight.unsqueeze(4 if view.along == 2 else 3)
    x, padding = d.transpose(1, 2), (1, 1, 0) if view.along == 2 else (1, 0, 1)
    if bias is None and x.device.type == "cuda" and not torch.is_autocast_enabled("cuda"):
        out = _Conv3d.apply(x, weight, padding)
    else:
        out = F.conv3d(x, weight, bias, padding=padding)
    return out.transpose(1, 2).flatten(0, 1)


class _Conv3d(torch.autograd.Function):
    """A convolution of few channels, (G, c, T, H, W), padded by half of its kernel. In float32 on a
    GPU cuDNN takes half of a small network's step for the gradient of its weight; here that is the
    product of the gradient and the windows of x, one beside the other."""

    @staticmethod
    def forward(ctx, x, weight, padding):
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv3d(x, weight, padding=padding)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad_x = torch.nn.grad.conv3d_input(x.shape, weight, grad, padding=ctx.padding)
        ends = [end for p in reversed(ctx.padding) for end in (p, p)]
        windows = F.pad(x.permute(0, 2, 3, 4, 1), (0, 0, *ends))  # G, T, H, W, c
        for dim, size in enumerate(weight.shape[2:], start=1):
            windows = windows.unfold(dim, size, 1)  # and behind c: kT, kH, kW
        products = grad.flatten(2) @ windows.flatten(4).flatten(1, 3)  # G, out, c·kT·kH·kW
        return grad_x, products.sum(0).view_as(weight), None


class _MeanDifference(torch.autograd.Function):
    """The mean of both directions of Eq. 1 along dim 1. It is linear, and what takes a frame to its
    neighbours is its own transpose, so the backward is the same sums."""

    @staticmethod
    def forward(ctx, current, neighbour):
        return _sub_half_neighbours(_halve_ends(current.clone()), neighbour)

    @staticmethod
    def backward(ctx, grad):
        return _halve_ends(grad.clone()), _sub_half_neighbours(torch.zeros_like(grad), grad)


def _halve_ends(x: torch.Tensor) -> torch.Tensor:
    """Once for each direction that has no neighbour there; a single frame has none at all."""
    if x.shape[1] == 1:
        return x.zero_()
    x[:, :1] *= 0.5
    x[:, x.shape[1] - 1 :] *= 0.5
    return x


def _sub_half_neighbours(out: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    out[:, :-1].sub_(x[:, 1:], alpha=0.5)
    out[:, 1:].sub_(x[:, :-1], alpha=0.5)
    return out


def difference_to_next(current: torch.Tensor, neighbour: torch.Tensor) -> torch.Tensor:
    """current[t] - neighbour[t + 1] along dim 1, zero at the last frame; both (G, T, ...)."""
    out = current.clone()  # and not cat, which loses channels_last behind an unfolded batch
    out[:, :-1].sub_(neighbour[:, 1:])
    out[:, -1:].zero_()
    return out


class _WeighAndAggregate(torch.autograd.Function):
    """Eq. 5 on rows (G, T, P, r·C): K ⊗ (A ⊙ x + x), A the product of the logits' sigmoids.

    It keeps x and the sigmoids; the rest is cheaper computed again than kept.
    """

    @staticmethod
    def forward(ctx, x, kernel, first, second):  # torch.compile takes no *logits
        maps = [torch.sigmoid(z) for z in (first, second) if z is not None]
        ctx.save_for_backward(x, kernel, *maps)
        return _convolve(_weigh(x, maps), kernel)

    @staticmethod
    def backward(ctx, grad):
        x, kernel, *maps = ctx.saved_tensors
        grad_kernel = _gradient_of_kernel(grad, _weigh(x, maps), kernel)
        grad_weighed = _gradient_of_x(grad, kernel)
        weight = maps[0] * maps[1] if len(maps) == 2 else maps[0]
        grad_x = torch.addcmul(grad_weighed, grad_weighed, weight)
        grad_weighed *= x
        grad_weighed *= weight  # sigmoid' = s·(1 - s); the product of all s is common to the maps
        grads = (torch.addcmul(grad_weighed, grad_weighed, a, value=-1) for a in maps)
        first, second = (*grads, None)[:2]
        return grad_x, grad_kernel, first, second


def _weigh(x: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
    out = x * maps[0]
    for a in maps[1:]:
        out *= a
    return out.add_(x)


def _may_overwrite(m: nn.Module, x: torch.Tensor) -> bool:
    alike = x.dtype == m.squeeze[0].weight.dtype and x.device.type == "cpu"
    learns = m.training or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")
    last = x.is_contiguous(memory_format=torch.channels_last)
    return alike and last and not learns and not torch.compiler.is_compiling()


def _overwrite(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Eq. 5 over the second half of x: I1 stays where it is, nothing is put together again."""
    i2 = x.chunk(2, 1)[1]
    kernel = m.kernels(i2).permute(2, 0, 1)  # k, B·U or 1, C/2
    found = [(view, _fold(conv.weight.flatten(1), bn)) for view, (conv, bn) in _views(m, i2)]
    views = [(_by_snippet(view, m.frames), *folded) for view, folded in found]
    _aggregate_in_place(_by_snippet(i2, m.frames), kernel, views)
    return x


def _by_snippet(x_nchw: torch.Tensor, frames: int) -> torch.Tensor:
    return x_nchw.permute(0, 2, 3, 1).flatten(1, 2).unflatten(0, (-1, frames))  # G, T, H·W, C


@torch.no_grad()
def _aggregate_in_place(x_gtpc: torch.Tensor, kernel: torch.Tensor, views: Sequence) -> None:
    """Eq. 5 over x. kernel (k, G or 1, C); views: what each map's logits are made of (G, T, P, c),
    with weight (C, c) and bias (C,).

    The logits exist for one frame of a few snippets at a time, so that a core meets the same
    pixels in every pass; passes over the whole map would fetch it from memory each time.
    """
    groups, frames, pixels, channels = x_gtpc.shape
    kernel, middle = kernel.contiguous().expand(-1, groups, -1), len(kernel) // 2
    some = max(1, _CACHED // (pixels * channels))  # snippets
    for at in range(0, groups, some):
        x, taps = x_gtpc[at : at + some], kernel[:, at : at + some, None]
        parts = [
            (view[at : at + some], w.t().contiguous().expand(len(x), -1, -1), b)
            for view, w, b in views
        ]
        by_frame = ([(view[:, t], w, b) for view, w, b in parts] for t in range(frames))
        weighed = [_weighed_frame(x[:, t], part) for t, part in enumerate(by_frame)]
        for t in range(frames):
            torch.mul(weighed[t], taps[middle], out=x[:, t])
            for j, tap in enumerate(taps):
                if j != middle and 0 <= t + j - middle < frames:
                    x[:, t].addcmul_(weighed[t + j - middle], tap)


def _weighed_frame(x_gpc: torch.Tensor, views: list) -> torch.Tensor:
    first, *others = (torch.baddbmm(b, view, w).sigmoid_() for view, w, b in views)
    for attention in others:
        first *= attention
    return torch.addcmul(x_gpc, x_gpc, first, out=first)


# Inter-SIM, Eq. 11


def inter_sim(m: nn.Module, x: torch.Tensor, snippets: int) -> torch.Tensor:
    """InterSIM.forward with the depthwise Conv_U. The weight 1 + F1 ⊙ F2 goes into the taps: one
    pass over the activations instead of two."""
    pooled = x.mean((2, 3)).unflatten(0, (-1, snippets, m.frames)).permute(0, 3, 1, 2)
    f1, f2 = m.attention(pooled)
    weight = (1 + f1 * f2).permute(0, 2, 3, 1)  # B, U, T, C
    centre = m.taps_u.t()[:, None, None, None] * weight  # 3, B, U, T, C, where it is read
    zero = torch.zeros_like(centre[0, :, :1])
    before = torch.cat([zero, centre[0, :, :-1]], 1)  # and where it is written
    after = torch.cat([centre[2, :, 1:], zero], 1)
    rows = as_rows(x)
    taps = per_row(torch.stack([before, centre[1], after])[..., None, :], rows)
    out = convolve(rows.unflatten(0, (-1, snippets, m.frames)), taps)
    return from_rows(out, x)


# Convolution with a kernel per sample, for Eq. 5 and 11 and for TEI, DSANet and STIL


def convolve(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Depthwise convolution along dim 1 with its own kernel per sample, channel and, if wanted,
    position, zeros outside: out[:, i] = sum_j kernel[j][:, i] · x[:, i + j - k // 2].

    x: (G, S, ...). kernel: (k, G or 1, S or 1, ...), k odd, broadcastable against x; ValueError
    if k is even. A grouped convolution with a group per sample and channel is far slower.
    """
    if kernel.shape[0] % 2 == 0:
        raise ValueError(f"convolve keeps the length by an odd kernel, not {kernel.shape[0]} taps")
    kernel = kernel.to(x.dtype)  # under autocast a softmax's kernel is float32
    if _switched_on:
        return _Convolve.apply(x, kernel)
    k, n = kernel.shape[0], x.shape[1]
    padded = F.pad(x.transpose(1, -1), (k // 2, k // 2)).transpose(1, -1)
    return sum(tap * padded[:, j : j + n] for j, tap in enumerate(kernel))


class _Convolve(torch.autograd.Function):
    """In-place accumulation needs a backward of its own: the same with the shifts reversed."""

    @staticmethod
    def forward(ctx, x, kernel):
        ctx.save_for_backward(x, kernel)
        return _convolve(x, kernel)

    @staticmethod
    def backward(ctx, grad):
        x, kernel = ctx.saved_tensors
        wants_x, wants_kernel = ctx.needs_input_grad
        grad_x = _gradient_of_x(grad, kernel) if wants_x else None
        return grad_x, _gradient_of_kernel(grad, x, kernel) if wants_kernel else None


def _convolve(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    out = x * kernel[kernel.shape[0] // 2]
    for tap, to, source in _shifts(kernel, x.shape[1]):
        out[:, to].addcmul_(x[:, source], _at(tap, to))
    return out


def _gradient_of_x(grad: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    out = grad * kernel[kernel.shape[0] // 2]
    for tap, to, source in _shifts(kernel, grad.shape[1]):
        out[:, source].addcmul_(grad[:, to], _at(tap, to))
    return out


def _gradient_of_kernel(grad: torch.Tensor, x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(kernel)
    middle = out[kernel.shape[0] // 2]
    middle.add_((grad * x).sum_to_size(middle.shape))
    for tap, to, source in _shifts(out, x.shape[1]):
        rows = _at(tap, to)
        rows.add_((grad[:, to] * x[:, source]).sum_to_size(rows.shape))
    return out


def _shifts(kernel: torch.Tensor, n: int) -> list[tuple[torch.Tensor, slice, slice]]:
    """The taps beside the middle one that reach anything among n, each with where it writes and
    where it reads."""
    shifts = [(tap, j - kernel.shape[0] // 2) for j, tap in enumerate(kernel)]
    near = [(tap, s) for tap, s in shifts if 0 < abs(s) < n]
    return [(t, slice(max(0, -s), min(n, n - s)), slice(max(0, s), min(n, n + s))) for t, s in near]


def _at(tap: torch.Tensor, index: slice) -> torch.Tensor:
    return tap if tap.shape[1] == 1 else tap[:, index]


# Rows of several pixels


def as_rows(x_nchw: torch.Tensor, length: int = 64) -> torch.Tensor:
    """(N, C, H, W) -> (N, H·W/r, r·C), r neighbouring pixels to a row of about `length` numbers;
    of a channels_last tensor a view.

    An operation along a handful of channels spends its time on starting over for every pixel.
    """
    n, c, h, w = x_nchw.shape
    r = 1
    while r * c < length and h * w % (2 * r) == 0:
        r *= 2
    return x_nchw.permute(0, 2, 3, 1).reshape(n, h * w // r, r * c)


def from_rows(rows: torch.Tensor, like_nchw: torch.Tensor) -> torch.Tensor:
    """The inverse of `as_rows` for the shape of `like_nchw`, channels_last."""
    n, c, h, w = like_nchw.shape
    return rows.reshape(n, h, w, c).permute(0, 3, 1, 2)


def per_row(per_channel: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """(..., C) -> (..., r·C), to go with the last dimension of `rows`."""
    times = rows.shape[-1] // per_channel.shape[-1]
    return per_channel.repeat(*[1] * (per_channel.ndim - 1), times)


# Batch normalisation where a general one is slow


def batch_norm(bn: nn.Module, x: torch.Tensor, residual: torch.Tensor | None = None):
    """`bn(x)` plus `residual`; in training, over four channels, on a CPU 3 times as fast."""
    narrow = x.shape[1] <= 4 and x.device.type == "cpu" and x.dtype == bn.weight.dtype
    if not (narrow and bn.training) or torch.compiler.is_compiling():
        out = bn(x)
        return out if residual is None else out + residual
    rows = as_rows(x).flatten(0, 1)
    added = None if residual is None else as_rows(residual).flatten(0, 1)
    out, mean, variance = _BatchNorm.apply(rows, bn.weight, bn.bias, bn.eps, added)
    _update_statistics(bn, mean, variance, x.numel() // x.shape[1])
    return from_rows(out, x)


class _BatchNorm(torch.autograd.Function):
    """Rows (P, r·C) normalised by the statistics of C channels; also these, mean and variance."""

    @staticmethod
    def forward(ctx, rows, weight, bias, eps, residual):
        channels, count = len(weight), rows.numel() // len(weight)
        mean = _per_channel(rows, channels) / count
        normal = rows - per_row(mean, rows)
        out = normal * normal  # to be overwritten
        variance = _per_channel(out, channels) / count
        scale = torch.rsqrt(variance + eps)
        normal *= per_row(scale, rows)
        torch.addcmul(per_row(bias, rows), normal, per_row(weight, rows), out=out)
        ctx.save_for_backward(normal, weight, scale)
        ctx.mark_non_differentiable(mean, variance)
        return out if residual is None else out.add_(residual), mean, variance

    @staticmethod
    def backward(ctx, grad, *_):
        normal, weight, scale = ctx.saved_tensors
        channels, count = len(weight), grad.numel() // len(weight)
        out = grad * normal  # to be overwritten
        grad_weight, grad_bias = _per_channel(out, channels), _per_channel(grad, channels)
        factor = weight * scale
        shift, slope = (per_row(-factor * g / count, grad) for g in (grad_bias, grad_weight))
        torch.addcmul(shift, normal, slope, out=out).addcmul_(grad, per_row(factor, grad))
        return out, grad_weight, grad_bias, None, grad if ctx.needs_input_grad[4] else None


def _per_channel(rows: torch.Tensor, channels: int) -> torch.Tensor:
    return rows.sum(0).unflatten(0, (-1, channels)).sum(0)  # (P, r·C) -> (C,)


@torch.no_grad()
def _update_statistics(bn: nn.Module, mean, variance, count: int) -> None:
    """Take a batch's mean and biased variance over `count` values into the running ones."""
    bn.num_batches_tracked.add_(1)
    momentum = 1 / int(bn.num_batches_tracked) if bn.momentum is None else bn.momentum
    unbiased = variance.detach().to(bn.running_var.dtype) * (count / max(count - 1, 1))
    bn.running_mean.lerp_(mean.detach().to(bn.running_mean.dtype), momentum)
    bn.running_var.lerp_(unbiased, momentum)


def _pointwise(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """A 1x1 convolution that does not copy channels that are a part of a larger map first."""
    if x.is_contiguous(memory_format=torch.channels_last):
        return F.conv2d(x, weight, bias)
    n, _, h, w = x.shape
    rows = torch.addmm(bias, x.permute(0, 2, 3, 1).flatten(0, 2), weight.flatten(1).t())
    return rows.reshape(n, h, w, -1).permute(0, 3, 1, 2)


def _fold(weight, bn, mean=None, variance=None) -> tuple[torch.Tensor, torch.Tensor]:
    """A bias-free convolution's weight (out, ...) and the normalisation behind it in one."""
    mean, variance = (bn.running_mean, bn.running_var) if mean is None else (mean, variance)
    scale = bn.weight * torch.rsqrt(variance + bn.eps)
    return weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), bn.bias - mean * scale


def _pointwise_norm(layers: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """A bias-free 1x1 convolution and the batch normalisation behind it: (N, in, H, W) -> out.

    Mean and variance of w·u are w·mean(u) and w·cov(u)·w: the many channels that come out are
    written once and never read for their statistics.
    """
    conv, bn = layers
    mean = variance = None
    if bn.training:
        weight = conv.weight.flatten(1)  # out, in
        mean_in, covariance = moments(x)
        mean = (weight * mean_in).sum(1)  # and not matmul, which autocast would round
        variance = (weight[:, :, None] * covariance * weight[:, None, :]).sum((1, 2)).clamp_min(0)
        _update_statistics(bn, mean, variance, x.numel() // x.shape[1])
    return F.conv2d(x, *_fold(conv.weight, bn, mean, variance))


def moments(x_nchw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (C,) and biased covariance (C, C) over batch and positions, in at least float32."""
    x = x_nchw if x_nchw.dtype == torch.float64 else x_nchw.float()
    return _Moments.apply(as_rows(x, 16).flatten(0, 1), x.shape[1])  # products grow with r squared


class _Moments(torch.autograd.Function):
    """`moments` of rows (P, r·C)."""

    @staticmethod
    def forward(ctx, rows, channels):
        count, r = rows.numel() // channels, rows.shape[1] // channels
        mean = _per_channel(rows, channels) / count
        centred = rows - per_row(mean, rows)
        with torch.autocast(rows.device.type, enabled=False):
            products = (centred.t() @ centred).reshape(r, channels, r, channels)
        ctx.save_for_backward(rows, mean)
        return mean, products.diagonal(dim1=0, dim2=2).sum(-1) / count

    @staticmethod
    def backward(ctx, grad_mean, grad_covariance):
        rows, mean = ctx.saved_tensors
        count, r = rows.numel() // len(mean), rows.shape[1] // len(mean)
        both = (grad_covariance + grad_covariance.t()) / count
        shift = grad_mean / count - mean @ both  # d covariance / d mean is zero
        return torch.addmm(per_row(shift, rows), rows, torch.block_diag(*[both] * r)), None
