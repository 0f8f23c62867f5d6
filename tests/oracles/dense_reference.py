"""Sparse operations by dense means: zeros where hidden, torch's operation, zeros where the output is inactive.

Axes: B batch, C channels, D H W grid.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

Triple = tuple[int, int, int]


def zeroed(dense: Tensor, active: Tensor) -> Tensor:
    return dense.where(active[:, None], 0)


def coarser(active: Tensor, stride: Triple) -> Tensor:
    """Active where any site of the cell is."""
    return F.max_pool3d(_padded(active[:, None].double(), stride), stride, stride)[:, 0] > 0


def _padded(x: Tensor, stride: Triple) -> Tensor:
    d, h, w = (-size % by for size, by in zip(x.shape[2:], stride, strict=True))
    return F.pad(x, (0, w, 0, h, 0, d))


def submanifold(x: Tensor, active: Tensor, weight: Tensor, bias: Tensor | None, dilation: int = 1) -> Tensor:
    padding = [k // 2 * dilation for k in weight.shape[2:]]
    return zeroed(F.conv3d(zeroed(x, active), weight, bias, padding=padding, dilation=dilation), active)


def strided(x: Tensor, active: Tensor, weight: Tensor, bias: Tensor | None, stride: Triple) -> Tensor:
    padding = [k // 2 if k % 2 else 0 for k in weight.shape[2:]]
    out = coarser(active, stride)
    y = F.conv3d(_padded(zeroed(x, active), stride), weight, bias, stride=stride, padding=padding)
    return zeroed(y[:, :, : out.shape[1], : out.shape[2], : out.shape[3]], out)


def transposed(
    x: Tensor, active: Tensor, weight: Tensor, bias: Tensor | None, stride: Triple, target: Tensor
) -> Tensor:
    """`target` is the fine grid's activity."""
    padding = [k // 2 if k % 2 else 0 for k in weight.shape[2:]]
    y = F.conv_transpose3d(zeroed(x, active), weight, bias, stride=stride, padding=padding)
    d, h, w = (max(0, size - have) for size, have in zip(target.shape[1:], y.shape[2:], strict=True))
    if d or h or w:
        raise ValueError("give an output size that the dense transposed convolution reaches")
    return zeroed(y[:, :, : target.shape[1], : target.shape[2], : target.shape[3]], target)


def relative(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape, (a.shape, b.shape)
    if not a.numel():
        return 0.0
    a, b = a.detach(), b.detach()
    return float((a - b).abs().max() / b.abs().max().clamp(min=1.0))


def gradients(y: Tensor, upstream: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(y, inputs, upstream)
