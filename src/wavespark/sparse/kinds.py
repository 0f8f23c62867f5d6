"""The two kinds of sparse value that every layer takes, and returns as it got them."""

from typing import TYPE_CHECKING, TypeVar

from torch import nn

from wavespark.errors import ShapeError
from wavespark.shapes import Triple
from wavespark.sparse.cells.value import VisibleCells
from wavespark.sparse.voxels.value import SparseVoxels

T = TypeVar("T", VisibleCells, SparseVoxels)
"""`VisibleCells` or `SparseVoxels`: a layer returns the kind that it is given."""

SparseValue = VisibleCells | SparseVoxels


def unknown(x: object) -> ShapeError:
    """The refusal of anything that is not a sparse value."""
    return ShapeError(f"sparse operations take VisibleCells or SparseVoxels, got {type(x).__name__}")


def at_least_one(size: Triple, name: str) -> Triple:
    """Return a size along three axes.

    Raises:
        ShapeError: if it is below 1 along any of them.
    """
    if min(size) < 1:
        raise ShapeError(f"{name} must be at least 1 along each axis, got {size}")
    return size


class Layer(nn.Module):
    """A module that maps `VisibleCells` to `VisibleCells` and `SparseVoxels` to `SparseVoxels`."""

    if TYPE_CHECKING:

        def __call__(self, x: T) -> T: ...
