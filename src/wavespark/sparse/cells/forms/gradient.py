"""Gradients of the weights of convolutions on visible cells, each in the form that a processor
computes fastest.

The gradient of a weight is itself a convolution: of the inputs, with channels as samples and cells
as channels, with the upstream gradient as the kernel. A processor with AVX2 computes that two to
three times as fast as torch's own weight gradient of cells of 4 tokens along an edge, 1.3 times as
fast with 8, 1.1 times with 16 (docs/LEDGER.md). Axes: N cells, n of them, b tokens along an edge, C
channels.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from wavespark.errors import ShapeError
from wavespark.shapes import Triple, product
from wavespark.sparse.cells.forms import tuning


def is_measured(features: Tensor) -> bool:
    """Return True where the swapped form was measured: on a processor of that instruction set, in
    fp32."""
    return (
        features.device.type == "cpu"
        and features.dtype == torch.float32
        and torch.backends.cpu.get_cpu_capability() == tuning.TUNING.swapped_instructions
    )


def cells_weight_gradient(features: Tensor, grad: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Return the gradient of the weight [C_out, C, k, k, k] of a convolution of each cell alone.

    Args:
        features: [N, b, b, b, C] that were padded with one token of zeros, or [N, b+2, b+2, b+2, C]
            that were not.
        grad: gradient of its result, [N, b, b, b, C_out].
        weight: [C_out, C, 3, 3, 3].
        padding: 1 or 0.
    """
    if _is_faster_swapped(features, grad):
        return _swapped(features, grad, weight, padding)
    return convolution_weight_gradient(grad.movedim(-1, 1), features.movedim(-1, 1), weight, 1, padding=padding)


def _is_faster_swapped(features: Tensor, grad: Tensor) -> bool:
    cells, *block, _ = grad.shape
    lanes = tuning.TUNING.lanes
    return (
        is_measured(features)
        and max(block) <= tuning.TUNING.swapped_edge
        and min(features.shape[-1], grad.shape[-1]) >= tuning.TUNING.swapped_channels
        and -(-cells // lanes) * lanes <= tuning.TUNING.largest_fill * cells
    )


def _swapped(features: Tensor, grad: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Compute the swapped form on as many cells at a time as `kernel_bytes` hold, summed in their
    order."""
    most = max(features.shape[-1], grad.shape[-1]) * product(grad.shape[1:4]) * features.element_size()
    lanes = tuning.TUNING.lanes
    step = max(lanes, tuning.TUNING.kernel_bytes // most // lanes * lanes)
    parts = zip(features.split(step), grad.split(step), strict=True)
    found = (_correlated(_channels_as_samples(x), _channels_as_samples(kernel), padding) for x, kernel in parts)
    return summed(found, weight).transpose(0, 1)


def _correlated(inputs: Tensor, kernel: Tensor, padding: int) -> Tensor:
    """[C, C_out, 3, 3, 3] of inputs [C, n, ...] and a kernel [C_out, n, b, b, b]."""
    if padding and max(kernel.shape[2:]) > tuning.TUNING.padded_edge:
        inputs, padding = F.pad(inputs, (padding,) * 6), 0
    return F.conv3d(inputs, kernel, padding=padding)


def _channels_as_samples(cells: Tensor) -> Tensor:
    """[n, b, b, b, C] -> [C, n, b, b, b].

    A shuffle of the numbers of a cell is its transpose, twice as fast as torch's copy in another
    order.
    """
    n, *block, channels = cells.shape
    tokens = product(block)
    numbers = cells.reshape(1, n, 1, -1).movedim(-1, 1)  # channels last: all numbers of a cell lie together
    transposed = torch.channel_shuffle(numbers, tokens).movedim(1, -1).reshape(n, channels, tokens)
    return transposed.transpose(0, 1).contiguous().view(channels, n, *block)


def convolution_weight_gradient(
    grad: Tensor, inputs: Tensor, weight: Tensor, groups: int, stride: int | Triple = 1, padding: int = 0
) -> Tensor:
    """Return what a convolution of `inputs` [n, C, ...] adds to the gradient of its weight."""
    n = inputs.ndim - 2
    steps = [stride] * n if isinstance(stride, int) else list(stride)
    result: Tensor = torch.ops.aten.convolution_backward(
        grad, inputs, weight, [0], steps, [padding] * n, [1] * n, False, [0] * n, groups, [False, True, False]
    )[1]
    return result


def planar_weight_gradient(halo: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    """A depthwise 3-D weight gradient as three 2-D ones: processors have a fast kernel only for the
    latter."""
    n, b, *_, channels = grad.shape
    planes = halo.transpose(0, 1).contiguous()
    grad_2d = grad.transpose(0, 1).reshape(-1, *grad.shape[2:]).permute(0, 3, 1, 2)
    found = []
    for k in range(weight.shape[2]):
        plane = planes[k : k + b].view(b * n, *halo.shape[2:]).permute(0, 3, 1, 2)
        found.append(convolution_weight_gradient(grad_2d, plane, weight[:, :, k], channels))
    return torch.stack(found, 2)


def summed(parts: Iterable[Tensor], weight: Tensor) -> Tensor:
    """Return the sum of the gradients of chunks, in fp32 at least: in half precision a long sum
    would stop growing."""
    total: Tensor | None = None
    for found in parts:  # one at a time: a weight can be as large as all features
        total = found if total is None else total.to(torch.promote_types(weight.dtype, torch.float32)).add_(found)
    if total is None:
        raise ShapeError("there are no cells to convolve")
    return total.to(weight.dtype)
