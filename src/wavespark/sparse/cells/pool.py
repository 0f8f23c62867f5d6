"""Pooling of visible cells: windows, and whole samples.

Hidden tokens, and tokens without a voxel of the crop, are absent.

Windows that tile a cell are a change of axes. Others (an odd kernel is centred) reach into the
neighbour cells and are gathered with a halo. Sums are accumulated in fp32 at least. Axes: N cells,
b tokens along an edge, C channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from wavespark.shapes import Triple
from wavespark.sparse.cells.forms.halo import gathered, halo_index
from wavespark.sparse.cells.strided import Window, check_windows, windows
from wavespark.sparse.cells.value import VisibleCells
from wavespark.sparse.derivatives import Context
from wavespark.sparse.precision import Reduction, accumulator


def pool(x: VisibleCells, reduction: Reduction, kernel_size: Triple, stride: Triple) -> VisibleCells:
    """Return the windows of x reduced to one token each.

    Args:
        x: features [N, b, b, b, C].
        reduction: an average divides by the number of active tokens in the window.
        kernel_size: along each axis odd (centred) or equal to the stride (tiles).
        stride: must divide b.

    Raises:
        ShapeError: if kernel or stride do not fit.
    """
    window = Window(kernel_size, stride)
    window.check(x)
    check_windows(x, stride)
    if not window.tiles and len(x):
        return _overlapping(x, reduction, window)
    inside, dtype = x.layout.inside(x.block), x.features.dtype
    if reduction == "max":
        features = x.features if inside is None else x.features.where(inside[..., None], -torch.inf)
        best: Tensor = _Max.apply(windows(features, stride).flatten(4, 6))
        return x.with_features(best).zero_outside()
    total = windows(x.zero_outside().features, stride).sum((4, 5, 6), dtype=accumulator(dtype))
    if reduction == "avg" and inside is None:
        total = total / (stride[0] * stride[1] * stride[2])
    elif reduction == "avg" and inside is not None:
        total = total / windows(inside[..., None], stride).sum((4, 5, 6)).clamp(min=1).to(total.dtype)
    return x.with_features(total.to(dtype))


def _overlapping(x: VisibleCells, reduction: Reduction, window: Window) -> VisibleCells:
    """Pool windows that reach beyond their cell: what is hidden or outside the crop is absent,
    neither zero nor counted."""
    index, inside = halo_index(x.layout, x.block, *window.fine_reach), x.layout.inside(x.block)
    x = x.zero_outside()
    exact = x.features.to(accumulator(x.features.dtype))
    shown = exact.new_ones(*exact.shape[:4], 1) if inside is None else inside[..., None].to(exact.dtype)
    present = gathered(shown, index).permute(0, 4, 1, 2, 3)
    halo = gathered(exact, index).permute(0, 4, 1, 2, 3)
    if reduction == "max":
        pooled = F.max_pool3d(halo.where(present > 0, -torch.inf), window.kernel, window.stride)
    else:
        pooled = F.avg_pool3d(halo, window.kernel, window.stride, divisor_override=1)
    if reduction == "avg":
        count = F.avg_pool3d(present, window.kernel, window.stride, divisor_override=1)
        pooled = pooled / count.clamp(min=1)
    return x.with_features(pooled.permute(0, 2, 3, 4, 1).to(x.features.dtype)).zero_outside()


def global_pool(x: VisibleCells, reduction: Reduction) -> Tensor:
    """Return [B, C]: the active tokens of each sample reduced to one; zero for a sample without
    any."""
    inside, counts, dtype = x.layout.inside(x.block), x.layout.counts, x.features.dtype
    if reduction == "max":
        features = x.features if inside is None else x.features.where(inside[..., None], -torch.inf)
        # The sum of no tokens is a zero that stays in the graph.
        parts = features.split(counts)
        return torch.stack([part.amax((0, 1, 2, 3)) if len(part) else part.sum((0, 1, 2, 3)) for part in parts])
    exact = accumulator(dtype)
    totals = torch.stack([part.sum((0, 1, 2, 3), dtype=exact) for part in x.zero_outside().features.split(counts)])
    if reduction == "sum":
        return totals.to(dtype)
    if inside is None:
        tokens = torch.tensor(counts).to(totals.device, non_blocking=True) * (x.block[0] * x.block[1] * x.block[2])
    else:
        tokens = torch.stack([part.sum() for part in inside.split(counts)])
    return (totals / tokens.clamp(min=1).to(totals.dtype)[:, None]).to(dtype)


class _Max(torch.autograd.Function):
    """[..., K, C] -> [..., C]. Of equal values the first wins and has the whole gradient."""

    @staticmethod
    def forward(ctx: Context, values: Tensor) -> Tensor:
        best, winner = values.max(-2)
        ctx.save_for_backward(winner.to(torch.uint8 if values.shape[-2] < 256 else torch.int32))
        ctx.offsets = values.shape[-2]
        return best

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        (winner,) = ctx.saved_tensors
        offsets = torch.arange(ctx.offsets, device=grad.device, dtype=winner.dtype)[:, None]
        return grad.unsqueeze(-2).where(winner.unsqueeze(-2) == offsets, 0)
