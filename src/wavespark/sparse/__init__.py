"""Operations on visible cells and sparse voxels."""

from wavespark.sparse import (  # noqa: F401  (they register what visible cells and sparse voxels can do)
    cell_norm,
    cell_pool,
    cell_strided,
    voxel_conv,
    voxel_norm,
    voxel_pool,
)
from wavespark.sparse.cell_conv import ConvolutionPlan, convolution_plan, submanifold_conv
from wavespark.sparse.cell_layout import CellLayout
from wavespark.sparse.cells import VisibleCells, cut_cells, gather_cells
from wavespark.sparse.conv import StridedConv3d, SubmanifoldConv3d, TransposedConv3d
from wavespark.sparse.engines import current_engine, engines, set_engine
from wavespark.sparse.norm import SparseBatchNorm, SparseGELU, SparseInstanceNorm, SparseLayerNorm, SparseReLU
from wavespark.sparse.pool import AvgPool3d, GlobalAvgPool, GlobalMaxPool, MaxPool3d, SumPool3d
from wavespark.sparse.values import cat
from wavespark.sparse.voxels import SparseVoxels, prune
from wavespark.sparse.wavelets import haar_dwt, haar_idwt, join_blocks, split_blocks

__all__ = [
    "AvgPool3d",
    "CellLayout",
    "ConvolutionPlan",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "MaxPool3d",
    "SparseBatchNorm",
    "SparseGELU",
    "SparseInstanceNorm",
    "SparseLayerNorm",
    "SparseReLU",
    "SparseVoxels",
    "StridedConv3d",
    "SubmanifoldConv3d",
    "SumPool3d",
    "TransposedConv3d",
    "VisibleCells",
    "cat",
    "convolution_plan",
    "current_engine",
    "cut_cells",
    "engines",
    "gather_cells",
    "haar_dwt",
    "haar_idwt",
    "join_blocks",
    "prune",
    "set_engine",
    "split_blocks",
    "submanifold_conv",
]
