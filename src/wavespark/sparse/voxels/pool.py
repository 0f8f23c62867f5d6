"""Pooling of sparse voxels; forward and gradient gather, offset by offset: no window is ever laid
out in full."""

import torch
from torch import Tensor

from wavespark.shapes import Triple
from wavespark.sparse.derivatives import Context
from wavespark.sparse.gather_gemm import Group
from wavespark.sparse.precision import Reduction, accumulator
from wavespark.sparse.voxels.kernel_map import KernelMap, kernel_offsets, strided_map, submanifold_map
from wavespark.sparse.voxels.value import SparseVoxels


@torch.compiler.disable
def pool(x: SparseVoxels, reduction: Reduction, kernel_size: Triple, stride: Triple) -> SparseVoxels:
    """Return the windows of x reduced to one row each; an average divides by the number of active
    sites."""
    kernel_offsets(kernel_size, stride)
    fine, coarse = x.coordinates, x.coordinates.coarser(stride)
    pairs = (
        submanifold_map(fine, kernel_size, (1, 1, 1))
        if coarse is fine
        else strided_map(fine, coarse, kernel_size, stride)
    )
    if reduction == "max":
        features: Tensor = _Max.apply(x.features, pairs)
    else:
        features = _Sum.apply(x.features.to(accumulator(x.features.dtype)), pairs)
    if reduction == "avg":
        features = features / _count(pairs).clamp(min=1).to(features.dtype)[:, None]
    return SparseVoxels.on(coarse, features.to(x.features.dtype))


def global_pool(x: SparseVoxels, reduction: Reduction) -> Tensor:
    """Return [B, C]: the rows of each sample reduced to one; zero for a sample without any."""
    rows, counts = x.coordinates.by_sample
    features = x.features if rows is None else x.features.index_select(0, rows)
    dtype, exact = features.dtype, accumulator(features.dtype)

    def reduced(part: Tensor) -> Tensor:
        if reduction == "sum" or not len(part):  # the sum of no rows is a zero that stays in the graph
            return part.sum(0, dtype=exact)
        return part.amax(0).to(exact) if reduction == "max" else part.to(exact).mean(0)

    return torch.stack([reduced(part) for part in features.split(counts)]).to(dtype)


def _count(pairs: KernelMap) -> Tensor:
    """[coarse]: active sites in each window."""
    total = pairs.down[0].index.new_zeros(pairs.coarse)
    for group in pairs.down:
        active = (group.index < pairs.fine).sum(1, dtype=total.dtype)
        total = active if group.rows is None else total.index_add(0, group.rows, active)
    return total


def _gather_sum(x: Tensor, groups: tuple[Group, ...], rows: int) -> Tensor:
    """[rows, C]: the sum of what each output row reads."""
    table = torch.cat((x, x.new_zeros(1, x.shape[1])))
    total = x.new_zeros(rows, x.shape[1])
    for group in groups:
        for index in group.index.T:
            values = table.index_select(0, index)
            if group.rows is None:
                total += values
            else:
                total.index_add_(0, group.rows, values)
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, features: Tensor, pairs: KernelMap) -> Tensor:
        ctx.pairs = pairs
        return _gather_sum(features, pairs.down, pairs.coarse)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None]:
        return _gather_sum(grad, ctx.pairs.up, ctx.pairs.fine), None


class _Max(torch.autograd.Function):
    """Remembers which offset won in each channel; of equal ones the first in the kernel's order."""

    @staticmethod
    def forward(ctx: Context, features: Tensor, pairs: KernelMap) -> Tensor:
        table = torch.cat((features, features.new_full((1, features.shape[1]), -torch.inf)))
        best = features.new_full((pairs.coarse, features.shape[1]), -torch.inf)
        winner = torch.full_like(best, -1, dtype=torch.int16)
        for group in pairs.down:
            for offset, index in zip(group.offsets, group.index.T, strict=True):
                part = slice(None) if group.rows is None else group.rows
                values = table.index_select(0, index)
                before, won = best[part], winner[part]
                # A NaN wins and stays; an absent site never wins, not even against -inf.
                better = ((values > before) | values.isnan() | (won < 0)) & (index < pairs.fine)[:, None]
                best[part] = values.where(better, before)
                winner[part] = won.masked_fill(better, offset)
        ctx.save_for_backward(winner)
        ctx.pairs = pairs
        return best.masked_fill(winner < 0, 0)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None]:
        (winner,) = ctx.saved_tensors
        pairs, channels = ctx.pairs, grad.shape[1]
        exact = grad.to(accumulator(grad.dtype))
        grads = torch.cat((exact, exact.new_zeros(1, channels)))
        winners = torch.cat((winner, winner.new_full((1, channels), -1)))
        total = exact.new_zeros(pairs.fine, channels)
        for group in pairs.up:
            for offset, index in zip(group.offsets, group.index.T, strict=True):
                share = grads.index_select(0, index).where(winners.index_select(0, index) == offset, 0)
                total.index_add_(0, group.rows, share) if group.rows is not None else total.add_(share)
        return total.to(grad.dtype), None
