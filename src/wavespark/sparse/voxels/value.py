"""Sparse voxels: features at general sites of a batch of volumes.

Axes: B batch, C channels, D H W grid, N active sites of the whole batch.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from wavespark.errors import ShapeError, SitesError
from wavespark.shapes import Triple, as_triple
from wavespark.sparse.features import Features, Number, check_samples
from wavespark.sparse.voxels.coordinates import Coordinates, flatten

if TYPE_CHECKING:
    from wavespark.sparse.cells.value import VisibleCells


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SparseVoxels(Features):
    """Features [N, C] at N distinct sites (sample, d, h, w); every other position is absent, not
    zero.

    Example:
        >>> sites = torch.tensor([[0, 0, 0, 0], [0, 1, 2, 3]], dtype=torch.int32)
        >>> SparseVoxels(torch.ones(2, 3), sites, stride=1, batch_size=1)
        SparseVoxels(2 site(s), 3 channel(s), stride 1, batch 1)

    Raises:
        SitesError: naming the row, if sites are duplicate, negative, not whole, off the stride, of
            a sample outside the batch, or if they are
            on another device or of another number than the features.
    """

    features: Tensor
    """[N, C]."""
    sites: Tensor
    """int32 [N, 4]: sample, d, h, w; at multiples of the stride."""
    stride: int | Triple = 1
    """Distance between neighbouring sites; one number where the three axes agree."""
    batch_size: int | None = None
    """Samples in the batch, with or without sites; by default up to the last sample that has
    any."""
    coordinates: Coordinates = field(default=None)  # type: ignore[assignment]
    """The sites with what was looked up from them; made here unless another value on the same sites
    lends its own."""

    def __post_init__(self) -> None:
        if not isinstance(self.features, Tensor):
            raise SitesError(f"features must be a tensor [N, C], got {type(self.features).__name__}")
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
        if not self.features.shape[1]:
            raise ShapeError(f"features need at least one channel, got {tuple(self.features.shape)}")
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
        """Put features on coordinates that were checked before."""
        return cls(features, coordinates.sites, coordinates.stride, coordinates.batch_size, coordinates)

    @classmethod
    def from_dense(cls, dense_BCDHW: Tensor, visible_BDHW: Tensor | None = None) -> Self:
        """Take the visible positions of a dense tensor, in lexicographic order; hidden ones are
        never read.

        Args:
            dense_BCDHW: features of a grid.
            visible_BDHW: bool, True where active; None takes every position.

        Raises:
            ShapeError: if the shapes differ or `visible` is not boolean.
        """
        if not isinstance(dense_BCDHW, Tensor) or dense_BCDHW.ndim != 5:
            got = tuple(dense_BCDHW.shape) if isinstance(dense_BCDHW, Tensor) else type(dense_BCDHW).__name__
            raise ShapeError(f"a dense tensor must be [B, C, D, H, W], got {got}")
        batch, _, *grid = dense_BCDHW.shape
        if visible_BDHW is None:
            visible_BDHW = torch.ones(batch, *grid, dtype=torch.bool, device=dense_BCDHW.device)
        if not isinstance(visible_BDHW, Tensor):
            raise ShapeError(f"`visible` must be a boolean tensor, got {type(visible_BDHW).__name__}")
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
        """Return [B, C, D, H, W]: one position a stride; positions without a site hold `fill`.

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
        if any(s < 1 for s in sizes):
            raise ShapeError(f"the dense shape must be at least 1 along each axis, got {sizes}")
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
        """Return the same sites with other features, [N, C']."""
        return self.on(self.coordinates, features)

    def on_device(self, device: torch.device, non_blocking: bool = False) -> Self:
        """Return the same value on another device."""
        features = self.features.to(device, non_blocking=non_blocking)
        return self.on(self.coordinates.to(features.device), features)

    def zero_outside(self) -> Self:
        """Return the value itself: sparse voxels have no rows beyond a crop (cells may)."""
        return self

    def inside(self) -> Tensor | None:
        """Return None: every row is active (cells may have tokens beyond the crop)."""
        everywhere: Tensor | None = None
        return everywhere

    def of_samples(self, values_BC: Tensor) -> Self:
        """Return the same sites, each with the values of its sample; for example to multiply by a
        gate of each sample.

        Args:
            values_BC: [B, C], one row a sample.

        Raises:
            ShapeError: if there is not one row for each sample.
        """
        check_samples(values_BC, self.coordinates.batch_size)
        return self.with_features(values_BC.index_select(0, self.sites[:, 0].long()))

    def check_same_sites(self, other: Self) -> None:
        """Raise a SitesError unless both have the same sites in the same rows."""
        if not self.coordinates.same_as(other.coordinates):
            raise SitesError(
                f"only values on the same sites can be multiplied or divided, got {self!r} and {other!r}; "
                "x + y and x - y take the union of the sites"
            )

    def prune(self, keep_N: Tensor) -> Self:
        """Return the rows where `keep` is True.

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

    def __add__(self, other: Self | Tensor | Number) -> Self:
        """Return the sum; of sparse voxels the union of the sites, where a site that one of them
        lacks counts as zero.

        Raises:
            ShapeError: if the numbers of channels differ.
            SitesError: if stride or batch size differ.
        """
        return self._union(other) if isinstance(other, SparseVoxels) else self._combine(other, operator.add)

    def __sub__(self, other: Self | Tensor | Number) -> Self:
        return self._union(-other) if isinstance(other, SparseVoxels) else self._combine(other, operator.sub)

    def _union(self, other: Self) -> Self:
        if self.channels != other.channels:
            raise ShapeError(f"cannot add {other.channels} channel(s) to {self.channels}")
        if self.coordinates.same_as(other.coordinates):
            return self.with_features(self.features + other.features)
        both = self.coordinates.union(other.coordinates)
        return self.on(both, features_at(both, self) + features_at(both, other))


def features_at(sites: Coordinates, x: SparseVoxels) -> Tensor:
    """Return [n, C]: the features of x at other sites, zero where x has none."""
    padded = torch.cat((x.features, x.features.new_zeros(1, x.channels)))
    return padded.index_select(0, x.coordinates.find(sites.lattice)[:, 0])


def prune(x: SparseVoxels, keep_N: Tensor) -> SparseVoxels:
    """Return the rows of x where `keep` (bool [N]) is True."""
    return x.prune(keep_N)


def cat_voxels(values: Sequence[SparseVoxels]) -> SparseVoxels:
    """Concatenate the channels of several values on the same sites; rows follow the first.

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
