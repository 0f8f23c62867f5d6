"""Kernel 3 on visible cells by halos: gather the tokens around each cell, run an ordinary convolution without padding.

The gradient with respect to the features is the same operation with flipped weights, and the gradient with respect to the weights gathers the halo
again: nothing is scattered, no halo is kept between forward and backward, nothing waits for an accelerator, and the result does not depend on the
order of threads. On a processor halos are made in chunks of about the size of its cache.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from wavespark.shapes import product

_CHUNK_BYTES = {"cpu": 4 * 2**20}
"""Bytes of halo at a time: about the second-level cache of a processor, and large enough on an accelerator to be one chunk in most steps."""
_CHUNK_BYTES_ACCELERATOR = 2**29


class HaloConv(torch.autograd.Function):
    """[N, b, b, b, C] -> [N, b, b, b, C_out] for a weight [C_out, C / groups, 3, 3, 3]."""

    @staticmethod
    def forward(ctx: FunctionCtx, features: Tensor, weight: Tensor, index: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(features, weight, index)
        ctx.groups = groups  # type: ignore[attr-defined]
        return _convolve(features, weight, index, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, index = ctx.saved_tensors  # type: ignore[attr-defined]
        groups = ctx.groups  # type: ignore[attr-defined]
        grad = grad.contiguous()
        grad_features = grad_weight = None
        if ctx.needs_input_grad[0]:  # type: ignore[attr-defined]
            flipped = weight.flip(2, 3, 4)
            grad_features = _convolve(grad, flipped if groups > 1 else flipped.transpose(0, 1), index, groups)
        if ctx.needs_input_grad[1]:  # type: ignore[attr-defined]
            grad_weight = _weight_gradient(features, grad, weight, index, groups)
        return grad_features, grad_weight, None, None


def halos(features: Tensor, index: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Chunks of cells with the halo that `index` names, [n, low+b+high, ..., C], zero where there is nothing.

    On a processor a chunk's halo is overwritten by the next.
    """
    cells, *extent = index.shape
    channels = features.shape[-1]
    flat = features.reshape(-1, channels)
    on_cpu = features.device.type == "cpu"
    budget = _CHUNK_BYTES.get(features.device.type, _CHUNK_BYTES_ACCELERATOR)
    # torch has no fast convolution for a single small volume; chunks are of equal size, so that none is left alone at the end.
    step = max(2, budget // (product(extent) * channels * features.element_size()))
    step = -(-cells // -(-cells // step))
    # A compiled graph must not depend on how many are absent.
    padded = not on_cpu or torch.compiler.is_compiling()
    take = _take_from_padded(flat) if padded else _take_and_clear(flat, min(step, cells) * product(extent))
    for start in range(0, cells, step):
        part = slice(start, min(start + step, cells))
        rows = index[part]
        yield part, take(rows.reshape(-1)).view(*rows.shape, channels)


def _take_from_padded(flat: Tensor) -> Callable[[Tensor], Tensor]:
    """Rows by their numbers from a copy with a row of zeros at its end: no step of it needs to know how many are absent."""
    table = torch.cat((flat, flat.new_zeros(1, flat.shape[1])))
    return lambda rows: table.index_select(0, rows)


def _take_and_clear(flat: Tensor, most: int) -> Callable[[Tensor], Tensor]:
    """Rows by their numbers, and zero where absent, without that copy: on a processor it costs a fifth of the convolution."""
    buffer, last = flat.new_empty(most, flat.shape[1]), len(flat) - 1

    def take(rows: Tensor) -> Tensor:
        found = torch.index_select(flat, 0, rows.clamp(max=last), out=buffer[: len(rows)])
        return found.index_fill_(0, (rows > last).nonzero().flatten(), 0)

    return take


def _convolve(features: Tensor, weight: Tensor, index: Tensor, groups: int) -> Tensor:
    out = features.new_empty(*features.shape[:-1], weight.shape[0])
    for part, halo in halos(features, index):
        out[part] = F.conv3d(halo.permute(0, 4, 1, 2, 3), weight, groups=groups).permute(0, 2, 3, 4, 1)
    return out


def _weight_gradient(features: Tensor, grad: Tensor, weight: Tensor, index: Tensor, groups: int) -> Tensor:
    # In half precision a sum over many chunks would stop growing once a chunk is below its last digit.
    exact = torch.promote_types(weight.dtype, torch.float32)
    total = torch.zeros_like(weight, dtype=exact, memory_format=torch.contiguous_format)
    planar = groups > 1 and features.device.type == "cpu"
    for part, halo in halos(features, index):
        read, upstream = halo, grad[part]
        if groups > 1:  # cuDNN sums a depthwise gradient of bf16 with one launch for every channel
            read, upstream = read.to(exact), upstream.to(exact)
        if planar:
            _add_planar_weight_gradient(total, read, upstream, weight)
        else:
            total += convolution_weight_gradient(
                upstream.permute(0, 4, 1, 2, 3), read.permute(0, 4, 1, 2, 3), weight, groups
            )
    return total.to(weight.dtype)


def _add_planar_weight_gradient(total: Tensor, halo: Tensor, grad: Tensor, weight: Tensor) -> None:
    """A depthwise 3-D weight gradient as three 2-D ones: processors have a fast kernel only for the latter."""
    n, b, *_, channels = grad.shape
    planes = halo.transpose(0, 1).contiguous()
    grad_2d = grad.transpose(0, 1).reshape(-1, *grad.shape[2:]).permute(0, 3, 1, 2)
    for k in range(3):
        plane = planes[k : k + b].view(b * n, *halo.shape[2:]).permute(0, 3, 1, 2)
        total[:, :, k] += convolution_weight_gradient(grad_2d, plane, weight[:, :, k], channels)


def convolution_weight_gradient(
    grad: Tensor, inputs: Tensor, weight: Tensor, groups: int, stride: int = 1, padding: int = 0
) -> Tensor:
    """What a convolution of `inputs` [n, C, ...] adds to the gradient of its weight."""
    n = inputs.ndim - 2
    result: Tensor = torch.ops.aten.convolution_backward(
        grad, inputs, weight, [0], [stride] * n, [padding] * n, [1] * n, False, [0] * n, groups, [False, True, False]
    )[1]
    return result
