"""Norms and elementwise activations of sparse values: modules, and the functions behind them.

Batch and instance statistics are taken over active rows only, so hidden positions neither count as zeros nor shift the
mean. The functions dispatch on the kind of value; layer norm and activations act on each row alone and need no more
than `with_features`.
"""

from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wavespark.errors import ShapeError


@singledispatch
def batch_norm(
    x: Any,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Any:
    """Batch norm over all active rows; `mean` and `variance` are the running statistics, updated in training."""
    raise ShapeError(f"batch norm takes SparseVoxels or VisibleCells, got {type(x).__name__}")


@singledispatch
def instance_norm(x: Any, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
    """Normalisation of each channel over the active rows of each sample alone."""
    raise ShapeError(f"instance norm takes SparseVoxels or VisibleCells, got {type(x).__name__}")


class _Affine(nn.Module):
    def __init__(
        self, num_features: int, eps: float, affine: bool, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        super().__init__()
        self.num_features, self.eps = num_features, eps
        self.weight = nn.Parameter(torch.ones(num_features, device=device, dtype=dtype)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype)) if affine else None

    def _check(self, x: Any) -> None:
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

    def forward(self, x: Any) -> Any:
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

    def forward(self, x: Any) -> Any:
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

    def forward(self, x: Any) -> Any:
        """The same sites."""
        self._check(x)
        features = functional.layer_norm(x.features, (self.num_features,), self.weight, self.bias, self.eps)
        return x.with_features(features)


class SparseReLU(nn.Module):
    """max(0, x) at the active sites."""

    def forward(self, x: Any) -> Any:
        """The same sites."""
        return x.with_features(functional.relu(x.features))


class SparseGELU(nn.Module):
    """x * Phi(x) at the active sites."""

    def forward(self, x: Any) -> Any:
        """The same sites."""
        return x.with_features(functional.gelu(x.features))
