"""Sparse voxels: features at general sites of a batch of volumes.

Axes: B batch, C channels, D H W grid, N active sites of the whole batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from wavespark.errors import ShapeError, SitesError
from wavespark.shapes import Triple, as_triple
from wavespark.sparse.voxels.coordinates import Coordinates, flatten

if TYPE_CHECKING:
    from wavespark.sparse.cells.value import VisibleCells


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SparseVoxels:
    """Features [N, C] at N distinct sites (sample, d, h, w); every other position is absent, not zero.

    Example:
        >>> sites = torch.tensor([[0, 0, 0, 0], [0, 1, 2, 3]], dtype=torch.int32)
        >>> SparseVoxels(torch.ones(2, 3), sites, stride=1, batch_size=1)
        SparseVoxels(2 site(s), 3 channel(s), stride 1, batch 1)

    Raises:
        SitesError: naming the row, if sites are duplicate, negative, not whole, off the stride, of a sample outside the
        batch, or if they are
            on another device or of another number than the features.
    """

    features: Tensor
    """[N, C]."""
    sites: Tensor
    """int32 [N, 4]: sample, d, h, w; at multiples of the stride."""
    stride: int | Triple = 1
    """Distance between neighbouring sites; one number where the three axes agree."""
    batch_size: int | None = None
    """Samples in the batch, with or without sites; by default up to the last sample that has any."""
    coordinates: Coordinates = field(default=None)  # type: ignore[assignment]
    """The sites with what was looked up from them; made here unless another value on the same sites lends its own."""

    def __post_init__(self) -> None:
        known = self.coordinates
        if known is None:
            if not isinstance(self.sites, Tensor):
                raise SitesError(f"sites must be a tensor [N, 4], got {type(self.sites).__name__}")
            known = Coordinates(self.sites, as_triple(self.stride, "stride"), self.batch_size)
        if self.features.ndim != 2 or len(self.features) != len(known):
            shape = tuple(self.features.shape)
            raise SitesError(
                f"{len(known)} sites need features [{len(known)}, C], got {shape}: "
                f"row {min(len(known), *shape[:1] or (0,))} has no partner"
            )
        if not self.features.is_floating_point():
            raise ShapeError(f"features must be floating point, got {self.features.dtype}")
        if self.features.device != known.device:
            raise SitesError(
                f"features are on {self.features.device} and sites, from row 0 on, on {known.device}: "
                "move one of them with .to(device)"
            )
        object.__setattr__(self, "coordinates", known)
        object.__setattr__(self, "sites", known.sites)
        object.__setattr__(self, "stride", known.stride[0] if len(set(known.stride)) == 1 else known.stride)
        object.__setattr__(self, "batch_size", known.batch_size)

    @classmethod
    def on(cls, coordinates: Coordinates, features: Tensor) -> Self:
        """Features on coordinates that were checked before."""
        return cls(features, coordinates.sites, coordinates.stride, coordinates.batch_size, coordinates)

    @classmethod
    def from_dense(cls, dense_BCDHW: Tensor, visible_BDHW: Tensor | None = None) -> Self:
        """The visible positions of a dense tensor, in lexicographic order; hidden ones are never read.

        Args:
            dense_BCDHW: features of a grid.
            visible_BDHW: bool, True where active; None takes every position.

        Raises:
            ShapeError: if the shapes differ or `visible` is not boolean.
        """
        if dense_BCDHW.ndim != 5:
            raise ShapeError(f"a dense tensor must be [B, C, D, H, W], got shape {tuple(dense_BCDHW.shape)}")
        batch, _, *grid = dense_BCDHW.shape
        if visible_BDHW is None:
            visible_BDHW = torch.ones(batch, *grid, dtype=torch.bool, device=dense_BCDHW.device)
        if visible_BDHW.dtype != torch.bool or tuple(visible_BDHW.shape) != (batch, *grid):
            raise ShapeError(
                f"`visible` must be bool {(batch, *grid)} (True = visible), "
                f"got {visible_BDHW.dtype} {tuple(visible_BDHW.shape)}"
            )
        sites = visible_BDHW.nonzero()
        s, d, h, w = sites.unbind(1)
        rows = flatten((s, d, h, w), (grid[0], grid[1], grid[2]))
        features = dense_BCDHW.movedim(1, -1).flatten(0, 3).index_select(0, rows)
        return cls.on(Coordinates.trusted(sites, (1, 1, 1), batch), features)

    def to_dense(self, shape: Sequence[int] | None = None, fill: float = 0.0) -> Tensor:
        """[B, C, D, H, W]: one position a stride; positions without a site hold `fill`.

        Args:
            shape: D, H, W of the grid (or all five); by default up to the last site.
            fill: value elsewhere.

        Raises:
            ShapeError: if `shape` is not that of this value.
            SitesError: naming the row of a site outside `shape`.
        """
        grid = self._grid(shape)
        lattice = self.coordinates.lattice
        outside = torch.stack([axis >= size for axis, size in zip(lattice[1:], grid, strict=True)]).any(0)
        if bool(outside.any()):
            row = int(outside.int().argmax())
            raise SitesError(
                f"row {row} of sites, {self.sites[row].tolist()} (sample, d, h, w), lies outside the grid {grid} "
                f"at stride {self.stride}"
            )
        empty = self.features.new_full((self.coordinates.batch_size * grid[0] * grid[1] * grid[2], self.channels), fill)
        dense = empty.index_copy(0, flatten(lattice, grid), self.features)
        return dense.unflatten(0, (self.coordinates.batch_size, *grid)).movedim(-1, 1)

    def _grid(self, shape: Sequence[int] | None) -> Triple:
        if shape is None:
            return self.coordinates.extent
        sizes = tuple(int(s) for s in shape)
        if len(sizes) == 5 and sizes[:2] == (self.batch_size, self.channels):
            sizes = sizes[2:]
        if len(sizes) != 3:
            raise ShapeError(
                f"the dense shape of {self!r} is (D, H, W) or ({self.batch_size}, {self.channels}, D, H, W), "
                f"got {sizes}"
            )
        return sizes

    @property
    def channels(self) -> int:
        return self.features.shape[1]

    def __len__(self) -> int:
        return self.features.shape[0]

    def __repr__(self) -> str:
        size = f"{len(self)} site(s), {self.channels} channel(s)"
        return f"SparseVoxels({size}, stride {self.stride}, batch {self.batch_size})"

    def with_features(self, features: Tensor) -> Self:
        """The same sites with other features, [N, C']."""
        return self.on(self.coordinates, features)

    def to(self, device: torch.device | str) -> Self:
        """The same value on another device."""
        return self.on(self.coordinates.to(torch.empty(0, device=device).device), self.features.to(device))

    def prune(self, keep_N: Tensor) -> Self:
        """The rows where `keep` is True.

        Raises:
            ShapeError: if `keep` is not bool [N].
        """
        if keep_N.dtype != torch.bool or keep_N.shape != (len(self),):
            raise ShapeError(f"`keep` must be bool [{len(self)}], got {keep_N.dtype} {tuple(keep_N.shape)}")
        rows = keep_N.nonzero().flatten()
        return self.on(self.coordinates.select(rows), self.features.index_select(0, rows))

    def to_cells(self, cell: int | Triple = 16, size: Triple | None = None) -> "VisibleCells":
        """Return the same values as visible cells of `cell` voxels; see `convert.to_cells`."""
        from wavespark.sparse.convert import to_cells

        return to_cells(self, as_triple(cell, "cell"), size)

    def __add__(self, other: "SparseVoxels") -> Self:
        """The union of the sites; where both are active, their sum.

        Raises:
            ShapeError: if the numbers of channels differ.
            SitesError: if stride or batch size differ.
        """
        if not isinstance(other, SparseVoxels):
            return NotImplemented
        if self.channels != other.channels:
            raise ShapeError(f"cannot add {other.channels} channel(s) to {self.channels}")
        if self.coordinates.same_as(other.coordinates):
            return self.with_features(self.features + other.features)
        both = self.coordinates.union(other.coordinates)
        return self.on(both, features_at(both, self) + features_at(both, other))


def features_at(sites: Coordinates, x: SparseVoxels) -> Tensor:
    """[n, C]: the features of x at other sites, zero where x has none."""
    padded = torch.cat((x.features, x.features.new_zeros(1, x.channels)))
    return padded.index_select(0, x.coordinates.find(sites.lattice)[:, 0])


def prune(x: SparseVoxels, keep_N: Tensor) -> SparseVoxels:
    """The rows of x where `keep` (bool [N]) is True."""
    return x.prune(keep_N)


def cat_voxels(values: Sequence[SparseVoxels]) -> SparseVoxels:
    """The channels of several values on the same sites, one after the other; rows follow the first.

    Raises:
        SitesError: if the values do not have the same sites.
    """
    first = values[0].coordinates
    parts = []
    for i, x in enumerate(values):
        if x.coordinates.same_as(first):
            parts.append(x.features)
            continue
        absent = len(x)
        alike = x.coordinates.stride == first.stride and x.batch_size == first.batch_size and len(x) == len(first)
        rows = x.coordinates.find(first.lattice)[:, 0] if alike else None
        if rows is None or bool((rows == absent).any()):
            raise SitesError(
                f"value {i} of cat is on other sites than the first: {x!r} and {values[0]!r}. Use x + y for a union"
            )
        parts.append(x.features.index_select(0, rows))
    return values[0].with_features(torch.cat(parts, 1))
