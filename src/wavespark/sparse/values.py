"""What takes either kind of value and only joins it."""

from collections.abc import Sequence
from typing import Any, overload

from wavespark.errors import ShapeError
from wavespark.sparse.cells import VisibleCells, cat_cells
from wavespark.sparse.voxels import SparseVoxels, cat_voxels


@overload
def cat(values: Sequence[SparseVoxels]) -> SparseVoxels: ...
@overload
def cat(values: Sequence[VisibleCells]) -> VisibleCells: ...
def cat(values: Sequence[Any]) -> Any:
    """The channels of several values on the same sites or tokens, one after the other; rows follow the first.

    Raises:
        SitesError: if sparse voxels do not have the same sites.
        ShapeError: if visible cells do not have the same tokens, or there is no value, or some are of another kind.
    """
    if not values:
        raise ShapeError("cat needs at least one value")
    for kind, join in ((VisibleCells, cat_cells), (SparseVoxels, cat_voxels)):
        if all(isinstance(x, kind) for x in values):
            return join(values)
    names = ", ".join(type(x).__name__ for x in values)
    raise ShapeError(f"cat takes SparseVoxels or VisibleCells, all of one kind, got {names}")
