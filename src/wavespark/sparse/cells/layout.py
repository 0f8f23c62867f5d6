"""The layout of a batch: its visible cells, and everything that is looked up from them.

Axes: B batch, D H W grid of cells, N visible cells of the whole batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Self, TypeVar, cast

import torch
from torch import Tensor

from wavespark.errors import ShapeError
from wavespark.shapes import Triple, as_triple, ceil_div, product

Derived = TypeVar("Derived")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CellLayout:
    """The visible cells of a batch of crops, shared by all levels of an encoder.

    Derived tensors (halo indices, masks of tokens inside the crop) are computed once and stored on
    the value itself.
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
    _cache: dict[object, object] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.cells.ndim != 2 or self.cells.shape[1] != 4 or self.cells.dtype != torch.int64:
            raise ShapeError(
                f"cells must be int64 [N, 4] (sample, d, h, w), got {self.cells.dtype} {tuple(self.cells.shape)}"
            )
        if len(self.counts) != self.batch_size or len(self.cells) != sum(self.counts):
            raise ShapeError(
                f"{len(self.cells)} cell(s) and counts {self.counts} do not fit a batch of {self.batch_size}"
            )
        if not torch.compiler.is_compiling() and self.cells.is_inference():
            with torch.inference_mode(False):  # a layout outlives the mode that it was made in
                object.__setattr__(self, "cells", self.cells.clone())

    def __reduce__(self) -> tuple[object, ...]:
        settings = (self.cells, self.grid, self.batch_size, self.size, self.cell, self.counts)
        return _restored, settings  # without what was derived

    @classmethod
    def of(cls, visible_BDHW: Tensor, *, size: Triple, cell: Triple, device: torch.device | None = None) -> Self:
        """Build the layout of the visible cells.

        Args:
            visible_BDHW: bool, on the cell grid, True where visible. On the CPU this needs no
                synchronisation with an accelerator.
            size: voxels of the crop.
            cell: voxels of a cell.
            device: where the features will be; by default where `visible_BDHW` is.

        Raises:
            ShapeError: if the grid is not `ceil(size / cell)`, if it is not boolean, or if a sample
                has no visible cell.
        """
        if not isinstance(visible_BDHW, Tensor):
            raise ShapeError(f"`visible` must be a boolean tensor [B, D, H, W], got {type(visible_BDHW).__name__}")
        if min(*size, *cell) < 1:
            raise ShapeError(f"a crop and its cells have at least one voxel along each axis, got {size} and {cell}")
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
        """True if every cell is visible."""
        return len(self) == self.batch_size * product(self.grid)

    @property
    def is_even(self) -> bool:
        """True if all samples have the same number of visible cells."""
        return len(set(self.counts)) == 1

    def cached(self, key: object, make: Callable[[], Derived]) -> Derived:
        """Return what is derived under that name; made at its first use, fit for training also if
        that is under `inference_mode`."""
        if key not in self._cache:
            self._cache[key] = _outside_inference(make)
        return cast("Derived", self._cache[key])

    def stride(self, block: Triple) -> Triple:
        """Return the voxels per token where a cell has `block` tokens."""
        d, h, w = (c // b for c, b in zip(self.cell, block, strict=True))
        return d, h, w

    def inside(self, block: Triple) -> Tensor | None:
        """Return bool [N, b, b, b]: tokens that hold at least one voxel of the crop; None where all
        do."""
        if all(s % c == 0 for s, c in zip(self.size, self.cell, strict=True)):
            return None
        return self.cached(("inside", block), lambda: self._inside(block))

    def _inside(self, block: Triple) -> Tensor:
        extent = ceil_div(self.size, self.stride(block))
        axes = []
        for axis in range(3):
            token = self.cells[:, axis + 1, None] * block[axis] + torch.arange(block[axis], device=self.cells.device)
            axes.append(token < extent[axis])
        return axes[0][:, :, None, None] & axes[1][:, None, :, None] & axes[2][:, None, None, :]

    def neighbours(self, reach: Triple = (1, 1, 1)) -> Tensor:
        """Return int64 [N, 2r + 1, ...]: the row of each cell at most `reach` away (the centre is
        the cell itself), N where it is hidden or outside."""
        return self.cached(("neighbours", reach), lambda: self._neighbours(reach))

    def _neighbours(self, reach: Triple) -> Tensor:
        rows = len(self)
        g0, g1, g2 = (g + 2 * r for g, r in zip(self.grid, reach, strict=True))
        table = torch.full((self.batch_size * g0 * g1 * g2,), rows, device=self.cells.device)
        s, d, h, w = self.cells.unbind(1)
        home = ((s * g0 + d + reach[0]) * g1 + h + reach[1]) * g2 + w + reach[2]
        table[home] = torch.arange(rows, device=table.device)
        sd, sh, sw = (torch.arange(-r, r + 1, device=table.device) for r in reach)
        offset = (sd[:, None, None] * g1 + sh[None, :, None]) * g2 + sw
        return table[home[:, None, None, None] + offset]

    def halo(self, block: Triple, low: int | Triple, high: int | Triple) -> Tensor:
        """Return int32 [N, low+b+high, ...]: rows of the flattened features that surround each
        cell; the number of rows where there is nothing.

        Features are flattened to [N * b^3, C]; index N * b^3 stands for "hidden or outside" and
        must read zero. int64 from 2^30 rows on.
        """
        below, above = as_triple(low), as_triple(high)
        return self.cached(("halo", block, below, above), lambda: self._halo(block, below, above))

    def _halo(self, block: Triple, low: Triple, high: Triple) -> Tensor:
        tokens, device = product(block), self.cells.device
        rows = len(self) * tokens
        number = torch.int32 if 2 * rows < 2**31 else torch.int64
        d, h, w = (max(1, -(-max(below, above) // b)) for below, above, b in zip(low, high, block, strict=True))
        pattern = _halo_pattern.__wrapped__ if torch.compiler.is_compiling() else _halo_pattern
        which, inner = _outside_inference(lambda: pattern(block, low, high, (d, h, w), number, device))
        # Where nothing is, any token of the neighbour lands on `rows` or beyond.
        index = (self.neighbours((d, h, w)) * tokens).to(number)
        for axis in range(3):
            index = index.index_select(axis + 1, which[axis])
        return index.add_(inner).clamp_(max=rows)

    def same_as(self, other: "CellLayout") -> bool:
        """Return True if both are the same cells of crops of the same size."""
        return self is other or (
            (self.size, self.cell, self.batch_size, self.counts)
            == (other.size, other.cell, other.batch_size, other.counts)
            and torch.equal(self.cells, other.cells)
        )

    def everywhere(self) -> "CellLayout":
        """Return the layout of the same crops with every cell visible."""
        if self.is_full:
            return self
        axes = [torch.arange(n, device=self.cells.device) for n in (self.batch_size, *self.grid)]
        counts = (product(self.grid),) * self.batch_size
        return replace(self, cells=torch.cartesian_prod(*axes), counts=counts, _cache={})

    def only(self, chosen_BDHW: Tensor) -> "CellLayout":
        """Return the layout of chosen cells of the same crops; a sample may have none."""
        counts = tuple(chosen_BDHW.flatten(1).sum(1).tolist())
        return replace(
            self, cells=chosen_BDHW.nonzero().to(self.cells.device, non_blocking=True), counts=counts, _cache={}
        )

    def to(self, device: torch.device, non_blocking: bool = False) -> "CellLayout":
        """Return the same layout with its cells on another device."""
        if self.cells.device == device:
            return self
        cells = self.cells.to(device, non_blocking=non_blocking)
        return replace(self, cells=cells, _cache={})

    def rows_of(self, cells_N4: Tensor) -> Tensor:
        """Return int64 [N]: the places of cells in the lexicographic order of a full layout."""
        s, d, h, w = cells_N4.unbind(1)
        gd, gh, gw = self.grid
        return ((s * gd + d) * gh + h) * gw + w

    def padded_rows(self) -> Tensor:
        """Return int64 [B, max count]: rows of each sample; the number of rows where a sample has
        fewer."""
        return self.cached("padded", self._padded_rows)

    def _padded_rows(self) -> Tensor:
        width, rows, start = max(self.counts), [], 0
        for count in self.counts:
            rows.append(torch.cat((torch.arange(start, start + count), torch.full((width - count,), len(self)))))
            start += count
        return torch.stack(rows).to(self.cells.device, non_blocking=True)


def _restored(
    cells: Tensor, grid: Triple, batch_size: int, size: Triple, cell: Triple, counts: tuple[int, ...]
) -> CellLayout:
    return CellLayout(cells=cells, grid=grid, batch_size=batch_size, size=size, cell=cell, counts=counts)


def _outside_inference(make: Callable[[], Derived]) -> Derived:
    """Make something whose tensors may be saved for a backward pass."""
    if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
        return make()
    with torch.inference_mode(False), torch.no_grad():
        return make()


@lru_cache(maxsize=64)
def _halo_pattern(
    block: Triple, low: Triple, high: Triple, reach: Triple, number: torch.dtype, device: torch.device
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return what halos of cells of `block` tokens share: along each axis the neighbour of each
    place, from `-reach` on, and the token within it."""
    which, inner = [], torch.zeros((), dtype=number, device=device)
    for b, below, above, r in zip(block, low, high, reach, strict=True):
        token = torch.arange(-below, b + above, device=device)
        which.append(torch.div(token, b, rounding_mode="floor") + r)
        inner = inner[..., None] * b + (token % b).to(number)
    return tuple(which), inner
