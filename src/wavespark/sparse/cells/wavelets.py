"""The orthonormal Haar wavelet inside cells: one low-pass token a cell, and no cell touches
another.

Axes: N cells, C channels, b tokens along an edge. The eight bands of a level are ordered as
PyWavelets names them: `aaa aad ada add daa dad dda ddd`, with one letter an axis (d, h, w), `a` for
approximation and `d` for detail. Reference: Mallat, "A wavelet tour of signal processing", section
7.7.
"""

import torch
from torch import Tensor

from wavespark.errors import ShapeError

BANDS = ("aaa", "aad", "ada", "add", "daa", "dad", "dda", "ddd")


def haar_dwt(x_NbbbC: Tensor, levels: int) -> tuple[Tensor, list[Tensor]]:
    """Return the approximation [N, b/2^L, .., C] and the details of every level, coarsest first,
    each [N, 7, b', b', b', C] in the order of `BANDS[1:]`.

    Raises:
        ShapeError: if `b` is not divisible by 2^levels.
    """
    if any(b % 2**levels for b in x_NbbbC.shape[1:4]):
        raise ShapeError(f"{tuple(x_NbbbC.shape[1:4])} tokens cannot be halved {levels} time(s)")
    details: list[Tensor] = []
    for _ in range(levels):
        bands = _analyse(x_NbbbC)
        x_NbbbC, detail = bands[:, 0], bands[:, 1:]
        details.insert(0, detail)
    return x_NbbbC, details


def haar_idwt(approximation_NbbbC: Tensor, details: list[Tensor]) -> Tensor:
    """Return the inverse of `haar_dwt`."""
    for detail in details:
        approximation_NbbbC = _synthesise(torch.cat((approximation_NbbbC[:, None], detail), 1))
    return approximation_NbbbC


def _hadamard(like: Tensor) -> Tensor:
    """[8, 8]: rows are bands, columns the eight tokens of a 2^3 block; its own inverse."""
    pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=like.dtype).to(like.device, non_blocking=True)
    return torch.kron(pair, torch.kron(pair, pair)) / 8**0.5


def _analyse(x: Tensor) -> Tensor:
    n, d, h, w, c = x.shape
    blocks = x.reshape(n, d // 2, 2, h // 2, 2, w // 2, 2, c).permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(n, 8, -1)
    return (_hadamard(x) @ blocks).view(n, 8, d // 2, h // 2, w // 2, c)


def _synthesise(bands: Tensor) -> Tensor:
    n, _, d, h, w, c = bands.shape
    blocks = (_hadamard(bands).T @ bands.reshape(n, 8, -1)).view(n, 2, 2, 2, d, h, w, c)
    return blocks.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(n, 2 * d, 2 * h, 2 * w, c)


def split_blocks(x_NbbbC: Tensor) -> Tensor:
    """Return [N, b/2, b/2, b/2, 8C]: the eight tokens of every 2^3 block side by side, all eight
    parities."""
    n, d, h, w, c = x_NbbbC.shape
    return (
        x_NbbbC.reshape(n, d // 2, 2, h // 2, 2, w // 2, 2, c)
        .permute(0, 1, 3, 5, 2, 4, 6, 7)
        .reshape(n, d // 2, h // 2, w // 2, 8 * c)
    )


def join_blocks(x_NbbbC: Tensor) -> Tensor:
    """Return the inverse of `split_blocks`: [N, 2b, 2b, 2b, C/8]."""
    n, d, h, w, c = x_NbbbC.shape
    return (
        x_NbbbC.reshape(n, d, h, w, 2, 2, 2, c // 8)
        .permute(0, 1, 4, 2, 5, 3, 6, 7)
        .reshape(n, 2 * d, 2 * h, 2 * w, c // 8)
    )
