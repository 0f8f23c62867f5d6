"""Pooling of sparse values: modules, and the functions behind them.

A window pools the active sites inside it and nothing else: an average divides by how many there are, as in
MinkowskiEngine. Output sites follow the rule of strided convolutions: active where any site of the stride's cell is.
"""

from functools import singledispatch
from typing import Any, Literal

from torch import Tensor, nn

from wavespark.errors import ShapeError
from wavespark.shapes import Triple, as_triple

Reduction = Literal["max", "avg", "sum"]


@singledispatch
def pool(x: Any, reduction: Reduction, kernel_size: Triple, stride: Triple) -> Any:
    """Windows of x reduced to one row each."""
    raise ShapeError(f"pooling takes SparseVoxels or VisibleCells, got {type(x).__name__}")


@singledispatch
def global_pool(x: Any, reduction: Reduction) -> Any:
    """[B, C]: each sample's active rows reduced to one; zero for a sample without any."""
    raise ShapeError(f"pooling takes SparseVoxels or VisibleCells, got {type(x).__name__}")


class _Pool(nn.Module):
    reduction: Reduction

    def __init__(self, kernel_size: int | Triple = 2, stride: int | Triple | None = None) -> None:
        super().__init__()
        self.kernel_size = as_triple(kernel_size, "kernel_size")
        self.stride = self.kernel_size if stride is None else as_triple(stride, "stride")

    def forward(self, x: Any) -> Any:
        """Sites at multiples of `stride` times the stride of x."""
        return pool(x, self.reduction, self.kernel_size, self.stride)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}"


class MaxPool3d(_Pool):
    """The largest value of the active sites in each window, channel by channel."""

    reduction = "max"


class AvgPool3d(_Pool):
    """The mean of the active sites in each window."""

    reduction = "avg"


class SumPool3d(_Pool):
    """The sum of the active sites in each window."""

    reduction = "sum"


class GlobalMaxPool(nn.Module):
    """[B, C]: the largest value of each sample's active sites; zero for a sample without any."""

    def forward(self, x: Any) -> Tensor:
        """[B, C]."""
        result: Tensor = global_pool(x, "max")
        return result


class GlobalAvgPool(nn.Module):
    """[B, C]: the mean of each sample's active sites; zero for a sample without any."""

    def forward(self, x: Any) -> Tensor:
        """[B, C]."""
        result: Tensor = global_pool(x, "avg")
        return result
