"""Operations that several modules share. Folded activations are (N, C, H, W) with N = B·U·T, frames fastest."""

from __future__ import annotations

import torch
from torch import nn


def as_rows(x_nchw: torch.Tensor, length: int = 64) -> torch.Tensor:
    """(N, C, H, W) -> (N, H·W/r, r·C), r neighbouring pixels to a row of about `length` numbers; of a channels_last tensor a view.

    An operation along a handful of channels spends its time on starting over for every pixel. In long rows, with what is given per
    channel repeated r times (`per_row`), the same operation is several times faster on a CPU.
    """
    n, c, h, w = x_nchw.shape
    r = 1
    while r * c < length and h * w % (2 * r) == 0:
        r *= 2
    return x_nchw.permute(0, 2, 3, 1).reshape(n, h * w // r, r * c)


def from_rows(rows: torch.Tensor, like_nchw: torch.Tensor) -> torch.Tensor:
    """The inverse of `as_rows` for the shape of `like_nchw`; the result is channels_last."""
    n, c, h, w = like_nchw.shape
    return rows.reshape(n, h, w, c).permute(0, 3, 1, 2)


def per_row(per_channel: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """(..., C) -> (..., r·C), to go with the last dimension of `rows`."""
    return per_channel.repeat(*[1] * (per_channel.ndim - 1), rows.shape[-1] // per_channel.shape[-1])


def _fold(sums: torch.Tensor, channels: int) -> torch.Tensor:
    """(r·C,) -> (C,): the sums over a row's pixels."""
    return sums.unflatten(0, (-1, channels)).sum(0)


class _BatchNorm(torch.autograd.Function):
    """Training-mode batch normalisation of rows (R, r·C) by the statistics of C channels, plus `residual`; also mean and variance."""

    @staticmethod
    def forward(ctx, rows, weight, bias, eps, residual):
        channels, count = len(weight), rows.numel() // len(weight)
        mean = _fold(rows.sum(0), channels) / count
        normal = rows - per_row(mean, rows)
        out = normal * normal  # to be overwritten
        variance = _fold(out.sum(0), channels) / count
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
        grad_rows = grad * normal  # to be overwritten
        grad_weight, grad_bias = _fold(grad_rows.sum(0), channels), _fold(grad.sum(0), channels)
        factor = weight * scale
        torch.addcmul(per_row(-factor * grad_bias / count, grad), normal, per_row(-factor * grad_weight / count, grad), out=grad_rows)
        return grad_rows.addcmul_(grad, per_row(factor, grad)), grad_weight, grad_bias, None, grad if ctx.needs_input_grad[4] else None


def batch_norm(bn: nn.BatchNorm2d, x_nchw: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
    """`bn(x_nchw)` plus `residual` (N, C, H, W), running statistics included; on a CPU over four channels or fewer three times faster."""
    slow = x_nchw.shape[1] <= 4 and x_nchw.device.type == "cpu" and x_nchw.dtype == bn.weight.dtype and not torch.compiler.is_compiling()
    if not slow:
        return bn(x_nchw) if residual is None else bn(x_nchw) + residual
    rows, added = as_rows(x_nchw).flatten(0, 1), None if residual is None else as_rows(residual).flatten(0, 1)
    if bn.training:
        out, mean, variance = _BatchNorm.apply(rows, bn.weight, bn.bias, bn.eps, added)
        update_statistics(bn, mean, variance, x_nchw.numel() // x_nchw.shape[1])
    else:
        scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
        out = torch.addcmul(per_row(bn.bias - bn.running_mean * scale, rows), rows, per_row(scale, rows))
        out = out if added is None else out + added
    return from_rows(out, x_nchw)


@torch.no_grad()
def update_statistics(bn: nn.BatchNorm2d, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
    """Take a batch's mean and biased variance, each (C,), over `count` values into the running ones, as nn.BatchNorm2d does."""
    bn.num_batches_tracked.add_(1)
    bn.running_mean.lerp_(mean.detach().to(bn.running_mean.dtype), bn.momentum)
    bn.running_var.lerp_(variance.detach().to(bn.running_var.dtype) * (count / max(count - 1, 1)), bn.momentum)


class _Moments(torch.autograd.Function):
    """Mean (C,) and covariance (C, C) of the C channels of rows (R, r·C), R·r values each."""

    @staticmethod
    def forward(ctx, rows, channels):
        count = rows.numel() // channels
        mean = _fold(rows.sum(0), channels) / count
        centred = rows - per_row(mean, rows)
        with torch.autocast(rows.device.type, enabled=False):
            products = centred.t() @ centred
        r = rows.shape[1] // channels
        covariance = products.reshape(r, channels, r, channels).diagonal(dim1=0, dim2=2).sum(-1) / count
        ctx.save_for_backward(rows, mean)
        return mean, covariance

    @staticmethod
    def backward(ctx, grad_mean, grad_covariance):
        rows, mean = ctx.saved_tensors
        count, r = rows.numel() // len(mean), rows.shape[1] // len(mean)
        both = (grad_covariance + grad_covariance.t()) / count
        shift = grad_mean / count - mean @ both  # d covariance / d mean is zero, so only x - mean meets `both`
        return torch.addmm(per_row(shift, rows), rows, torch.block_diag(*[both] * r)), None


def moments(x_nchw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (C,) and biased covariance (C, C) of the channels over batch and positions, in at least float32."""
    rows = as_rows(x_nchw if x_nchw.dtype == torch.float64 else x_nchw.float(), 16)  # the products of a row grow with its square
    return _Moments.apply(rows.flatten(0, 1), x_nchw.shape[1])


class PointwiseNorm(nn.Sequential):
    """A bias-free 1x1 convolution to more channels, then batch normalisation, in one convolution.

    Mean and variance of w·u are w·mean(u) and w·cov(u)·w. So the statistics are taken of the few channels that go in, and the
    normalisation becomes the convolution's own scale and bias: the many channels that come out are written once and never read back.
    """

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__(nn.Conv2d(channels_in, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out))

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """(N, in, H, W) -> (N, out, H, W)."""
        conv, bn = self
        if isinstance(bn, nn.SyncBatchNorm):  # whose statistics are those of all processes
            return super().forward(x_nchw)
        weight = conv.weight.flatten(1)  # out, in
        if bn.training:
            mean_in, covariance = moments(x_nchw)
            mean = (weight * mean_in).sum(1)  # and not matmul, which autocast would round
            variance = (weight[:, :, None] * covariance * weight[:, None, :]).sum((1, 2))
            update_statistics(bn, mean, variance, x_nchw.numel() // x_nchw.shape[1])
        else:
            mean, variance = bn.running_mean, bn.running_var
        scale = bn.weight * torch.rsqrt(variance + bn.eps)
        return nn.functional.conv2d(x_nchw, (weight * scale[:, None])[..., None, None], bn.bias - mean * scale)


class _MeanDifference(torch.autograd.Function):
    """Linear in both, and what takes a frame to its neighbours is its own transpose, so the backward is the same sums."""

    @staticmethod
    def forward(ctx, current, neighbour):
        return _sub_half_neighbours(_halve_ends(current.clone()), neighbour)

    @staticmethod
    def backward(ctx, grad):
        return _halve_ends(grad.clone()), _sub_half_neighbours(torch.zeros_like(grad), grad)


def _halve_ends(x: torch.Tensor) -> torch.Tensor:
    """Once for each direction that has no neighbour there; a single frame has none at all."""
    first, last = x[:, :1], x[:, x.shape[1] - 1 :]
    if x.shape[1] == 1:
        return x.zero_()
    first *= 0.5
    last *= 0.5
    return x


def _sub_half_neighbours(out: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    out[:, :-1].sub_(x[:, 1:], alpha=0.5)
    out[:, 1:].sub_(x[:, :-1], alpha=0.5)
    return out


def mean_difference(current: torch.Tensor, neighbour: torch.Tensor) -> torch.Tensor:
    """The mean of `difference_to_next` and `difference_to_previous` along dim 1, in fewer passes; all tensors (G, S, ...)."""
    return _MeanDifference.apply(current, neighbour)


def difference_to_next(current: torch.Tensor, neighbour: torch.Tensor, dim: int) -> torch.Tensor:
    """current[i] - neighbour[i + 1] along `dim`, zero at the last index, where there is no next one (Eq. 1, Eq. 8).

    Both tensors have one shape and so has the result. Zeros keep the length, as TDN and STIL do.
    """
    n = current.shape[dim]
    difference = current.clone()  # and not cat: clone keeps channels_last behind an unfolded batch, cat does not
    difference.narrow(dim, 0, n - 1).sub_(neighbour.narrow(dim, 1, n - 1))
    difference.narrow(dim, n - 1, 1).zero_()
    return difference


def difference_to_previous(current: torch.Tensor, neighbour: torch.Tensor, dim: int) -> torch.Tensor:
    """current[i] - neighbour[i - 1] along `dim`, zero at the first index: the backward direction of Eq. 1 and Eq. 9.

    The difference is described at the frame it belongs to. Left where Eq. 9 writes it, one index lower, the sum of the two
    directions would cancel into a single symmetric term.
    """
    n = current.shape[dim]
    difference = current.clone()
    difference.narrow(dim, 1, n - 1).sub_(neighbour.narrow(dim, 0, n - 1))
    difference.narrow(dim, 0, 1).zero_()
    return difference


class _ShiftMultiplyAdd(torch.autograd.Function):
    """out[i] = sum_j kernel_j[i] · x[i + j - k // 2] along dim 1, zero outside; kernel broadcasts against x.

    A grouped convolution with one group per sample and channel does the same far more slowly. In-place accumulation needs its own
    backward, which is the same operation with the shifts reversed.
    """

    @staticmethod
    def forward(ctx, x, kernel):  # x (G, S, ...), kernel (k, G, S or 1, ...) with trailing dims that broadcast
        ctx.save_for_backward(x, kernel)
        return _shift_multiply_add(x, kernel)

    @staticmethod
    def backward(ctx, grad):
        x, kernel = ctx.saved_tensors
        wants_x, wants_kernel = ctx.needs_input_grad
        return _gradient_of_x(grad, kernel) if wants_x else None, _gradient_of_kernel(grad, x, kernel) if wants_kernel else None


class _WeighAndAggregate(torch.autograd.Function):
    """`weigh_and_aggregate`. What it keeps for the backward pass is x and the sigmoids; the rest is cheaper computed again than kept."""

    @staticmethod
    def forward(ctx, x, kernel, first, second):  # and not *logits, which torch.compile does not take
        maps = [torch.sigmoid(z) for z in (first, second) if z is not None]
        ctx.save_for_backward(x, kernel, *maps)
        return _shift_multiply_add(_weigh(x, maps), kernel)

    @staticmethod
    def backward(ctx, grad):
        x, kernel, *maps = ctx.saved_tensors
        grad_kernel = _gradient_of_kernel(grad, _weigh(x, maps), kernel)
        grad_weighed = _gradient_of_x(grad, kernel)
        weight = maps[0] * maps[1] if len(maps) == 2 else maps[0]
        grad_x = torch.addcmul(grad_weighed, grad_weighed, weight)
        grad_weighed *= x
        grad_weighed *= weight  # sigmoid' = sigmoid · (1 - sigmoid), and the product of all sigmoids is common to the maps
        first, *second = (torch.addcmul(grad_weighed, grad_weighed, a, value=-1) for a in maps)
        return grad_x, grad_kernel, first, second[0] if second else None


def _weigh(x: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
    out = x * maps[0]
    for a in maps[1:]:
        out *= a
    return out.add_(x)


def _shift_multiply_add(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    out = x * kernel[kernel.shape[0] // 2]
    for tap, to, source in _shifts(kernel, x.shape[1]):
        out[:, to].addcmul_(x[:, source], _rows(tap, to))
    return out


def _gradient_of_x(grad: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    out = grad * kernel[kernel.shape[0] // 2]
    for tap, to, source in _shifts(kernel, grad.shape[1]):
        out[:, source].addcmul_(grad[:, to], _rows(tap, to))
    return out


def _gradient_of_kernel(grad: torch.Tensor, x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(kernel)
    middle = out[kernel.shape[0] // 2]
    middle.add_((grad * x).sum_to_size(middle.shape))
    for tap, to, source in _shifts(out, x.shape[1]):
        rows = _rows(tap, to)
        rows.add_((grad[:, to] * x[:, source]).sum_to_size(rows.shape))
    return out


def _shifts(kernel: torch.Tensor, n: int) -> list[tuple[torch.Tensor, slice, slice]]:
    """The taps beside the middle one that reach anything among n, each with the indices that it writes to and reads from."""
    middle = kernel.shape[0] // 2
    return [(tap, *_overlap(n, j - middle)) for j, tap in enumerate(kernel) if 0 < abs(j - middle) < n]


def _overlap(n: int, shift: int) -> tuple[slice, slice]:
    """The indices that get something from `shift` further on, and those indices' sources, among n."""
    return (slice(0, n - shift), slice(shift, n)) if shift >= 0 else (slice(-shift, n), slice(0, n + shift))


def _rows(kernel: torch.Tensor, index: slice) -> torch.Tensor:
    return kernel if kernel.shape[1] == 1 else kernel[:, index]


def shift_multiply_add(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Depthwise convolution along dim 1 with a kernel of its own per sample, channel and, if wanted, position.

    x: (G, S, ...), convolved along S with zeros outside. kernel: (k, G, S or 1, ...), k odd, broadcastable against x.
    Returns out[:, i] = sum_j kernel[j][:, i] * x[:, i + j - k // 2], shaped as x.
    """
    if kernel.shape[0] % 2 == 0:
        raise ValueError(f"shift_multiply_add: the kernel has {kernel.shape[0]} taps; an odd number is needed to keep the length")
    return _ShiftMultiplyAdd.apply(x, kernel.to(x.dtype))  # under autocast a softmax's kernel is float32: the result stays x's


def weigh_and_aggregate(x: torch.Tensor, kernel: torch.Tensor, first: torch.Tensor, second: torch.Tensor | None = None) -> torch.Tensor:
    """shift_multiply_add(A · x + x, kernel), A = sigmoid(first) · sigmoid(second) or the first alone; both shaped as x (Eq. 5)."""
    return _WeighAndAggregate.apply(x, kernel.to(x.dtype), first, second)
