"""The paper's equations written out with loops in float64, from the paper's text and not from the
implementation.

Everything takes NumPy arrays. Index names are the paper's: u snippet, t frame, c channel, h row, w
column. `batch_norm` is the eval-mode normalisation; the implementation puts one after squeezes,
view convolutions and recoveries, where the paper shows plain convolutions.
"""

from __future__ import annotations

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def batch_norm(x, bn, channel_axis):
    """bn = (weight, bias, mean, variance, eps)."""
    weight, bias, mean, variance, eps = bn
    shape = [1] * x.ndim
    shape[channel_axis] = -1
    return (x - mean.reshape(shape)) / np.sqrt(variance.reshape(shape) + eps) * weight.reshape(
        shape
    ) + bias.reshape(shape)


def pointwise(x, weight, channel_axis):
    """1x1 convolution: weight (out, in)."""
    return np.moveaxis(np.tensordot(weight, x, (1, channel_axis)), 0, channel_axis)


def at(array, *index):
    """array[index], zero outside: the zero padding of a convolution."""
    if all(0 <= i < n for i, n in zip(index, array.shape, strict=True)):
        return array[index]
    return 0.0


def channelwise_3x3(frame_chw, weight):
    """Channel-wise Conv3x3 of Eq. 1: weight (C, 3, 3)."""
    out = np.zeros_like(frame_chw)
    for c, h, w in np.ndindex(frame_chw.shape):
        for i in range(3):
            for j in range(3):
                out[c, h, w] += weight[c, i, j] * at(frame_chw[c], h + i - 1, w + j - 1)
    return out


def equation_1(f_tchw, weight, direction):
    """Forward: D[t] = F[t] - Conv(F[t+1]), zero at the last t. Backward: D[t] = F[t] -
    Conv(F[t-1]), zero at the first.
    """
    d = np.zeros_like(f_tchw)
    for t in range(len(f_tchw)):
        other = t + 1 if direction == "forward" else t - 1
        if 0 <= other < len(f_tchw):
            d[t] = f_tchw[t] - channelwise_3x3(f_tchw[other], weight)
    return d


def equation_2(d_tchw, weight, bn):
    """Conv3x3(D^h) + D^h on H x T planes, one for every column w; weight (out, in, T, H). The
    recovery follows in `attention`.
    """
    out = np.zeros_like(d_tchw)
    frames, channels, height, width = d_tchw.shape
    for w in range(width):
        plane = d_tchw[:, :, :, w]  # T, C, H
        for t, o, h in np.ndindex(frames, channels, height):
            for c in range(channels):
                for i in range(3):
                    for j in range(3):
                        out[t, o, h, w] += weight[o, c, i, j] * at(plane, t + i - 1, c, h + j - 1)
    return batch_norm(out, bn, 1) + d_tchw


def equation_3(d_tchw, weight, bn):
    """The same on T x W planes, one for every row h; weight (out, in, T, W)."""
    return equation_2(d_tchw.swapaxes(2, 3), weight, bn).swapaxes(2, 3)


def equation_4(i2_tchw, phi1, phi2):
    """K = softmax(phi2(relu(phi1(GAP)))) for each channel: (C, k)."""
    pooled = i2_tchw.mean((2, 3))  # T, C
    kernels = []
    for c in range(pooled.shape[1]):
        hidden = np.maximum(phi1 @ pooled[:, c], 0)
        logits = phi2 @ hidden
        kernels.append(np.exp(logits) / np.exp(logits).sum())
    return np.array(kernels)


def equation_5(kernel, atten, i2_tchw):
    """K ⊗ (Atten ⊙ X2 + X2): depth-wise over time, each channel with its kernel, zeros outside
    the snippet.
    """
    weighed = atten * i2_tchw + i2_tchw
    out = np.zeros_like(i2_tchw)
    k = kernel.shape[1]
    for t, c, h, w in np.ndindex(out.shape):
        for j in range(k):
            out[t, c, h, w] += kernel[c, j] * at(weighed, t + j - k // 2, c, h, w)
    return out


def equation_7(f_cut, conv, bn, recover):
    """sigma(Conv1x1(BN(Conv3x1(F)))): conv (out, in, 3) along u."""
    channels, snippets, frames = f_cut.shape
    mixed = np.zeros((conv.shape[0], snippets, frames))
    for o, u, t in np.ndindex(mixed.shape):
        for c in range(channels):
            for i in range(3):
                mixed[o, u, t] += conv[o, c, i] * at(f_cut, c, u + i - 1, t)
    return sigmoid(pointwise(batch_norm(mixed, bn, 0), recover, 0))


def along_t(f_cut, conv, channelwise):
    """Conv1x3 along t: conv (out, in, 3), or (C, 3) channel-wise."""
    out = np.zeros((conv.shape[0], *f_cut.shape[1:]))
    for o, u, t in np.ndindex(out.shape):
        for i in range(3):
            if channelwise:
                out[o, u, t] += conv[o, i] * at(f_cut, o, u, t + i - 1)
            else:
                for c in range(f_cut.shape[0]):
                    out[o, u, t] += conv[o, c, i] * at(f_cut, c, u, t + i - 1)
    return out


def equations_8_to_10(f_cut, squeeze, within, neighbour, recover):
    """sigma(Conv1x1(D_{u,u+1} + D_{u+1,u})), each difference at the snippet it belongs to and
    zero where there is no neighbour.
    """
    f_hat = along_t(pointwise(f_cut, squeeze, 0), within, channelwise=False)
    moved = along_t(f_hat, neighbour, channelwise=True)
    both = np.zeros_like(f_hat)
    last = f_hat.shape[1] - 1
    for u in range(last + 1):
        if u < last:
            both[:, u] += f_hat[:, u] - moved[:, u + 1]
        if u > 0:
            both[:, u] += f_hat[:, u] - moved[:, u - 1]
    return sigmoid(pointwise(both, recover, 0))


def equation_11(f_tcuhw, weight_cut, taps):
    """Conv_U(F1 ⊙ F2 ⊙ F + F): taps (C, 3) channel-wise or (out, in, 3), along u."""
    weighed = f_tcuhw * weight_cut.transpose(2, 0, 1)[..., None, None] + f_tcuhw
    out = np.zeros_like(f_tcuhw)
    for t, o, u, h, w in np.ndindex(out.shape):
        for i in range(3):
            if taps.ndim == 2:
                out[t, o, u, h, w] += taps[o, i] * at(weighed, t, o, u + i - 1, h, w)
            else:
                for c in range(taps.shape[1]):
                    out[t, o, u, h, w] += taps[o, c, i] * at(weighed, t, c, u + i - 1, h, w)
    return out
