"""Norms and elementwise activations of sparse values: modules, and the functions behind them.

Batch and instance statistics are taken over active rows only, so hidden positions neither count as zeros nor shift the mean. Layer norm and
activations act on each row alone.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from wavespark.errors import ShapeError
from wavespark.sparse.cells import norm as cells
from wavespark.sparse.cells.value import VisibleCells
from wavespark.sparse.kinds import Layer, SparseValue, T, unknown
from wavespark.sparse.voxels import norm as voxels
from wavespark.sparse.voxels.value import SparseVoxels


def batch_norm(
    x: T,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> T:
    """Return x normalised over all active rows; `mean` and `variance` are the running statistics, updated in training."""
    if isinstance(x, VisibleCells):
        return cells.batch_norm(x, mean, variance, weight, bias, training, momentum, eps)
    if isinstance(x, SparseVoxels):
        return voxels.batch_norm(x, mean, variance, weight, bias, training, momentum, eps)
    raise unknown(x)


def instance_norm(x: T, weight: Tensor | None, bias: Tensor | None, eps: float) -> T:
    """Return x with each channel normalised over the active rows of each sample alone."""
    if isinstance(x, VisibleCells):
        return cells.instance_norm(x, weight, bias, eps)
    if isinstance(x, SparseVoxels):
        return voxels.instance_norm(x, weight, bias, eps)
    raise unknown(x)


class _Affine(Layer):
    def __init__(
        self, num_features: int, eps: float, affine: bool, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        super().__init__()
        self.num_features, self.eps = num_features, eps
        self.weight = nn.Parameter(torch.ones(num_features, device=device, dtype=dtype)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype)) if affine else None

    def _check(self, x: SparseValue) -> None:
        if x.features.shape[-1] != self.num_features:
            raise ShapeError(f"{type(self).__name__}({self.num_features}) got {x!r}")

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, affine={self.weight is not None}"


class SparseBatchNorm(_Affine):
    """`nn.BatchNorm1d` over the active rows, with the same parameters and running statistics."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features, eps, affine, device, dtype)
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(num_features, device=device, dtype=dtype))
        self.register_buffer("running_var", torch.ones(num_features, device=device, dtype=dtype))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long, device=device))

    def forward(self, x: T) -> T:
        """The same sites, normalised by the batch (training) or the running statistics (eval)."""
        self._check(x)
        if self.training:
            self.num_batches_tracked.add_(1)
        return batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )


class SparseInstanceNorm(_Affine):
    """Each channel normalised over the active rows of its own sample; no running statistics."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features, eps, affine, device, dtype)

    def forward(self, x: T) -> T:
        """The same sites."""
        self._check(x)
        return instance_norm(x, self.weight, self.bias, self.eps)


class SparseLayerNorm(_Affine):
    """`nn.LayerNorm` over the channels of each active row."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features, eps, affine, device, dtype)

    def forward(self, x: T) -> T:
        """The same sites."""
        self._check(x)
        features = functional.layer_norm(x.features, (self.num_features,), self.weight, self.bias, self.eps)
        return x.with_features(features)


class SparseReLU(Layer):
    """max(0, x) at the active sites."""

    def forward(self, x: T) -> T:
        """The same sites."""
        return x.with_features(functional.relu(x.features))


class SparseGELU(Layer):
    """x * Phi(x) at the active sites."""

    def forward(self, x: T) -> T:
        """The same sites."""
        return x.with_features(functional.gelu(x.features))
