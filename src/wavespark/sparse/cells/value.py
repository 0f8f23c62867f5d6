"""Visible cells: the features of a batch where it is visible, and nothing else.

Axes: B batch, C channels, D H W grid or voxels, N visible cells of the whole batch. A *cell* is the
unit that is hidden or visible; a level of the encoder has `b` tokens along each edge of a cell.
Hidden cells are never stored, so nothing of them can be computed, leak or cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from wavespark.errors import ShapeError
from wavespark.shapes import Triple, as_triple, ceil_div, product
from wavespark.sparse.cells.layout import CellLayout
from wavespark.sparse.features import Features, check_samples

if TYPE_CHECKING:
    from wavespark.sparse.voxels.value import SparseVoxels


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VisibleCells(Features):
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
        if not isinstance(self.features, Tensor):
            raise ShapeError(f"features must be a tensor [N, b, b, b, C], got {type(self.features).__name__}")
        if 0 in self.features.shape[1:]:
            raise ShapeError(f"features need at least one token and one channel, got {tuple(self.features.shape)}")
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
        """Return the same cells with other features, [N, b', b', b', C']."""
        return replace(self, features=features)

    def zero_outside(self) -> Self:
        """Return the value with zeros at tokens without any voxel of the crop; every operation that
        mixes tokens begins with it."""
        inside = self.layout.inside(self.block)
        return self if inside is None else self.with_features(self.features.where(inside[..., None], 0))

    @classmethod
    def from_dense(cls, crop_BCDHW: Tensor, visible_BDHW: Tensor, cell: int | Triple = 16) -> Self:
        """Cut the visible cells out of a crop; a hidden voxel is never read.

        Args:
            crop_BCDHW: voxels or tokens.
            visible_BDHW: bool, one value a cell, True where visible.
            cell: voxels along each edge of a cell.

        Raises:
            ShapeError: if the shapes do not fit or nothing is visible in a sample.
        """
        if not isinstance(crop_BCDHW, Tensor) or crop_BCDHW.ndim != 5:
            shape = tuple(crop_BCDHW.shape) if isinstance(crop_BCDHW, Tensor) else type(crop_BCDHW).__name__
            raise ShapeError(f"a crop must be a tensor [B, C, D, H, W], got {shape}")
        batch, _, d, h, w = crop_BCDHW.shape
        if isinstance(visible_BDHW, Tensor) and visible_BDHW.ndim and visible_BDHW.shape[0] != batch:
            raise ShapeError(f"the crop has {batch} sample(s) and `visible` {visible_BDHW.shape[0]}")
        layout = CellLayout.of(visible_BDHW, size=(d, h, w), cell=as_triple(cell, "cell"), device=crop_BCDHW.device)
        return cls(features=gather_cells(crop_BCDHW, layout, layout.cell), layout=layout)

    def to_dense(self, fill: float = 0.0) -> Tensor:
        """Return [B, C, D, H, W] with `ceil(size / stride)` tokens along each axis; hidden tokens
        hold `fill`."""
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
        dense = dense[:, :, : extent[0], : extent[1], : extent[2]]
        # One token a cell, or one cell: a view, which must not let the caller write into the
        # features.
        return dense.clone() if product(self.grid) == 1 or product(block) == 1 else dense

    def to_sparse(self) -> "SparseVoxels":
        """Return the same values as general sparse voxels; sites are in voxels of the crop,
        multiples of the stride."""
        from wavespark.sparse.convert import to_sparse

        return to_sparse(self)

    def on_device(self, device: torch.device, non_blocking: bool = False) -> Self:
        """Return the same value on another device."""
        features = self.features.to(device, non_blocking=non_blocking)
        return replace(self, features=features, layout=self.layout.to(features.device, non_blocking))

    def inside(self) -> Tensor | None:
        """Return bool [N, b, b, b]: tokens that hold at least one voxel of the crop; None where all
        do."""
        return self.layout.inside(self.block)

    def of_samples(self, values_BC: Tensor) -> Self:
        """Return the same cells, each token with the values of its sample; for example to multiply
        by a gate of each sample.

        Args:
            values_BC: [B, C], one row a sample.

        Raises:
            ShapeError: if there is not one row for each sample.
        """
        check_samples(values_BC, self.batch_size)
        rows = values_BC.index_select(0, self.cells[:, 0])[:, None, None, None]
        return self.with_features(rows.expand(-1, *self.block, -1).contiguous()).zero_outside()

    def check_same_sites(self, other: Self) -> None:
        """Raise a ShapeError unless both hold the same tokens of the same cells."""
        if not self.same_tokens(other):
            raise ShapeError(f"only values on the same tokens can be combined, got {self!r} and {other!r}")

    def same_tokens(self, other: "VisibleCells") -> bool:
        """Return True if both hold the same tokens of the same cells."""
        return self.block == other.block and self.layout.same_as(other.layout)


def cat_cells(values: Sequence[VisibleCells]) -> VisibleCells:
    """Concatenate the channels of several values on the same tokens.

    Raises:
        ShapeError: if the values are not on the same tokens.
    """
    first = values[0]
    for i, x in enumerate(values):
        if not first.same_tokens(x):
            raise ShapeError(f"value {i} of cat is on other tokens than the first: {x!r} and {first!r}")
    return first.with_features(torch.cat([x.features for x in values], -1))


def gather_cells(dense_BCDHW: Tensor, layout: CellLayout, block: Triple) -> Tensor:
    """Cut the cells of `layout` from a dense tensor with `block` voxels or tokens a cell: [N, b, b,
    b, C], zero beyond its end.

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
    """Cut the voxels of chosen cells: [M, c, c, c, C] in the order of `chosen_BDHW.nonzero()`, zero
    beyond the crop.

    A sample may have none.
    """
    _, _, d, h, w = dense_BCDHW.shape
    cells = chosen_BDHW.nonzero().to(dense_BCDHW.device, non_blocking=True)
    grid = ceil_div((d, h, w), cell)
    counts = tuple(chosen_BDHW.flatten(1).sum(1).tolist())
    layout = CellLayout(cells=cells, grid=grid, batch_size=len(dense_BCDHW), size=(d, h, w), cell=cell, counts=counts)
    return gather_cells(dense_BCDHW, layout, cell)
