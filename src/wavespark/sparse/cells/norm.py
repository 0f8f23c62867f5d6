"""Batch and instance norm of visible cells: over the tokens that hold a voxel of the crop, and no
others.

Tokens beyond the crop come out zero. Layer norm and activations act on each token alone and need
nothing here. Instance norm of whole cells goes over pieces of the size of a processor's cache,
because written with tensors of the whole level it costs as much as the convolution before it; an
accelerator, which waits for launches and not for memory, takes torch's own fused norm sample by
sample.
Axes: N visible cells, b tokens along an edge of a cell, C channels, M tokens of a sample.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from wavespark.errors import ShapeError
from wavespark.sparse.cells.forms import tuning
from wavespark.sparse.cells.value import VisibleCells
from wavespark.sparse.derivatives import Context, builds_graph, gradients


def batch_norm(
    x: VisibleCells,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> VisibleCells:
    """Return x normalised over its active tokens; in training the running statistics are updated.

    Raises:
        ShapeError: if there is a single active token in training.
    """
    if not len(x):  # no statistics; weight and bias stay in the graph, so that no process has unused ones
        return x.with_features(_scaled(x.features, weight, bias).to(x.features.dtype))
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


def instance_norm(x: VisibleCells, weight: Tensor | None, bias: Tensor | None, eps: float) -> VisibleCells:
    """Return x with each channel normalised over the active tokens of each sample."""
    if not len(x):
        return x.with_features(_scaled(x.features, weight, bias).to(x.features.dtype))
    inside, counts = x.layout.inside(x.block), x.layout.counts
    if inside is None and x.features.device.type not in tuning.TUNING.norm_in_pieces:
        return x.with_features(_fused(x.features, weight, bias, counts, eps))
    exact = x.features.to(torch.promote_types(x.features.dtype, torch.float32))
    if inside is None:
        out: Tensor = _InstanceNorm.apply(exact, weight, bias, counts, eps)
        return x.with_features(out.to(x.features.dtype))
    normed = []
    for part, mask in zip(exact.split(counts), inside.split(counts), strict=True):
        centred, _, variance = _moments(part, mask)
        normed.append(centred * torch.rsqrt(variance + eps))
    return x.with_features(_scaled(torch.cat(normed), weight, bias).to(x.features.dtype)).zero_outside()


def _fused(features: Tensor, weight: Tensor | None, bias: Tensor | None, counts: tuple[int, ...], eps: float) -> Tensor:
    """The instance norm of a sample is the batch norm of its tokens; torch's kernels sum in fp32 at
    least."""
    parts = (part for part in _samples(features, counts) if len(part))
    normed = [torch.batch_norm(part, weight, bias, None, None, True, 0.0, eps, False) for part in parts]
    return (normed[0] if len(normed) == 1 else torch.cat(normed)).view(features.shape)


class _InstanceNorm(torch.autograd.Function):
    """[N, b, b, b, C] -> the same, normed over the tokens of each sample."""

    @staticmethod
    def forward(
        ctx: Context, features: Tensor, weight: Tensor | None, bias: Tensor | None, counts: tuple[int, ...], eps: float
    ) -> Tensor:
        features = features.contiguous()
        out, kept = torch.empty_like(features), []
        for x_MC, out_MC in zip(_samples(features, counts), _samples(out, counts), strict=True):
            if not len(x_MC):
                kept.append(features.new_zeros(2, features.shape[-1]))
                continue
            mean = x_MC.mean(0)
            squares = [(x - mean).square_().sum(0) for (x,) in _pieces(x_MC)]
            deviation = torch.rsqrt(torch.stack(squares).sum(0) / len(x_MC) + eps)
            scale = deviation if weight is None else deviation * weight
            shift = -mean * scale if bias is None else bias - mean * scale
            torch.addcmul(shift, x_MC, scale, out=out_MC)
            kept.append(torch.stack((mean, deviation)))
        ctx.save_for_backward(features, weight, bias, torch.stack(kept))
        ctx.counts, ctx.eps = counts, eps
        return out

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias, kept = ctx.saved_tensors
        if builds_graph():
            counts, eps = ctx.counts, ctx.eps

            def plain(features: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
                centred = [part - part.mean(0) for part in _samples(features, counts) if len(part)]
                normed = torch.cat([c * torch.rsqrt(c.square().mean(0) + eps) for c in centred])
                return _scaled(normed.view(features.shape), weight, bias)

            return *gradients(plain, (features, weight, bias), grad, ctx.needs_input_grad[:3]), None, None
        grad = grad.contiguous()
        found, to_weight, to_bias = torch.empty_like(features), [], []
        parts = zip(*(_samples(t, ctx.counts) for t in (features, grad, found)), kept, strict=True)
        for x_MC, grad_MC, found_MC, (mean, deviation) in parts:
            if not len(x_MC):
                continue
            total = grad_MC.sum(0)
            slope = torch.stack([(x - mean).mul_(g).sum(0) for x, g in _pieces(x_MC, grad_MC)]).sum(0) * deviation
            scale = deviation if weight is None else deviation * weight
            # scale * (grad - total / M - normed * slope / M), as factors of x and grad and a
            # constant
            of_x = -scale * deviation * slope / len(x_MC)
            constant = -scale * total / len(x_MC) - mean * of_x
            for x, g, out in _pieces(x_MC, grad_MC, found_MC):
                torch.addcmul(constant, x, of_x, out=out).addcmul_(g, scale)
            to_weight.append(slope)
            to_bias.append(total)
        needs = ctx.needs_input_grad
        return (
            found if needs[0] else None,
            torch.stack(to_weight).sum(0) if needs[1] else None,
            torch.stack(to_bias).sum(0) if needs[2] else None,
            None,
            None,
        )


def _samples(features: Tensor, counts: tuple[int, ...]) -> tuple[Tensor, ...]:
    """[M, C] of each sample, views."""
    return tuple(part.reshape(-1, features.shape[-1]) for part in features.split(counts))


def _pieces(*tensors_MC: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of each tensor, as many at a time as a processor's cache holds; all of them on
    an accelerator."""
    first = tensors_MC[0]
    rows, channels = first.shape
    step = max(1, tuning.TUNING.norm_bytes // (channels * first.element_size())) if first.device.type == "cpu" else rows
    return zip(*(t.split(step) for t in tensors_MC), strict=True)


def _moments(features: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features less their mean (zero outside), the mean [C] and the biased variance [C] over tokens
    inside."""
    axes = (0, 1, 2, 3)
    count, shown = inside.sum(), inside[..., None]
    mean = features.where(shown, 0).sum(axes) / count
    centred = (features - mean).where(shown, 0)
    return centred, mean, centred.square().sum(axes) / count


def _scaled(normed: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = normed if weight is None else normed * weight
    return scaled if bias is None else scaled + bias
