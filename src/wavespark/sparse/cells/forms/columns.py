"""Kernel 3 where there are fewer tokens than channels: the weight is larger than the features, and
is what must not be copied.

A level with one token a cell has a few dozen rows and, in a residual network, millions of weights.
The 27 rows that a token reads are therefore turned to the order of the weight, not the weight to
theirs; it is read twice and its gradient written once. Nothing is scattered.
Axes: M tokens, C channels in, O channels out, 27 taps of the kernel.
"""

import torch
from torch import Tensor

from wavespark.sparse.derivatives import Context, builds_graph, gradients


class FewRowsConv(torch.autograd.Function):
    """[M, C] -> [M, O] for a weight [O, C, 3, 3, 3]; `index` [M, 27] names the row that each token
    reads at each tap, M where there is nothing."""

    @staticmethod
    def forward(ctx: Context, features_MC: Tensor, weight: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(features_MC, weight, index)
        return _columns(features_MC, index) @ weight.flatten(1).T

    @staticmethod
    def backward(ctx: Context, grad_MO: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, index = ctx.saved_tensors
        if builds_graph():

            def plain(features_MC: Tensor, weight: Tensor) -> Tensor:
                return _columns(features_MC, index) @ weight.flatten(1).T

            return *gradients(plain, (features, weight), grad_MO, ctx.needs_input_grad[:2]), None
        to_features = to_weight = None
        if ctx.needs_input_grad[0]:
            parts = (grad_MO @ weight.flatten(1)).view(len(index), -1, 27)  # what each token gives back at each tap
            table = torch.cat((parts, parts.new_zeros(1, *parts.shape[1:]))).permute(2, 0, 1).flatten(0, 1)
            # The token that is read at a tap reads back at the mirrored one.
            rows = index.flip(1) + torch.arange(27, device=index.device, dtype=index.dtype) * (len(index) + 1)
            to_features = table[rows].sum(1)
        if ctx.needs_input_grad[1]:
            to_weight = (grad_MO.T @ _columns(features, index)).view(weight.shape)
        return to_features, to_weight, None


def _columns(features_MC: Tensor, index: Tensor) -> Tensor:
    """[M, C * 27]: the rows that each token reads, in the order of the weight."""
    table = torch.cat((features_MC, features_MC.new_zeros(1, features_MC.shape[1])))
    return table[index].transpose(1, 2).flatten(1)
