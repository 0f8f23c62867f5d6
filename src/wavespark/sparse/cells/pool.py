"""Pooling of visible cells: windows that tile a cell, and whole samples. Tokens without a voxel of the crop are absent."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wavespark.errors import ShapeError
from wavespark.shapes import Triple
from wavespark.sparse.cells.strided import check_windows, windows
from wavespark.sparse.cells.value import VisibleCells
from wavespark.sparse.reduction import Reduction


def pool(x: VisibleCells, reduction: Reduction, kernel_size: Triple, stride: Triple) -> VisibleCells:
    if kernel_size != stride:
        raise ShapeError(
            f"visible cells are pooled in windows that tile them, kernel_size = stride, got {kernel_size} and {stride}. "
            "Sparse voxels, x.to_sparse(), take other kernels"
        )
    check_windows(x, stride)
    inside = x.layout.inside(x.block)
    if reduction == "max":
        features = x.features if inside is None else x.features.where(inside[..., None], -torch.inf)
        best: Tensor = _Max.apply(windows(features, stride).flatten(4, 6))
        return x.with_features(best).zero_outside()
    total = windows(x.zero_outside().features, stride).sum((4, 5, 6))
    if reduction == "avg" and inside is None:
        total = total / (stride[0] * stride[1] * stride[2])
    elif reduction == "avg" and inside is not None:
        total = total / windows(inside[..., None], stride).sum((4, 5, 6)).clamp(min=1).to(total.dtype)
    return x.with_features(total)


def global_pool(x: VisibleCells, reduction: Reduction) -> Tensor:
    inside, counts = x.layout.inside(x.block), x.layout.counts
    if reduction == "max":
        features = x.features if inside is None else x.features.where(inside[..., None], -torch.inf)
        return torch.stack([part.amax((0, 1, 2, 3)) for part in features.split(counts)])
    totals = torch.stack([part.sum((0, 1, 2, 3)) for part in x.zero_outside().features.split(counts)])
    if reduction == "sum":
        return totals
    if inside is None:
        tokens = torch.tensor(counts).to(totals.device, non_blocking=True) * (x.block[0] * x.block[1] * x.block[2])
    else:
        tokens = torch.stack([part.sum() for part in inside.split(counts)])
    return totals / tokens.to(totals.dtype)[:, None]


class _Max(torch.autograd.Function):
    """[..., K, C] -> [..., C]. Of equal values the first wins and has the whole gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        best, winner = values.max(-2)
        ctx.save_for_backward(winner.to(torch.uint8 if values.shape[-2] < 256 else torch.int32))
        ctx.offsets = values.shape[-2]
        return best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (winner,) = ctx.saved_tensors
        offsets = torch.arange(ctx.offsets, device=grad.device, dtype=winner.dtype)[:, None]
        return grad.unsqueeze(-2).where(winner.unsqueeze(-2) == offsets, 0)
