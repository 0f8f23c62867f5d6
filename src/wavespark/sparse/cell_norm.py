"""Batch and instance norm of visible cells: over the tokens that hold a voxel of the crop, and no others.

Tokens beyond the crop come out zero. Layer norm and activations act on each token alone and need nothing here.
"""

import torch
from torch import Tensor
from torch.nn import functional

from wavespark.errors import ShapeError
from wavespark.sparse.cells import VisibleCells
from wavespark.sparse.norm import batch_norm, instance_norm


@batch_norm.register
def _(
    x: VisibleCells,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> VisibleCells:
    inside = x.layout.inside(x.block)
    # Every cell holds a voxel of the crop, so only a single cell can be a single token.
    if training and len(x) == 1 and (x.features[..., 0].numel() if inside is None else int(inside.sum())) == 1:
        raise ShapeError(
            "batch norm in training needs at least 2 active tokens, got 1: its variance is not defined. "
            "Use a larger batch or eval()"
        )
    if inside is None or not training:
        flat = x.zero_outside().features.flatten(0, 3)
        out = functional.batch_norm(flat, mean, variance, weight, bias, training, momentum, eps)
        return x.with_features(out.view(x.features.shape)).zero_outside()
    exact = x.features.to(torch.promote_types(x.features.dtype, torch.float32))
    centred, found_mean, found_variance = _moments(exact, inside)
    if mean is not None and variance is not None:
        count = inside.sum()
        with torch.no_grad():
            mean.lerp_(found_mean.to(mean.dtype), momentum)
            variance.lerp_((found_variance * count / (count - 1)).to(variance.dtype), momentum)
    out = _scaled(centred * torch.rsqrt(found_variance + eps), weight, bias)
    return x.with_features(out.to(x.features.dtype)).zero_outside()


@instance_norm.register
def _(x: VisibleCells, weight: Tensor | None, bias: Tensor | None, eps: float) -> VisibleCells:
    inside, counts = x.layout.inside(x.block), x.layout.counts
    masks = [None] * len(counts) if inside is None else inside.split(counts)
    exact = x.features.to(torch.promote_types(x.features.dtype, torch.float32))
    normed = []
    for part, mask in zip(exact.split(counts), masks, strict=True):
        centred, _, variance = _moments(part, mask)
        normed.append(centred * torch.rsqrt(variance + eps))
    return x.with_features(_scaled(torch.cat(normed), weight, bias).to(x.features.dtype)).zero_outside()


def _moments(features: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Features less their mean (zero outside), the mean [C] and the biased variance [C] over tokens inside."""
    axes = (0, 1, 2, 3)
    if inside is None:
        mean = features.mean(axes)
        centred = features - mean
        return centred, mean, centred.square().mean(axes)
    count, shown = inside.sum(), inside[..., None]
    mean = features.where(shown, 0).sum(axes) / count
    centred = (features - mean).where(shown, 0)
    return centred, mean, centred.square().sum(axes) / count


def _scaled(normed: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = normed if weight is None else normed * weight
    return scaled if bias is None else scaled + bias
