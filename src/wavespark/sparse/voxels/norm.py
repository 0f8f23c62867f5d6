"""Norms of sparse voxels over their active rows."""

import torch
from torch import Tensor
from torch.nn import functional

from wavespark.errors import ShapeError
from wavespark.sparse.voxels.value import SparseVoxels


def batch_norm(
    x: SparseVoxels,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> SparseVoxels:
    """Return x normalised over its rows; in training the running statistics are updated.

    Raises:
        ShapeError: if there is a single row in training.
    """
    if not len(x):
        # No statistics, and running ones must not learn from nothing. Weight and bias stay in the
        # graph, so that no process has unused ones.
        return x.with_features(_scaled(x.features, weight, bias).to(x.features.dtype))
    if training and len(x) == 1:
        raise ShapeError(
            "batch norm in training needs at least 2 active rows, got 1: its variance is not defined. "
            "Use a larger batch or eval()"
        )
    return x.with_features(functional.batch_norm(x.features, mean, variance, weight, bias, training, momentum, eps))


def instance_norm(x: SparseVoxels, weight: Tensor | None, bias: Tensor | None, eps: float) -> SparseVoxels:
    """Return x with each channel normalised over the rows of each sample."""
    rows, counts = x.coordinates.by_sample
    features = x.features if rows is None else x.features.index_select(0, rows)
    exact = features.to(torch.promote_types(features.dtype, torch.float32))
    normed = torch.cat([_standardised(part, eps) for part in exact.split(counts)])
    normed = _scaled(normed, weight, bias)
    if rows is not None:
        normed = normed.index_select(0, rows.argsort())
    return x.with_features(normed.to(x.features.dtype))


def _standardised(part: Tensor, eps: float) -> Tensor:
    if not len(part):
        return part
    centred = part - part.mean(0)
    return centred * torch.rsqrt(centred.square().mean(0) + eps)


def _scaled(normed: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = normed if weight is None else normed * weight
    return scaled if bias is None else scaled + bias
