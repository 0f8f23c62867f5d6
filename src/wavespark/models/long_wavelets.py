"""Wavelets longer than Haar reach over the borders of cells: for whole crops only, through ptwt.

Axes: B batch, C channels, D H W tokens, L low-pass tokens.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wavespark.errors import DependencyError, ModelError
from wavespark.shapes import as_triple
from wavespark.sparse import CellLayout, VisibleCells, gather_cells


def check_wavelet(name: str, layout: CellLayout) -> None:
    """Raises a ModelError where some cell is hidden and the wavelet would read it."""
    if name != "haar" and not layout.is_full:
        hidden = layout.batch_size * layout.grid[0] * layout.grid[1] * layout.grid[2] - len(layout)
        raise ModelError(
            f"the wavelet {name!r} reaches over the borders of cells, and {hidden} cell(s) are hidden: their content would leak into what is visible. "
            "Use wavelet='haar' to pre-train, or show every cell"
        )


def exchange_low_pass(
    h: VisibleCells, wavelet: str, levels: int, attention: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """[N, b, b, b, C]: h with its low-pass band replaced by attention over all its tokens, details
    untouched.

    Args:
        h: every cell visible.
        wavelet: a name of PyWavelets.
        levels: how often the band is halved.
        attention: tokens [B, L, C] and their positions [L, 3] to tokens.

    Raises:
        DependencyError: if ptwt is not installed.
    """
    ptwt = _ptwt()
    # The tokens as a crop of whole cells of their own.
    size = as_triple([g * b for g, b in zip(h.grid, h.block, strict=True)])
    counts = h.layout.counts
    full = CellLayout(cells=h.cells, grid=h.grid, batch_size=h.batch_size, size=size, cell=h.block, counts=counts)
    dense = VisibleCells(features=h.features, layout=full).to_dense()
    low, *details = ptwt.wavedec3(dense, wavelet, mode="zero", level=levels)
    gain = 2 ** (1.5 * levels)  # orthonormal filters sum to sqrt(2) an axis and level
    positions = torch.cartesian_prod(*[torch.arange(n, device=low.device) for n in low.shape[2:]])
    tokens = attention(low.flatten(2).transpose(1, 2) / gain, positions)
    low = gain * tokens.transpose(1, 2).unflatten(2, low.shape[2:])
    back = ptwt.waverec3((low, *details), wavelet)[:, :, : size[0], : size[1], : size[2]]
    short = [n - m for n, m in zip(size, back.shape[2:], strict=True)]
    back = F.pad(back, (0, short[2], 0, short[1], 0, short[0])) if any(short) else back
    return gather_cells(back, full, h.block)


def _ptwt() -> Any:
    try:
        import ptwt
    except ImportError:
        raise DependencyError("ptwt", "wavelets", "a wavelet other than Haar") from None
    return ptwt
