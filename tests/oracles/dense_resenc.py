"""The residual encoder written without cells: whole volumes, plain PyTorch, the mask multiplied in after every operation.

It imports nothing of the package and shares no line with it; it only reads the same named weights. Norms count the visible tokens inside the crop.
Axes: B batch, C channels, D H W tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def dense_levels(
    weights: dict[str, Tensor],
    blocks: tuple[int, ...],
    crop_BCDHW: Tensor,
    visible_BDHW: Tensor | None = None,
    stem: str = "stem",
) -> list[Tensor]:
    """The features of every level, finest first, [B, C, ceil(size / stride)]; zero where hidden."""
    cell, size = 2 ** (len(blocks) - 1), crop_BCDHW.shape[2:]
    beyond = [-s % cell for s in size]
    crop = F.pad(crop_BCDHW, (0, beyond[2], 0, beyond[1], 0, beyond[0]))
    grid = tuple(n // cell for n in crop.shape[2:])
    if visible_BDHW is None:
        visible_BDHW = torch.ones(len(crop), *grid, dtype=torch.bool)

    def kept(stride: int) -> Tensor:
        times = cell // stride
        mask = visible_BDHW[:, None].repeat_interleave(times, 2).repeat_interleave(times, 3).repeat_interleave(times, 4)
        for axis in range(3):
            token = torch.arange(mask.shape[axis + 2]).view(-1, *[1] * (2 - axis))
            mask = mask & (token * stride < size[axis])
        return mask.to(crop.dtype)

    def conv_norm(x: Tensor, name: str, keep: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
        x = F.conv3d(x, weights[f"{name}.conv.weight"], weights.get(f"{name}.conv.bias"), stride, padding) * keep
        count = keep.sum((2, 3, 4), keepdim=True)
        mean = x.sum((2, 3, 4), keepdim=True) / count
        centred = (x - mean) * keep
        variance = centred.square().sum((2, 3, 4), keepdim=True) / count
        scaled = centred / torch.sqrt(variance + 1e-5)
        weight, bias = (weights[f"{name}.norm.{p}"][:, None, None, None] for p in ("weight", "bias"))
        return (scaled * weight + bias) * keep

    x = F.leaky_relu(conv_norm(crop * kept(1), f"{stem}.convs.0", kept(1)), 0.01)
    found = []
    for i, depth in enumerate(blocks):
        stride, keep = 2**i, kept(2**i)
        for j in range(depth):
            name, step = f"stages.{i}.blocks.{j}", 2 if i and not j else 1
            shortcut = x
            if step == 2:
                fine = kept(stride // 2)
                tokens = F.avg_pool3d(fine, 2, divisor_override=1).clamp(min=1)
                shortcut = F.avg_pool3d(x, 2, divisor_override=1) / tokens
            for place in ("skip.0", "skip.1"):
                if f"{name}.{place}.conv.weight" in weights:
                    shortcut = conv_norm(shortcut, f"{name}.{place}", keep, padding=0)
            out = F.leaky_relu(conv_norm(x, f"{name}.conv1", keep, step), 0.01)
            x = F.leaky_relu(conv_norm(out, f"{name}.conv2", keep) + shortcut, 0.01) * keep
        found.append(x[:, :, : -(-size[0] // stride), : -(-size[1] // stride), : -(-size[2] // stride)])
    return found
