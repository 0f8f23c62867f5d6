"""Pooling of sparse values: modules, and the functions behind them.

A window pools the active sites inside it and nothing else: an average divides by how many there
are, as in MinkowskiEngine. Output sites follow the rule of strided convolutions: active where any
site of the stride's cell is.
"""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from wavespark.shapes import Triple, as_triple
from wavespark.sparse.cells import pool as cells
from wavespark.sparse.cells.value import VisibleCells
from wavespark.sparse.kinds import Layer, SparseValue, T, at_least_one, unknown
from wavespark.sparse.precision import Reduction
from wavespark.sparse.voxels import pool as voxels
from wavespark.sparse.voxels.value import SparseVoxels


def pool(x: T, reduction: Reduction, kernel_size: Triple, stride: Triple) -> T:
    """Return the windows of x, reduced to one row each."""
    if isinstance(x, VisibleCells):
        return cells.pool(x, reduction, kernel_size, stride)
    if isinstance(x, SparseVoxels):
        return voxels.pool(x, reduction, kernel_size, stride)
    raise unknown(x)


def global_pool(x: SparseValue, reduction: Reduction) -> Tensor:
    """Return [B, C]: the active rows of each sample reduced to one; zero for a sample without
    any."""
    if isinstance(x, VisibleCells):
        return cells.global_pool(x, reduction)
    if isinstance(x, SparseVoxels):
        return voxels.global_pool(x, reduction)
    raise unknown(x)


class _Pool(Layer):
    reduction: Reduction

    def __init__(self, kernel_size: int | Triple = 2, stride: int | Triple | None = None) -> None:
        super().__init__()
        self.kernel_size = at_least_one(as_triple(kernel_size, "kernel_size"), "kernel_size")
        self.stride = self.kernel_size if stride is None else at_least_one(as_triple(stride, "stride"), "stride")

    def forward(self, x: T) -> T:
        """Return sites at multiples of `stride` times the stride of x."""
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


class _GlobalPool(nn.Module):
    reduction: Reduction

    if TYPE_CHECKING:

        def __call__(self, x: SparseValue) -> Tensor: ...

    def forward(self, x: SparseValue) -> Tensor:
        """Return [B, C]."""
        return global_pool(x, self.reduction)


class GlobalMaxPool(_GlobalPool):
    """[B, C]: the largest value of each sample's active sites; zero for a sample without any."""

    reduction = "max"


class GlobalAvgPool(_GlobalPool):
    """[B, C]: the mean of each sample's active sites; zero for a sample without any."""

    reduction = "avg"


class GlobalSumPool(_GlobalPool):
    """[B, C]: the sum of each sample's active sites; zero for a sample without any."""

    reduction = "sum"
