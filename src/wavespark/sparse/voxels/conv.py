"""Convolutions of sparse voxels: which sites come out, then the chosen engine's arithmetic."""

import torch
from torch import Tensor

from wavespark.errors import SettingsError, ShapeError, SitesError
from wavespark.shapes import Triple, as_triple
from wavespark.sparse.precision import operands
from wavespark.sparse.voxels.coordinates import Coordinates
from wavespark.sparse.voxels.engines.choice import current_engine
from wavespark.sparse.voxels.engines.contract import Convolution
from wavespark.sparse.voxels.kernel_map import kernel_offsets
from wavespark.sparse.voxels.value import SparseVoxels


@torch.compiler.disable
def submanifold_conv(
    x: SparseVoxels, weight: Tensor, bias: Tensor | None = None, dilation: int | Triple = 1
) -> SparseVoxels:
    depthwise = weight.ndim == 5 and tuple(weight.shape[:2]) == (x.channels, 1) and x.channels > 1
    kernel = _kernel(x, weight, x.channels if depthwise else weight.shape[1])
    if any(k % 2 == 0 for k in kernel):
        raise ShapeError(f"a submanifold convolution needs a centre: the kernel must be odd, got {kernel}")
    if depthwise and (engine := current_engine().name) != "torch":
        raise SettingsError(
            f"the sparse engine {engine!r} has no depthwise convolution: use the engine 'torch', with set_engine('torch')"
        )
    sites, by = x.coordinates, as_triple(dilation, "dilation")
    task = Convolution(source=sites, target=sites, kernel=kernel, dilation=by, depthwise=depthwise)
    return _convolve(x, weight, bias, task)


@torch.compiler.disable
def strided_conv(x: SparseVoxels, weight: Tensor, bias: Tensor | None = None, stride: int | Triple = 2) -> SparseVoxels:
    kernel, steps = _kernel(x, weight, weight.shape[1]), as_triple(stride, "stride")
    kernel_offsets(kernel, steps)
    return _convolve(
        x,
        weight,
        bias,
        Convolution(source=x.coordinates, target=x.coordinates.coarser(steps), kernel=kernel, stride=steps),
    )


@torch.compiler.disable
def transposed_conv(
    x: SparseVoxels,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Triple = 2,
    like: SparseVoxels | None = None,
    generative: bool = False,
) -> SparseVoxels:
    kernel, steps = _kernel(x, weight, weight.shape[0]), as_triple(stride, "stride")
    kernel_offsets(kernel, steps)
    target = _finer_sites(x, steps, like, generative)
    return _convolve(
        x, weight, bias, Convolution(source=x.coordinates, target=target, kernel=kernel, stride=steps, transposed=True)
    )


def _finer_sites(x: SparseVoxels, stride: Triple, like: SparseVoxels | None, generative: bool) -> Coordinates:
    if generative == (like is not None):
        raise ShapeError(
            "a transposed convolution goes back to given sites (like=...) or makes all children (generative=True): "
            "choose one of them"
        )
    if like is None:
        return x.coordinates.children(stride)
    fine, coarse = like.coordinates, x.coordinates
    if (
        tuple(f * s for f, s in zip(fine.stride, stride, strict=True)) != coarse.stride
        or fine.batch_size != coarse.batch_size
    ):
        raise SitesError(
            f"a stride of {stride} leads from {x!r} to sites {stride} times finer in the same batch, "
            f"but like= is {like!r}"
        )
    return fine


def _kernel(x: SparseVoxels, weight: Tensor, channels: int) -> Triple:
    if weight.ndim != 5 or channels != x.channels:
        raise ShapeError(
            f"{x!r} needs a weight of {x.channels} input channel(s) and three kernel axes, got {tuple(weight.shape)}"
        )
    _, _, d, h, w = weight.shape
    return d, h, w


def _convolve(x: SparseVoxels, weight: Tensor, bias: Tensor | None, task: Convolution) -> SparseVoxels:
    features, weight = operands(x.features, weight)
    with torch.autocast(features.device.type, enabled=False):
        out = current_engine().convolve(features, weight, task)
    return SparseVoxels.on(task.target, out if bias is None else out + bias.to(out.dtype))
