"""Kernel 3 on visible cells without a halo: each cell alone, then what its visible neighbours add to its faces, edges and corners.

On a processor this is the cheapest exact form for cells of 4 tokens and more: the cells are convolved where they lie, padded with zeros, in one
call; a hidden neighbour costs nothing, not even a multiplication by zero; and nothing is copied but the tokens where visible cells touch. What a
neighbour adds to a face is a convolution of two axes, to an edge or a corner a matrix product. In one direction, and in
one group of parallel edges, no token is touched twice (b >= 2): nothing is scattered onto the same place, and results do not depend on threads.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from wavespark.sparse.cell_borders import Borders
from wavespark.sparse.cell_halo import convolution_weight_gradient


class FacesConv(torch.autograd.Function):
    """[N, b, b, b, C] -> [N, b, b, b, C_out] for a weight [C_out, C, 3, 3, 3], b >= 2 along each axis."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, touching: Borders) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.touching = touching
        return _convolve(features.contiguous(), weight, touching)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        features, weight = ctx.saved_tensors
        grad = grad.contiguous()
        of_features, of_weight = ctx.needs_input_grad[:2]
        return (
            _convolve(grad, weight.flip(2, 3, 4).transpose(0, 1), ctx.touching) if of_features else None,
            _weight_gradient(features.contiguous(), grad, weight, ctx.touching) if of_weight else None,
            None,
        )


def _convolve(features: Tensor, weight: Tensor, touching: Borders) -> Tensor:
    out = _last(F.conv3d(_first(features), weight, padding=1)).contiguous()
    for face in touching.faces:
        side = features[face.far].index_select(0, face.theirs)
        added = _last(F.conv2d(_first(side), weight[face.taps], padding=1))
        _add_at(out[face.near], face.ours, added)
    flat = features.view(-1, features.shape[-1])
    for lines in touching.lines:
        columns = lines.columns(flat)
        added = columns.new_empty(len(columns), weight.shape[0])
        for direction, part in zip(lines.directions, lines.parts, strict=True):
            torch.mm(columns[part], _as_matrix(weight[direction.taps]).T, out=added[part])
        _add_at(out.view(-1, weight.shape[0]), lines.ours, added)
    return out


def _add_at(rows: Tensor, places: Tensor, added: Tensor) -> None:
    """Adds to some rows, each named once: the order of threads cannot matter, which `index_add_` would not promise."""
    rows.index_copy_(0, places, rows.index_select(0, places).add_(added))


def _weight_gradient(features: Tensor, grad: Tensor, weight: Tensor, touching: Borders) -> Tensor:
    # In half precision a sum over many terms would stop growing once one of them is below its last digit.
    exact = torch.promote_types(weight.dtype, torch.float32)
    total = convolution_weight_gradient(_first(grad), _first(features), weight, 1, padding=1)
    total = total.to(exact, memory_format=torch.contiguous_format)
    for face in touching.faces:
        side = features[face.far].index_select(0, face.theirs)
        received = grad[face.near].index_select(0, face.ours)
        total[face.taps] += convolution_weight_gradient(_first(received), _first(side), weight[face.taps], 1, padding=1)
    for lines in touching.lines:
        columns = lines.columns(features.view(-1, features.shape[-1]))
        received = grad.view(-1, grad.shape[-1]).index_select(0, lines.ours)
        for direction, part in zip(lines.directions, lines.parts, strict=True):
            taps = total[direction.taps]
            added = (received[part].T @ columns[part]).unflatten(1, (-1, weight.shape[1])).transpose(1, 2)
            taps += added.reshape(taps.shape)
    return total.to(weight.dtype)


def _as_matrix(taps: Tensor) -> Tensor:
    """[C_out, T * C] from [C_out, C] or [C_out, C, T]."""
    return taps if taps.ndim == 2 else taps.transpose(1, 2).flatten(1)


def _first(x: Tensor) -> Tensor:
    return x.movedim(-1, 1)


def _last(x: Tensor) -> Tensor:
    return x.movedim(1, -1)
