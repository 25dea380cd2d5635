"""Operations that several modules share. Folded activations are (N, C, H, W) with N = B·U·T, frames fastest."""

from __future__ import annotations

import torch


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
        k, n = kernel.shape[0], x.shape[1]
        out = x * kernel[k // 2]
        for j in range(k):
            s = j - k // 2
            if s and abs(s) < n:
                to, source = _overlap(n, s)
                out[:, to].addcmul_(x[:, source], _rows(kernel[j], to))
        return out

    @staticmethod
    def backward(ctx, grad):
        x, kernel = ctx.saved_tensors
        k, n = kernel.shape[0], x.shape[1]
        grad_x = grad_kernel = None
        if ctx.needs_input_grad[0]:
            grad_x = grad * kernel[k // 2]
            for j in range(k):
                s = j - k // 2
                if s and abs(s) < n:
                    to, source = _overlap(n, s)
                    grad_x[:, source].addcmul_(grad[:, to], _rows(kernel[j], to))
        if ctx.needs_input_grad[1]:
            grad_kernel = torch.zeros_like(kernel)
            for j in range(k):
                s = j - k // 2
                if abs(s) < n:
                    to, source = _overlap(n, s)
                    product = grad[:, to] * x[:, source]
                    _rows(grad_kernel[j], to).add_(product.sum_to_size(_rows(kernel[j], to).shape))
        return grad_x, grad_kernel


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
