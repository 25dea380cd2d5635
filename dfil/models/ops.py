"""Operations that several modules share. Folded activations are (N, C, H, W) with N = B·U·T, frames fastest."""

from __future__ import annotations

from collections.abc import Sequence

import torch


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
    return per_channel.repeat(
        *[1] * (per_channel.ndim - 1), rows.shape[-1] // per_channel.shape[-1]
    )


def pointwise(x_nchw: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """A 1x1 convolution, weight (out, C, 1, 1), bias (out,). It makes no copy of channels that are a part of a larger map; conv2d does."""
    if x_nchw.is_contiguous(memory_format=torch.channels_last):
        return torch.nn.functional.conv2d(x_nchw, weight, bias)
    n, _, h, w = x_nchw.shape
    rows = torch.addmm(bias, x_nchw.permute(0, 2, 3, 1).flatten(0, 2), weight.flatten(1).t())
    return rows.reshape(n, h, w, -1).permute(0, 3, 1, 2)


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
    difference = (
        current.clone()
    )  # and not cat: clone keeps channels_last behind an unfolded batch, cat does not
    difference.narrow(dim, 0, n - 1).sub_(neighbour.narrow(dim, 1, n - 1))
    difference.narrow(dim, n - 1, 1).zero_()
    return difference


def difference_to_previous(
    current: torch.Tensor, neighbour: torch.Tensor, dim: int
) -> torch.Tensor:
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
    def forward(
        ctx, x, kernel
    ):  # x (G, S, ...), kernel (k, G, S or 1, ...) with trailing dims that broadcast
        ctx.save_for_backward(x, kernel)
        return _shift_multiply_add(x, kernel)

    @staticmethod
    def backward(ctx, grad):
        x, kernel = ctx.saved_tensors
        wants_x, wants_kernel = ctx.needs_input_grad
        return _gradient_of_x(grad, kernel) if wants_x else None, _gradient_of_kernel(
            grad, x, kernel
        ) if wants_kernel else None


class _WeighAndAggregate(torch.autograd.Function):
    """`weigh_and_aggregate`. What it keeps for the backward pass is x and the sigmoids; the rest is cheaper computed again than kept."""

    @staticmethod
    def forward(
        ctx, x, kernel, first, second
    ):  # and not *logits, which torch.compile does not take
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
    return [
        (tap, *_overlap(n, j - middle)) for j, tap in enumerate(kernel) if 0 < abs(j - middle) < n
    ]


def _overlap(n: int, shift: int) -> tuple[slice, slice]:
    """The indices that get something from `shift` further on, and those indices' sources, among n."""
    return (
        (slice(0, n - shift), slice(shift, n))
        if shift >= 0
        else (slice(-shift, n), slice(0, n + shift))
    )


def _rows(kernel: torch.Tensor, index: slice) -> torch.Tensor:
    return kernel if kernel.shape[1] == 1 else kernel[:, index]


def shift_multiply_add(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Depthwise convolution along dim 1 with a kernel of its own per sample, channel and, if wanted, position.

    x: (G, S, ...), convolved along S with zeros outside. kernel: (k, G, S or 1, ...), k odd, broadcastable against x.
    Returns out[:, i] = sum_j kernel[j][:, i] * x[:, i + j - k // 2], shaped as x.
    """
    if kernel.shape[0] % 2 == 0:
        raise ValueError(
            f"shift_multiply_add: the kernel has {kernel.shape[0]} taps; an odd number is needed to keep the length"
        )
    return _ShiftMultiplyAdd.apply(
        x, kernel.to(x.dtype)
    )  # under autocast a softmax's kernel is float32: the result stays x's


def weigh_and_aggregate(
    x: torch.Tensor, kernel: torch.Tensor, first: torch.Tensor, second: torch.Tensor | None = None
) -> torch.Tensor:
    """shift_multiply_add(A · x + x, kernel), A = sigmoid(first) · sigmoid(second) or the first alone; both shaped as x (Eq. 5)."""
    return _WeighAndAggregate.apply(x, kernel.to(x.dtype), first, second)


_CACHED = (
    2**18
)  # numbers of one frame of some snippets, a megabyte: with what is made of them they stay in the cores' caches


@torch.no_grad()
def weigh_and_aggregate_in_place(
    x_gtpc: torch.Tensor,
    kernel: torch.Tensor,
    views: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
) -> None:
    """Eq. 5 written over x (G, T, P, C), P pixels, for scoring on a CPU; any view whose channels are neighbours in memory will do.

    kernel: (k, G or 1, C). views: for each attention map what its logits are made of, (G, T, P, R), with weight (C, R) and bias (C,).

    Passes over the whole map would each fetch it from memory anew. Here the logits exist for one frame of a few snippets at a time,
    and a core meets the same pixels in every pass.
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
        weighed = [
            _weighed_frame(x[:, t], [(view[:, t], w, b) for view, w, b in parts])
            for t in range(frames)
        ]
        for t in range(frames):
            torch.mul(weighed[t], taps[middle], out=x[:, t])
            for j, tap in enumerate(taps):
                if j != middle and 0 <= t + j - middle < frames:
                    x[:, t].addcmul_(weighed[t + j - middle], tap)


def _weighed_frame(
    x_gpc: torch.Tensor, views: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
) -> torch.Tensor:
    first, *second = (torch.baddbmm(b, view, w).sigmoid_() for view, w, b in views)
    for attention in second:
        first *= attention
    return torch.addcmul(x_gpc, x_gpc, first, out=first)
