"""Convolutions of stride 1 on visible cells.

Kernel 1 acts on each token alone. Kernel 3 crosses cells: gather a one-token halo, run an ordinary convolution without padding, chunk by chunk.
A submanifold convolution (Graham et al., "3D semantic segmentation with submanifold sparse convolutional networks", CVPR 2018) reads zero
wherever a neighbour is hidden or outside. Its gradient with respect to the features is the same operation with flipped weights, and its gradient
with respect to the weights gathers the halo again: nothing is scattered, no halo is kept between forward and backward, and the result does not
depend on the order of threads. Halos are made in chunks that stay in the processor's cache, which is what makes this faster than a dense convolution.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from wavespark.errors import ShapeError
from wavespark.shapes import Triple, as_triple, product
from wavespark.sparse import conv
from wavespark.sparse.cells import VisibleCells

_CHUNK_BYTES = {"cpu": 3 * 2**20}
"""Bytes of halo at a time: about the second-level cache of a processor, and large enough on an accelerator to be one chunk in most steps."""
_CHUNK_BYTES_ACCELERATOR = 2**29


@conv.submanifold_conv.register
def submanifold_conv(
    x: VisibleCells, weight: Tensor, bias: Tensor | None = None, dilation: int | Triple = 1
) -> VisibleCells:
    """The convolution of the features at the visible tokens, kernel 1 or 3; hidden and outside tokens read zero.

    Args:
        x: features [N, b, b, b, C].
        weight: [C_out, C / groups, k, k, k] with one group, or as many groups as channels (depthwise, `C / groups == 1`).
        bias: [C_out].
        dilation: 1; sparse voxels take any.

    Raises:
        ShapeError: if the weight does not fit.
    """
    channels = x.channels
    groups = channels if weight.ndim == 5 and weight.shape[1] == 1 and channels > 1 else 1
    if (
        tuple(weight.shape[2:]) not in ((1, 1, 1), (3, 3, 3))
        or weight.shape[1] * groups != channels
        or (groups > 1 and weight.shape[0] != channels)
    ):
        raise ShapeError(
            f"a convolution of {channels} channel(s) on visible cells takes a weight [out, {channels}, 3, 3, 3] or, depthwise, "
            f"[{channels}, 1, 3, 3, 3] (or kernel 1), got {tuple(weight.shape)}. Sparse voxels, x.to_sparse(), take other kernels"
        )
    if as_triple(dilation, "dilation") != (1, 1, 1):
        raise ShapeError(
            f"visible cells take dilation 1, got {dilation}. Sparse voxels, x.to_sparse(), take any dilation"
        )
    x = x.zero_outside()
    features, weight = operands(x.features, weight)
    if weight.shape[2] == 3:
        out: Tensor = _HaloConv.apply(features, weight, x.layout.halo(x.block, 1, 1), groups)
    else:
        out = features * weight.flatten() if groups > 1 else F.linear(features, weight.flatten(1))
    return x.with_features(out if bias is None else out + bias.to(out.dtype))


def operands(features: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the precision of the computation, which is autocast's where that is on.

    Raises:
        ShapeError: if they are of different types.
    """
    device = features.device.type
    if torch.is_autocast_enabled(device) and features.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        return features.to(dtype), weight.to(dtype)
    if features.dtype != weight.dtype:
        raise ShapeError(
            f"features are {features.dtype} and the weight is {weight.dtype}: convert one, or use autocast"
        )
    return features, weight


class _HaloConv(torch.autograd.Function):
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
    """Chunks of cells with the halo that `index` names, [n, low+b+high, ..., C], zero where there is nothing."""
    cells, *extent = index.shape
    channels = features.shape[-1]
    table = torch.cat((features.reshape(-1, channels), features.new_zeros(1, channels)))
    budget = _CHUNK_BYTES.get(features.device.type, _CHUNK_BYTES_ACCELERATOR)
    step = max(1, budget // (product(extent) * channels * features.element_size()))
    for start in range(0, cells, step):
        part = slice(start, min(start + step, cells))
        rows = index[part]
        yield part, table.index_select(0, rows.reshape(-1)).view(*rows.shape, channels)


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
        if planar:
            _add_planar_weight_gradient(total, halo, grad[part], weight)
        else:
            total += convolution_weight_gradient(
                grad[part].permute(0, 4, 1, 2, 3), halo.permute(0, 4, 1, 2, 3), weight, groups
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


def convolution_weight_gradient(grad: Tensor, inputs: Tensor, weight: Tensor, groups: int, stride: int = 1) -> Tensor:
    """What an unpadded convolution of `inputs` [n, C, ...] adds to the gradient of its weight."""
    n = inputs.ndim - 2
    result: Tensor = torch.ops.aten.convolution_backward(
        grad, inputs, weight, [0], [stride] * n, [0] * n, [1] * n, False, [0] * n, groups, [False, True, False]
    )[1]
    return result
