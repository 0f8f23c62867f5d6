"""Convolutions between levels of visible cells: stride 2 down, and transposed back up.

With kernel = stride every window lies inside a cell, so that the convolution is one matrix product over windows. With kernel 3 and stride 2 (b
even) a window reaches one token below its cell. The gradient with respect to the features is again a gather, from the coarser grid with one token
above each cell: a fine token of even coordinate was read by one window along that axis, one of odd coordinate by two.
"""

from collections.abc import Sequence
from itertools import product as combinations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from wavespark.errors import ShapeError
from wavespark.shapes import Triple, as_triple
from wavespark.sparse.cells.conv import operands
from wavespark.sparse.cells.forms.gradient import convolution_weight_gradient, summed
from wavespark.sparse.cells.forms.halo import halo_index, halos, joined
from wavespark.sparse.cells.value import VisibleCells

_READERS = {0: (1,), 1: (2, 0)}
"""Kernel positions that read a fine token of that parity, in the order of the windows they belong to."""

_BY_PARITY = {"cpu"}
"""Devices on which the gradient is computed one parity after the other; on others at once."""


def windows(features: Tensor, size: Triple) -> Tensor:
    """[N, b/s, b/s, b/s, s, s, s, C]: the windows of each cell; needs b divisible by s."""
    (_, bd, bh, bw, channels), (d, h, w) = features.shape, size
    return features.reshape(-1, bd // d, d, bh // h, h, bw // w, w, channels).permute(0, 1, 3, 5, 2, 4, 6, 7)


def check_windows(x: VisibleCells, size: Triple) -> None:
    """Raises ShapeError unless windows of `size` tile the cells of x."""
    if any(b % s for b, s in zip(x.block, size, strict=True)):
        raise ShapeError(
            f"a stride of {size} does not divide the tokens of a cell of {x!r}. Sparse voxels, x.to_sparse(), take any"
        )


def strided_conv(x: VisibleCells, weight: Tensor, bias: Tensor | None = None, stride: int | Triple = 2) -> VisibleCells:
    """The convolution to b / stride tokens along each edge of a cell; hidden and outside tokens read zero.

    Args:
        x: features [N, b, b, b, C].
        weight: [C_out, C, k, k, k]; k = stride (inside a cell), or k = 3 with stride 2 (padding 1 in a dense convolution).
        bias: [C_out].
        stride: must divide b.

    Raises:
        ShapeError: if weight or stride do not fit.
    """
    steps, kernel = as_triple(stride, "stride"), tuple(weight.shape[2:])
    if weight.shape[1] != x.channels or (kernel != steps and (kernel, steps) != ((3, 3, 3), (2, 2, 2))):
        raise ShapeError(
            f"{x!r} takes a weight [out, {x.channels}, *stride], or [out, {x.channels}, 3, 3, 3] with stride 2, got "
            f"{tuple(weight.shape)} with stride {steps}. Sparse voxels, x.to_sparse(), take other kernels"
        )
    check_windows(x, steps)
    x = x.zero_outside()
    features, weight = operands(x.features, weight)
    if kernel == steps:
        out = F.linear(windows(features, steps).flatten(4), weight.movedim(1, -1).flatten(1))
    else:
        d, h, w = (b // 2 for b in x.block)
        below, above = halo_index(x.layout, x.block, 1, 0), halo_index(x.layout, (d, h, w), 0, 1)
        out = _HaloConvStride2.apply(features, weight, len(below), *below, *above)
    return x.with_features(out if bias is None else out + bias.to(out.dtype))


def transposed_conv(
    x: VisibleCells,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Triple = 2,
    like: VisibleCells | None = None,
    generative: bool = False,
) -> VisibleCells:
    """The transposed convolution with kernel = stride, to b * stride tokens along each edge of a cell.

    Args:
        x: features [N, b, b, b, C].
        weight: [C, C_out, *stride].
        bias: [C_out].
        stride: tokens that each token becomes, along each axis.
        like: the level to return to; or else `generative`, all children. On the same cells both are the same tokens.
        generative: see `like`. Tokens beyond the crop, in last cells that reach over its end, are kept and mean nothing, as everywhere on cells:
            `to_dense` and `to_sparse` cut them, so that a token at the crop's end has fewer children than the same site of sparse voxels.

    Raises:
        ShapeError: if the weight does not fit, tokens would be finer than voxels, or `like` is another level.
    """
    steps = as_triple(stride, "stride")
    if weight.shape[0] != x.channels or tuple(weight.shape[2:]) != steps:
        raise ShapeError(
            f"{x!r} takes a transposed weight [{x.channels}, out, *stride], got {tuple(weight.shape)} with stride {steps}"
        )
    d, h, w = (b * s for b, s in zip(x.block, steps, strict=True))
    _check_target(x, (d, h, w), like, generative)
    x = x.zero_outside()
    features, weight = operands(x.features, weight)
    out = F.linear(features, weight.flatten(1).T).unflatten(-1, (-1, *steps))  # [N, b, b, b, C_out, s, s, s]
    out = out.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(len(x), d, h, w, -1)
    return x.with_features(out if bias is None else out + bias.to(out.dtype))


def _check_target(x: VisibleCells, block: Triple, like: Any, generative: bool) -> None:
    if generative == (like is not None):
        raise ShapeError(
            "a transposed convolution goes back to given sites (like=...) or makes all children (generative=True): "
            "choose one of them"
        )
    if like is None:
        return
    if not isinstance(like, VisibleCells) or like.block != block or not x.layout.same_as(like.layout):
        raise ShapeError(f"{x!r} becomes {block} tokens in the same cells, but like= is {like!r}")


class _HaloConvStride2(torch.autograd.Function):
    """[N, b, b, b, C] -> [N, b/2, b/2, b/2, C_out]; of `indices` the first `count` are the `halo_index` below, the others that above."""

    @staticmethod
    def forward(ctx: FunctionCtx, features: Tensor, weight: Tensor, count: int, *indices: Tensor) -> Tensor:
        ctx.save_for_backward(features, weight, *indices)
        ctx.count = count  # type: ignore[attr-defined]

        def convolved(halo: Tensor) -> Tensor:
            return F.conv3d(halo.permute(0, 4, 1, 2, 3), weight, stride=2).permute(0, 2, 3, 4, 1)

        parts = ((part, convolved(halo)) for part, halo in halos(features, indices[:count]))
        return joined(parts, len(features))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, *indices = ctx.saved_tensors  # type: ignore[attr-defined]
        below, above = indices[: ctx.count], indices[ctx.count :]  # type: ignore[attr-defined]
        grad = grad.contiguous()
        grad_features = grad_weight = None
        if ctx.needs_input_grad[0]:  # type: ignore[attr-defined]
            grad_features = _feature_gradient(torch.empty_like(features), grad, weight, above)
        if ctx.needs_input_grad[1]:  # type: ignore[attr-defined]
            grad_weight = summed(
                (
                    convolution_weight_gradient(
                        grad[part].permute(0, 4, 1, 2, 3), halo.permute(0, 4, 1, 2, 3), weight, 1, stride=2
                    )
                    for part, halo in halos(features, below)
                ),
                weight,
            )
        return grad_features, grad_weight, None, *(None for _ in indices)


def _feature_gradient(out: Tensor, grad: Tensor, weight: Tensor, above: Sequence[Tensor]) -> Tensor:
    """Each parity of fine tokens is an ordinary convolution of the coarse gradient, with the kernel positions that read it.

    On an accelerator, where eight small convolutions cost more than one, it is their sum: the transposed convolution, without its rim.
    """
    flipped = weight.transpose(0, 1)
    d, h, w = grad.shape[1:4]
    for part, halo in halos(grad, above, low=0):
        planes = halo.permute(0, 4, 1, 2, 3)
        if grad.device.type not in _BY_PARITY:
            whole = F.conv_transpose3d(planes, weight, stride=2)
            out[part] = whole[:, :, 1 : 2 * d + 1, 1 : 2 * h + 1, 1 : 2 * w + 1].permute(0, 2, 3, 4, 1)
            continue
        for p, q, r in combinations((0, 1), repeat=3):
            readers = flipped[:, :, _READERS[p]][:, :, :, _READERS[q]][:, :, :, :, _READERS[r]]
            found = F.conv3d(planes[:, :, : d + p, : h + q, : w + r], readers)
            out[part, p::2, q::2, r::2] = found.permute(0, 2, 3, 4, 1)
    return out
