"""Operations on visible cells and sparse voxels."""

from wavespark.sparse.cell_conv import submanifold_conv
from wavespark.sparse.cells import CellLayout, VisibleCells, gather_cells
from wavespark.sparse.wavelets import haar_dwt, haar_idwt, join_blocks, split_blocks

__all__ = ["CellLayout", "VisibleCells", "gather_cells", "haar_dwt", "haar_idwt", "join_blocks", "split_blocks", "submanifold_conv"]
