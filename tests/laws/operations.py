"""Every public operation of `wavespark.sparse` for C channels, by its name."""

import torch

from wavespark.sparse import (
    AvgPool3d,
    GlobalAvgPool,
    GlobalMaxPool,
    MaxPool3d,
    SparseBatchNorm,
    SparseGELU,
    SparseInstanceNorm,
    SparseLayerNorm,
    SparseReLU,
    StridedConv3d,
    SubmanifoldConv3d,
    SumPool3d,
    TransposedConv3d,
    cat,
)

C = 6
CONVOLUTIONS = {
    "submanifold": lambda: SubmanifoldConv3d(C, C),
    "pointwise": lambda: SubmanifoldConv3d(C, C, 1),
    "depthwise": lambda: SubmanifoldConv3d(C, C, groups=C),
    "kernel 2 stride 2": lambda: StridedConv3d(C, C),
    "kernel 3 stride 2": lambda: StridedConv3d(C, C, 3),
    "children": lambda: torch.nn.Sequential(StridedConv3d(C, C), TransposedConv3d(C, C, generative=True)),
}
OTHERS = {
    "batch norm": lambda: SparseBatchNorm(C),
    "instance norm": lambda: SparseInstanceNorm(C),
    "layer norm": lambda: SparseLayerNorm(C),
    "relu": SparseReLU,
    "gelu": SparseGELU,
    "max": MaxPool3d,
    "average": AvgPool3d,
    "sum": SumPool3d,
    "global max": GlobalMaxPool,
    "global average": GlobalAvgPool,
    "add": lambda: lambda x: x + x,
    "cat": lambda: lambda x: cat([x, x]),
}


def features(y):
    """Of a value; what a global pooling gives has none and is it."""
    return getattr(y, "features", y)
