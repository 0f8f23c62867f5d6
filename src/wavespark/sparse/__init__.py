"""Operations on visible cells and sparse voxels.

`cells` is the product: features of visible cells, and nothing else. `voxels` is the general
coordinate form, the oracle of `cells` and the form that talks to other libraries. `layers` are
modules that take either kind.
"""

from wavespark.sparse.cells.conv import ConvolutionPlan, convolution_plan
from wavespark.sparse.cells.layout import CellLayout
from wavespark.sparse.cells.value import VisibleCells, cut_cells, gather_cells
from wavespark.sparse.cells.wavelets import haar_dwt, haar_idwt, join_blocks, split_blocks
from wavespark.sparse.convert import cat
from wavespark.sparse.layers.conv import StridedConv3d, SubmanifoldConv3d, TransposedConv3d, submanifold_conv
from wavespark.sparse.layers.norm import (
    SparseBatchNorm,
    SparseGRN,
    SparseGroupNorm,
    SparseInstanceNorm,
    SparseLayerNorm,
)
from wavespark.sparse.layers.pointwise import (
    SparseDropout,
    SparseGELU,
    SparseLeakyReLU,
    SparseLinear,
    SparseReLU,
    SparseSiLU,
)
from wavespark.sparse.layers.pool import AvgPool3d, GlobalAvgPool, GlobalMaxPool, GlobalSumPool, MaxPool3d, SumPool3d
from wavespark.sparse.trees import register as register_pytrees
from wavespark.sparse.voxels.engines.choice import current_engine, engines, set_engine
from wavespark.sparse.voxels.value import SparseVoxels, prune

__all__ = [
    "AvgPool3d",
    "CellLayout",
    "ConvolutionPlan",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GlobalSumPool",
    "MaxPool3d",
    "SparseBatchNorm",
    "SparseDropout",
    "SparseGELU",
    "SparseGRN",
    "SparseGroupNorm",
    "SparseInstanceNorm",
    "SparseLayerNorm",
    "SparseLeakyReLU",
    "SparseLinear",
    "SparseReLU",
    "SparseSiLU",
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

register_pytrees()  # torch keeps its own table of node types; there is no other way to tell it
