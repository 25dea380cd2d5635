"""The bi-directional difference that both modules begin with (Eq. 1, 8 and 9)."""

import torch


def differences(f: torch.Tensor, g: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """f[t] - g[t+1] and f[t] - g[t-1] along `dim`, zero where there is no neighbour.

    Each stays at its frame t: were the second at t-1, where it is written, their sum would be
    symmetric.
    """
    n, forward, backward = f.shape[dim] - 1, torch.zeros_like(f), torch.zeros_like(f)
    forward.narrow(dim, 0, n).copy_(f.narrow(dim, 0, n) - g.narrow(dim, 1, n))
    backward.narrow(dim, 1, n).copy_(f.narrow(dim, 1, n) - g.narrow(dim, 0, n))
    return forward, backward
