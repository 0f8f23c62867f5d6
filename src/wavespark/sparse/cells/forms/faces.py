"""Kernel 3 on visible cells without a halo: each cell alone, then what its visible neighbours add
to its faces, edges and corners.

On a processor this is the cheapest exact form for cells of 4 tokens and more: the cells are
convolved where they lie, padded with zeros, in one call; a hidden neighbour costs nothing, not even
a multiplication by zero; and nothing is copied but the tokens where visible cells touch. What a
neighbour adds to a face is a convolution of two axes, to an edge of one, to a corner a matrix
product. What reaches one token from several directions is added in the order of directions,
whichever thread is first.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wavespark.sparse.cells.forms.borders import Borders
from wavespark.sparse.cells.forms.gradient import cells_weight_gradient, convolution_weight_gradient
from wavespark.sparse.derivatives import Context, builds_graph, gradients


class FacesConv(torch.autograd.Function):
    """[N, b, b, b, C] -> [N, b, b, b, C_out] for a weight [C_out, C, 3, 3, 3], b >= 2 along each
    axis."""

    @staticmethod
    def forward(ctx: Context, features: Tensor, weight: Tensor, touching: Borders) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.touching = touching
        features = features.contiguous()
        return _convolve(features, weight, touching, _Touching.of(features, touching))

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        if builds_graph():
            touching = ctx.touching

            def plain(features: Tensor, weight: Tensor) -> Tensor:
                features = features.contiguous()
                return _convolve(features, weight, touching, _Touching.of(features, touching))

            return *gradients(plain, (features, weight), grad, ctx.needs_input_grad[:2]), None
        grad = grad.contiguous()
        read = _Touching.of(grad, ctx.touching)
        of_features, of_weight = ctx.needs_input_grad[:2]
        flipped = weight.flip(2, 3, 4).transpose(0, 1)
        return (
            _convolve(grad, flipped, ctx.touching, read) if of_features else None,
            _weight_gradient(features.contiguous(), grad, weight, ctx.touching, read) if of_weight else None,
            None,
        )


class _Touching(NamedTuple):
    """The tokens that touch, as they are read."""

    images: list[list[Tensor]]
    """For each of the faces, and each of its directions, [M, C, h, w]."""
    columns: list[Tensor]
    """For each of the lines, [K, P, T * C]."""

    @classmethod
    def of(cls, features: Tensor, touching: Borders) -> "_Touching":
        tokens = touching.tokens(features)
        return cls([f.images(tokens) for f in touching.faces], [lines.read(tokens) for lines in touching.lines])


def _convolve(features: Tensor, weight: Tensor, touching: Borders, read: _Touching) -> Tensor:
    out = _last(F.conv3d(_first(features), weight, padding=1)).contiguous()
    channels = weight.shape[0]
    added = []
    for faces, images in zip(touching.faces, read.images, strict=True):
        reached = zip(images, faces.taps(weight), strict=True)
        added += [_last(F.conv2d(image, taps, padding=1)).reshape(-1, channels) for image, taps in reached]
    taps = weight.flatten(2).permute(2, 1, 0)  # [27, C, C_out]
    for lines, columns in zip(touching.lines, read.columns, strict=True):
        products = columns @ taps.index_select(0, lines.kernel).view(lines.directions, -1, channels)
        added.append(products.view(-1, channels).index_select(0, lines.rows))
    if added:
        out.view(-1, channels).index_add_(0, touching.ours, torch.cat(added))
    return out


def _weight_gradient(features: Tensor, grad: Tensor, weight: Tensor, touching: Borders, of_grad: _Touching) -> Tensor:
    """Return the gradient of the weight; `of_grad` holds the upstream gradient as the tokens that
    touch, in the opposite directions."""
    # In half precision a sum over many terms would stop growing once one of them is below its last
    # digit.
    exact = torch.promote_types(weight.dtype, torch.float32)
    total = cells_weight_gradient(features, grad, weight, padding=1)
    total = total.to(exact, memory_format=torch.contiguous_format)
    read = _Touching.of(features, touching)
    for faces, images, touched in zip(touching.faces, read.images, of_grad.images, strict=True):
        reached = zip(images, reversed(touched), faces.taps(weight), faces.taps(total), strict=True)
        for image, received, taps, part in reached:
            part.add_(convolution_weight_gradient(received, image, taps, 1, padding=1))
    by_tap = total.new_zeros(27, weight.shape[0] * weight.shape[1])
    for lines, columns, grads in zip(touching.lines, read.columns, of_grad.columns, strict=True):
        of_rows = lines.opposite(grads).transpose(1, 2) @ columns  # [K, C_out, T * C]
        of_taps = of_rows.view(lines.directions, weight.shape[0], lines.num_taps, weight.shape[1]).transpose(1, 2)
        by_tap.index_add_(0, lines.kernel, of_taps.reshape(-1, by_tap.shape[1]).to(exact))
    total += by_tap.T.reshape(total.shape)
    return total.to(weight.dtype)


def _first(x: Tensor) -> Tensor:
    return x.movedim(-1, 1)


def _last(x: Tensor) -> Tensor:
    return x.movedim(1, -1)
