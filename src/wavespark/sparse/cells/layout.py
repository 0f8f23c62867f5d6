"""Which cells of a batch are visible, and everything that is looked up from that.

Axes: B batch, D H W grid of cells, N visible cells of the whole batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from wavespark.errors import ShapeError
from wavespark.shapes import Triple, ceil_div, product

Kept = TypeVar("Kept")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CellLayout:
    """Which cells of which crops are visible: shared by all levels of an encoder.

    Derived tensors (halo indices, masks of tokens inside the crop) are computed once and kept on the value itself.
    """

    cells: Tensor
    """int64 [N, 4]: sample, d, h, w of every visible cell, in lexicographic order."""
    grid: Triple
    """Cells along each axis."""
    batch_size: int
    size: Triple
    """Voxels of the crop along each axis; the last cells may reach beyond it."""
    cell: Triple
    """Voxels of a cell along each axis."""
    counts: tuple[int, ...]
    """Visible cells in each sample."""
    _cache: dict[object, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, visible_BDHW: Tensor, *, size: Triple, cell: Triple, device: torch.device | None = None) -> Self:
        """The layout of the visible cells.

        Args:
            visible_BDHW: bool, on the cell grid, True where visible. On the CPU this needs no synchronisation with an accelerator.
            size: voxels of the crop.
            cell: voxels of a cell.
            device: where the features will be; by default where `visible_BDHW` is.

        Raises:
            ShapeError: if the grid is not `ceil(size / cell)`, if it is not boolean, or if a sample has no visible cell.
        """
        grid = ceil_div(size, cell)
        if visible_BDHW.dtype != torch.bool:
            raise ShapeError(f"`visible` must be boolean (True = visible), got {visible_BDHW.dtype}")
        if tuple(visible_BDHW.shape[1:]) != grid or visible_BDHW.ndim != 4:
            raise ShapeError(
                f"a crop of {size} voxels in cells of {cell} has the grid {grid}, but `visible` has shape {tuple(visible_BDHW.shape)}, "
                "expected [batch, *grid]"
            )
        counts = tuple(visible_BDHW.flatten(1).sum(1).tolist())
        if not counts or min(counts) == 0:
            raise ShapeError(
                f"sample {counts.index(0) if counts else 0} has no visible cell: an encoder has nothing to compute"
            )
        cells = visible_BDHW.nonzero().to(device or visible_BDHW.device, non_blocking=True)
        return cls(cells=cells, grid=grid, batch_size=visible_BDHW.shape[0], size=size, cell=cell, counts=counts)

    def __len__(self) -> int:
        return sum(self.counts)

    @property
    def is_full(self) -> bool:
        """Whether every cell is visible."""
        return len(self) == self.batch_size * product(self.grid)

    @property
    def is_even(self) -> bool:
        """Whether every sample has as many visible cells as the others."""
        return len(set(self.counts)) == 1

    def kept(self, key: object, make: Callable[[], Kept]) -> Kept:
        """What is derived under that name, made at its first use."""
        if key not in self._cache:
            self._cache[key] = make()
        kept: Kept = self._cache[key]
        return kept

    def stride(self, block: Triple) -> Triple:
        """Voxels per token where a cell has `block` tokens."""
        d, h, w = (c // b for c, b in zip(self.cell, block, strict=True))
        return d, h, w

    def inside(self, block: Triple) -> Tensor | None:
        """bool [N, b, b, b]: tokens that hold at least one voxel of the crop; None where all do."""
        if all(s % c == 0 for s, c in zip(self.size, self.cell, strict=True)):
            return None
        return self.kept(("inside", block), lambda: self._inside(block))

    def _inside(self, block: Triple) -> Tensor:
        extent = ceil_div(self.size, self.stride(block))
        axes = []
        for axis in range(3):
            token = self.cells[:, axis + 1, None] * block[axis] + torch.arange(block[axis], device=self.cells.device)
            axes.append(token < extent[axis])
        return axes[0][:, :, None, None] & axes[1][:, None, :, None] & axes[2][:, None, None, :]

    def neighbours(self) -> Tensor:
        """int64 [N, 3, 3, 3]: row of each neighbour cell (the centre is the cell itself), N where it is hidden or outside."""
        return self.kept("neighbours", self._neighbours)

    def _neighbours(self) -> Tensor:
        rows = len(self)
        g0, g1, g2 = (g + 2 for g in self.grid)
        table = torch.full((self.batch_size * g0 * g1 * g2,), rows, device=self.cells.device)
        s, d, h, w = self.cells.unbind(1)
        home = ((s * g0 + d + 1) * g1 + h + 1) * g2 + w + 1
        table[home] = torch.arange(rows, device=table.device)
        step = torch.arange(-1, 2, device=table.device)
        offset = (step[:, None, None] * g1 + step[None, :, None]) * g2 + step
        return table[home[:, None, None, None] + offset]

    def halo(self, block: Triple, low: int, high: int) -> Tensor:
        """int32 [N, low+b+high, ...]: rows of the flattened features that surround each cell; the number of rows where there is nothing.

        Features are flattened to [N * b^3, C]; index N * b^3 stands for "hidden or outside" and must read zero. int64 from 2^30 rows on.
        """
        return self.kept(("halo", block, low, high), lambda: self._halo(block, low, high))

    def _halo(self, block: Triple, low: int, high: int) -> Tensor:
        tokens, device = product(block), self.cells.device
        rows = len(self) * tokens
        number = torch.int32 if 2 * rows < 2**31 else torch.int64
        pattern = _halo_pattern.__wrapped__ if torch.compiler.is_compiling() else _halo_pattern
        which, inner = pattern(block, low, high, number, device)
        # Where nothing is, any token of the neighbour lands on `rows` or beyond.
        index = (self.neighbours() * tokens).to(number)
        for axis in range(3):
            index = index.index_select(axis + 1, which[axis])
        return index.add_(inner).clamp_(max=rows)

    def same_as(self, other: "CellLayout") -> bool:
        """Whether both are the same cells of crops of the same size."""
        return self is other or (
            (self.size, self.cell, self.batch_size, self.counts)
            == (other.size, other.cell, other.batch_size, other.counts)
            and torch.equal(self.cells, other.cells)
        )

    def everywhere(self) -> "CellLayout":
        """The layout of the same crops with every cell visible."""
        if self.is_full:
            return self
        axes = [torch.arange(n, device=self.cells.device) for n in (self.batch_size, *self.grid)]
        counts = (product(self.grid),) * self.batch_size
        return replace(self, cells=torch.cartesian_prod(*axes), counts=counts, _cache={})

    def only(self, chosen_BDHW: Tensor) -> "CellLayout":
        """The layout of the chosen cells of the same crops; a sample may have none."""
        counts = tuple(chosen_BDHW.flatten(1).sum(1).tolist())
        return replace(
            self, cells=chosen_BDHW.nonzero().to(self.cells.device, non_blocking=True), counts=counts, _cache={}
        )

    def rows_of(self, cells_N4: Tensor) -> Tensor:
        """int64 [N]: where cells lie in the lexicographic order of a full layout."""
        s, d, h, w = cells_N4.unbind(1)
        gd, gh, gw = self.grid
        return ((s * gd + d) * gh + h) * gw + w

    def padded_rows(self) -> Tensor:
        """int64 [B, max count]: rows of each sample; the number of rows where a sample has fewer."""
        return self.kept("padded", self._padded_rows)

    def _padded_rows(self) -> Tensor:
        width, rows, start = max(self.counts), [], 0
        for count in self.counts:
            rows.append(torch.cat((torch.arange(start, start + count), torch.full((width - count,), len(self)))))
            start += count
        return torch.stack(rows).to(self.cells.device, non_blocking=True)


@lru_cache(maxsize=64)
def _halo_pattern(
    block: Triple, low: int, high: int, number: torch.dtype, device: torch.device
) -> tuple[tuple[Tensor, ...], Tensor]:
    """What halos of cells of `block` tokens share: along each axis which neighbour (0 to 2) each place lies in, and the token within that neighbour."""
    which, inner = [], torch.zeros((), dtype=number, device=device)
    for b in block:
        token = torch.arange(-low, b + high, device=device)
        which.append(torch.div(token, b, rounding_mode="floor") + 1)
        inner = inner[..., None] * b + (token % b).to(number)
    return tuple(which), inner
