"""Kernel 3 on visible cells without a halo: each cell alone, then what its visible neighbours add to its faces, edges and corners.

On a processor this is the cheapest exact form for cells of 4 tokens and more: the cells are convolved where they lie, padded with zeros, in one
call; a hidden neighbour costs nothing, not even a multiplication by zero; and nothing is copied but the tokens where visible cells touch. What a
neighbour adds to a face is a convolution of two axes, to an edge of one, to a corner a matrix product. In one direction no token is touched twice
(b >= 2): nothing is scattered onto the same place, and results do not depend on threads.
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
        features = features.contiguous()
        return _convolve(features, weight, touching, _touching_tokens(features, touching))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        features, weight = ctx.saved_tensors
        grad = grad.contiguous()
        tokens = _touching_tokens(grad, ctx.touching)
        of_features, of_weight = ctx.needs_input_grad[:2]
        flipped = weight.flip(2, 3, 4).transpose(0, 1)
        return (
            _convolve(grad, flipped, ctx.touching, tokens) if of_features else None,
            _weight_gradient(features.contiguous(), grad, weight, ctx.touching, tokens) if of_weight else None,
            None,
        )


def _touching_tokens(features: Tensor, touching: Borders) -> list[tuple[Tensor, ...]]:
    """For each of the sides, and each of its directions, the tokens that touch."""
    flat = features.view(-1, features.shape[-1])
    return [sides.read(flat) for sides in touching]


def _convolve(features: Tensor, weight: Tensor, touching: Borders, tokens: list[tuple[Tensor, ...]]) -> Tensor:
    out = _last(F.conv3d(_first(features), weight, padding=1)).contiguous()
    flat = out.view(-1, weight.shape[0])
    for sides, read in zip(touching, tokens, strict=True):
        added = [_added(side, d.taps(weight)) for d, side in zip(sides.directions, read, strict=True)]
        flat.index_add_(0, sides.ours, torch.cat(added))  # each place is named once
    return out


def _added(side: Tensor, taps: Tensor) -> Tensor:
    """[P, C_out]: what the touching tokens of one direction add to the tokens that they touch."""
    if side.ndim == 4:
        return _last(F.conv2d(side, taps, padding=1)).reshape(-1, taps.shape[0])
    return side.flatten(1) @ taps.flatten(2).permute(2, 1, 0).flatten(0, 1)


def _weight_gradient(
    features: Tensor, grad: Tensor, weight: Tensor, touching: Borders, grads: list[tuple[Tensor, ...]]
) -> Tensor:
    """`grads` are the touching tokens of the gradient: those that a direction touches, which touch in the opposite one."""
    # In half precision a sum over many terms would stop growing once one of them is below its last digit.
    exact = torch.promote_types(weight.dtype, torch.float32)
    total = convolution_weight_gradient(_first(grad), _first(features), weight, 1, padding=1)
    total = total.to(exact, memory_format=torch.contiguous_format)
    for sides, read, received in zip(touching, _touching_tokens(features, touching), grads, strict=True):
        for direction, side, touched in zip(sides.directions, read, reversed(received), strict=True):
            taps = direction.taps(total)
            taps += _taps_gradient(side, touched, direction.taps(weight))
    return total.to(weight.dtype)


def _taps_gradient(side: Tensor, touched: Tensor, taps: Tensor) -> Tensor:
    if side.ndim == 4:
        return convolution_weight_gradient(touched, side, taps, 1, padding=1)
    rows = touched[:, touched.shape[1] // 2]  # the tap in the middle reads the token itself
    return (rows.T @ side.flatten(1)).unflatten(1, side.shape[1:]).transpose(1, 2).unsqueeze(2)


def _first(x: Tensor) -> Tensor:
    return x.movedim(-1, 1)


def _last(x: Tensor) -> Tensor:
    return x.movedim(1, -1)
