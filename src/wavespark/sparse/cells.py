"""Visible cells: the features of a batch where it is visible, and nothing else.

Axes: B batch, C channels, D H W grid or voxels, N visible cells of the whole batch. A *cell* is the unit that is hidden or visible; a level
of the encoder has `b` tokens along each edge of a cell. Hidden cells are never stored, so nothing of them can be computed, leak or cost.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from wavespark.errors import ShapeError
from wavespark.shapes import Triple, as_triple, ceil_div, product

if TYPE_CHECKING:
    from wavespark.sparse.voxels import SparseVoxels

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
        """int64 [N, low+b+high, ...]: rows of the flattened features that surround each cell; the number of rows where there is nothing.

        Features are flattened to [N * b^3, C]; index N * b^3 stands for "hidden or outside" and must read zero.
        """
        return self.kept(("halo", block, low, high), lambda: self._halo(block, low, high))

    def _halo(self, block: Triple, low: int, high: int) -> Tensor:
        device = self.cells.device
        near, local = [], []
        for b in block:
            token = torch.arange(-low, b + high, device=device)
            near.append(torch.div(token, b, rounding_mode="floor") + 1)
            local.append(token % b)
        n = self.neighbours()[:, near[0][:, None, None], near[1][None, :, None], near[2][None, None, :]]
        inner = (local[0][:, None, None] * block[1] + local[1][None, :, None]) * block[2] + local[2]
        tokens = product(block)
        return torch.where(n < len(self), n * tokens + inner, len(self) * tokens)

    def everywhere(self) -> "CellLayout":
        """The layout of the same crops with every cell visible."""
        if self.is_full:
            return self
        axes = [torch.arange(n, device=self.cells.device) for n in (self.batch_size, *self.grid)]
        counts = (product(self.grid),) * self.batch_size
        return replace(self, cells=torch.cartesian_prod(*axes), counts=counts, _cache={})

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
        return torch.stack(rows).to(self.cells.device)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VisibleCells:
    """The features of the visible cells of a batch at one level.

    Example:
        >>> crop = torch.zeros(2, 1, 32, 32, 32)
        >>> visible = torch.zeros(2, 2, 2, 2, dtype=torch.bool)
        >>> visible[:, 0, 1, 1] = True
        >>> VisibleCells.from_dense(crop, visible, cell=16)
        VisibleCells(2 cells of 16 x 16 x 16 tokens, 1 channel(s), stride 1, grid 2 x 2 x 2, batch 2)
    """

    features: Tensor
    """[N, b, b, b, C]."""
    layout: CellLayout

    def __post_init__(self) -> None:
        if self.features.ndim != 5 or self.features.shape[0] != len(self.layout):
            raise ShapeError(
                f"features must be [{len(self.layout)}, b, b, b, C] for this layout, got {tuple(self.features.shape)}"
            )
        if any(c % b for c, b in zip(self.layout.cell, self.block, strict=True)):
            raise ShapeError(f"{self.block} tokens do not divide a cell of {self.layout.cell} voxels")

    def __repr__(self) -> str:
        def box(size: Triple) -> str:
            return " x ".join(map(str, size))

        stride = self.stride[0] if len(set(self.stride)) == 1 else self.stride
        return (
            f"VisibleCells({len(self)} cells of {box(self.block)} tokens, {self.channels} channel(s), stride {stride}, "
            f"grid {box(self.grid)}, batch {self.batch_size})"
        )

    def __len__(self) -> int:
        return len(self.layout)

    @property
    def block(self) -> Triple:
        """Tokens along each edge of a cell."""
        _, d, h, w, _ = self.features.shape
        return d, h, w

    @property
    def channels(self) -> int:
        return self.features.shape[-1]

    @property
    def stride(self) -> Triple:
        """Voxels per token."""
        return self.layout.stride(self.block)

    @property
    def cells(self) -> Tensor:
        """int64 [N, 4]: sample, d, h, w."""
        return self.layout.cells

    @property
    def grid(self) -> Triple:
        return self.layout.grid

    @property
    def batch_size(self) -> int:
        return self.layout.batch_size

    def with_features(self, features: Tensor) -> Self:
        """The same cells with other features, [N, b', b', b', C']."""
        return replace(self, features=features)

    def zero_outside(self) -> Self:
        """Tokens without any voxel of the crop set to zero: done before every operation that mixes tokens."""
        inside = self.layout.inside(self.block)
        return self if inside is None else self.with_features(self.features.where(inside[..., None], 0))

    @classmethod
    def from_dense(cls, crop_BCDHW: Tensor, visible_BDHW: Tensor, cell: int | Triple = 16) -> Self:
        """The visible cells of a crop; a hidden voxel is never read.

        Args:
            crop_BCDHW: voxels or tokens.
            visible_BDHW: bool, one value a cell, True where visible.
            cell: voxels along each edge of a cell.

        Raises:
            ShapeError: if the shapes do not fit or nothing is visible in a sample.
        """
        if crop_BCDHW.ndim != 5:
            raise ShapeError(f"a crop must be [B, C, D, H, W], got shape {tuple(crop_BCDHW.shape)}")
        batch, _, d, h, w = crop_BCDHW.shape
        if visible_BDHW.shape[0] != batch:
            raise ShapeError(f"the crop has {batch} sample(s) and `visible` {visible_BDHW.shape[0]}")
        layout = CellLayout.of(visible_BDHW, size=(d, h, w), cell=as_triple(cell, "cell"), device=crop_BCDHW.device)
        return cls(features=gather_cells(crop_BCDHW, layout, layout.cell), layout=layout)

    def to_dense(self, fill: float = 0.0) -> Tensor:
        """[B, C, D, H, W] with `ceil(size / stride)` tokens along each axis; hidden tokens hold `fill`."""
        block, (gd, gh, gw) = self.block, self.grid
        extent = ceil_div(self.layout.size, self.stride)
        if self.layout.is_full:
            blocks = self.features.unflatten(0, (self.batch_size, gd, gh, gw))
        else:
            s, d, h, w = self.cells.unbind(1)
            empty = self.features.new_full((self.batch_size, gd, gh, gw, *block, self.channels), fill)
            blocks = empty.index_put((s, d, h, w), self.features)
        dense = blocks.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(
            self.batch_size, self.channels, gd * block[0], gh * block[1], gw * block[2]
        )
        return dense[:, :, : extent[0], : extent[1], : extent[2]]

    def to_sparse(self) -> "SparseVoxels":
        """The same values as general sparse voxels; sites are in voxels of the crop, multiples of the stride."""
        from wavespark.sparse.voxels import SparseVoxels

        block, stride = self.block, self.stride
        axes = [
            (self.cells[:, a + 1, None] * block[a] + torch.arange(block[a], device=self.cells.device)) * stride[a]
            for a in range(3)
        ]
        d, h, w = (
            axes[a].reshape(-1, *(block[a] if a == i else 1 for i in range(3))).expand(-1, *block) for a in range(3)
        )
        sample = self.cells[:, 0, None, None, None].expand(-1, *block)
        sites = torch.stack((sample, d, h, w), -1).reshape(-1, 4)
        features = self.features.reshape(-1, self.channels)
        inside = self.layout.inside(block)
        if inside is not None:
            sites, features = sites[inside.flatten()], features[inside.flatten()]
        return SparseVoxels(features, sites.int(), stride=stride, batch_size=self.batch_size)


def gather_cells(dense_BCDHW: Tensor, layout: CellLayout, block: Triple) -> Tensor:
    """[N, b, b, b, C]: the cells of `layout` cut from a dense tensor with `block` voxels or tokens a cell; zero beyond the tensor's end.

    Raises:
        ShapeError: if the tensor is not of the layout's batch and `ceil(size / stride)`.
    """
    batch, channels, *size = dense_BCDHW.shape
    extent = ceil_div(layout.size, layout.stride(block))
    if batch != layout.batch_size or tuple(size) != extent:
        raise ShapeError(
            f"the layout is of {layout.batch_size} sample(s) with {extent} value(s) along the axes at {block} a cell, "
            f"the tensor has shape {tuple(dense_BCDHW.shape)}"
        )
    beyond = [g * b - s for g, b, s in zip(layout.grid, block, size, strict=True)]
    if any(beyond):
        dense_BCDHW = F.pad(dense_BCDHW, (0, beyond[2], 0, beyond[1], 0, beyond[0]))
    (gd, gh, gw), (bd, bh, bw) = layout.grid, block
    blocks = dense_BCDHW.reshape(batch, channels, gd, bd, gh, bh, gw, bw)
    s, d, h, w = layout.cells.unbind(1)
    return blocks[s, :, d, :, h, :, w, :].permute(0, 2, 3, 4, 1).contiguous()


def cut_cells(dense_BCDHW: Tensor, chosen_BDHW: Tensor, cell: Triple) -> Tensor:
    """[M, c, c, c, C]: the voxels of chosen cells, in the order of `chosen_BDHW.nonzero()`; zero beyond the crop. A sample may have none."""
    _, _, d, h, w = dense_BCDHW.shape
    cells = chosen_BDHW.nonzero().to(dense_BCDHW.device)
    grid = ceil_div((d, h, w), cell)
    counts = tuple(chosen_BDHW.flatten(1).sum(1).tolist())
    layout = CellLayout(cells=cells, grid=grid, batch_size=len(dense_BCDHW), size=(d, h, w), cell=cell, counts=counts)
    return gather_cells(dense_BCDHW, layout, cell)
