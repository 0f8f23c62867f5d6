"""Norms of sparse values: modules, and the functions behind them.

Batch and instance statistics are taken over active rows only, so hidden positions neither count as
zeros nor shift the mean. Layer norm acts on each row alone.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from wavespark.errors import ShapeError
from wavespark.sparse.cells import norm as cells
from wavespark.sparse.cells.value import VisibleCells
from wavespark.sparse.kinds import Layer, SparseValue, T, unknown
from wavespark.sparse.layers.pool import global_pool
from wavespark.sparse.precision import accumulator
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
    """Return x normalised over all active rows; `mean` and `variance` are the running statistics,
    updated in training."""
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


def check_channels(module: nn.Module, x: SparseValue, channels: int) -> None:
    """Raise a ShapeError unless x is a sparse value with that number of channels."""
    if not isinstance(x, VisibleCells | SparseVoxels):
        raise unknown(x)
    if x.features.shape[-1] != channels:
        raise ShapeError(f"{type(module).__name__}({channels}) got {x!r}")


def count_batch(batches: Tensor | None, momentum: float | None) -> float:
    """Count a batch of training, in place; return its weight in the running statistics.

    Args:
        batches: number of batches before; None without running statistics.
        momentum: that weight; None takes the plain average over all batches.
    """
    if batches is None:
        return 0.0
    batches.add_(1)
    return 1 / float(batches) if momentum is None else momentum


class _Affine(Layer):
    def __init__(
        self, num_features: int, eps: float, affine: bool, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        super().__init__()
        if num_features < 1:
            raise ShapeError(f"{type(self).__name__} needs at least 1 channel, got {num_features}")
        self.num_features, self.eps = num_features, eps
        self.weight = nn.Parameter(torch.ones(num_features, device=device, dtype=dtype)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype)) if affine else None

    def _check(self, x: SparseValue) -> None:
        check_channels(self, x, self.num_features)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, affine={self.weight is not None}"


class SparseBatchNorm(Layer, _BatchNorm):
    """`nn.BatchNorm1d` over the active rows, with the same arguments, parameters and running
    statistics.

    A batch without any row passes through, and its parameters stay in the graph.
    `torch.nn.SyncBatchNorm.convert_sync_batchnorm` cannot replace it by a module that takes sparse
    values (the first call then says so); `wavespark.engine.machine.synced_norm.sync_batch_norm`
    does.

    Args:
        num_features: channels.
        eps: added to the variance.
        momentum: weight of a batch in the running statistics; None takes their plain average over
            all batches.
        affine: learn a weight and a bias for each channel.
        track_running_stats: keep running statistics for eval(); without them every batch is
            normalised by its own.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        track_running_stats: bool = True,
    ) -> None:
        if num_features < 1:
            raise ShapeError(f"SparseBatchNorm needs at least 1 channel, got {num_features}")
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)

    def forward(self, x: T) -> T:  # type: ignore[override]
        """Return the same sites, normalised by the batch (training) or the running statistics
        (eval).

        Raises:
            ShapeError: if the channels differ, or a single row is active in training.
        """
        self._check(x)
        by_batch = self.training or self.running_mean is None
        factor = count_batch(self.num_batches_tracked, self.momentum) if self.training else 0.0
        return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, by_batch, factor, self.eps)

    def _check(self, x: SparseValue) -> None:
        check_channels(self, x, self.num_features)


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
        """Return the same sites, normalised."""
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
        """Return the same sites, normalised."""
        self._check(x)
        features = functional.layer_norm(x.features, (self.num_features,), self.weight, self.bias, self.eps)
        return x.with_features(features)


class SparseGroupNorm(_Affine):
    """`nn.GroupNorm` over the active rows of each sample: statistics of each group of channels,
    weight and bias of each channel.

    Args:
        num_groups: groups of channels; must divide `num_channels`.
        num_channels: channels.
        eps: added to the variance.
        affine: learn a weight and a bias for each channel.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_channels, eps, affine, device, dtype)
        if num_groups < 1 or num_channels % num_groups:
            raise ShapeError(f"{num_channels} channel(s) do not divide into {num_groups} group(s)")
        self.num_groups = num_groups

    def forward(self, x: T) -> T:
        """Return the same sites, normalised."""
        self._check(x)
        exact = x.with_features(x.features.to(accumulator(x.features.dtype))).zero_outside()
        count = _counts(exact)
        mean = exact.of_samples(self._of_groups(_sums(exact) / count))
        centred = exact.with_features(exact.features - mean.features).zero_outside()
        squares = _sums(centred.with_features(centred.features.square()))
        variance = exact.of_samples(self._of_groups(squares / count))
        normed = centred.features * torch.rsqrt(variance.features + self.eps)
        normed = normed if self.weight is None else normed * self.weight
        normed = normed if self.bias is None else normed + self.bias
        return x.with_features(normed.to(x.features.dtype)).zero_outside()

    def _of_groups(self, values_BC: Tensor) -> Tensor:
        """Return [B, C]: the mean over the channels of each group."""
        groups = values_BC.unflatten(1, (self.num_groups, -1))
        return groups.mean(2, keepdim=True).expand_as(groups).flatten(1)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {super().extra_repr()}"


class SparseGRN(Layer):
    """Global response normalisation over the active rows of each sample (Woo et al., "ConvNeXt V2",
    CVPR 2023).

    Args:
        num_features: channels.
        eps: added to the mean response.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-6,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if num_features < 1:
            raise ShapeError(f"SparseGRN needs at least 1 channel, got {num_features}")
        self.num_features, self.eps = num_features, eps
        self.weight = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype))

    def forward(self, x: T) -> T:
        """Return x + weight * x * (response / mean response) + bias; a channel's response is its L2
        norm over the sample."""
        check_channels(self, x, self.num_features)
        exact = x.with_features(x.features.to(accumulator(x.features.dtype))).zero_outside()
        squares = _sums(exact.with_features(exact.features.square()))
        # The square root of zero has no derivative: a sample or channel of zeros has a response of
        # zero, and no gradient from it.
        response = torch.where(squares > 0, squares, 1).sqrt().where(squares > 0, 0)
        ratio = exact.of_samples(response / (response.mean(1, keepdim=True) + self.eps))
        out = exact.features + self.weight * (exact.features * ratio.features) + self.bias
        return x.with_features(out.to(x.features.dtype)).zero_outside()

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}"


def _sums(x: SparseValue) -> Tensor:
    """Return [B, C]: the sum over the active rows of each sample."""
    return global_pool(x, "sum")


def _counts(x: SparseValue) -> Tensor:
    """Return [B, 1]: the number of active rows of each sample, at least 1."""
    inside = x.inside()
    ones = torch.ones_like(x.features[..., :1]) if inside is None else inside[..., None].to(x.features.dtype)
    return _sums(x.with_features(ones)).clamp(min=1)
