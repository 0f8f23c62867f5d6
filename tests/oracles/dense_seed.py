"""The seed's isotropic variant written without cells: whole volumes, the wavelet as strided convolutions, the mask multiplied in.

It imports nothing of the package; it only reads the same named weights. Batch norms use their running statistics.
Axes: B batch, C channels, D H W tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from oracles.dense_waveformer import attend, dwt, idwt, linear, norm, rotate


def dense_levels(
    weights: dict[str, Tensor],
    patch: int,
    depth: int,
    heads: int,
    crop_BCDHW: Tensor,
    visible_BDHW: Tensor | None = None,
    sparse: int = 0,
    modality: str = "any",
) -> list[Tensor]:
    """The features at the stride of the patches; with two scales of sparse convolutions also at twice that."""
    cell, size = 2 * patch, crop_BCDHW.shape[2:]
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

    keep = kept(patch)
    weight = weights[f"stems.{modality}.weight"].unflatten(1, (patch, patch, patch, crop.shape[1]))
    x = F.conv3d(crop, weight.permute(0, 4, 1, 2, 3), weights[f"stems.{modality}.bias"], stride=patch) * keep
    positions = torch.cartesian_prod(*[torch.arange(n) for n in grid])
    for j in range(depth):
        name = f"stages.{j}"
        h = norm(x, weights[f"{name}.norm1.weight"], weights[f"{name}.norm1.bias"]) * keep
        low, details = dwt(h)
        tokens = (low / 8**0.5).flatten(2).transpose(1, 2)
        qkv = F.linear(tokens, weights[f"{name}.attention.qkv.weight"], weights[f"{name}.attention.qkv.bias"])
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in qkv.chunk(3, -1))
        out = attend(rotate(q, positions), rotate(k, positions), v, visible_BDHW.flatten(1)).transpose(1, 2).flatten(2)
        out = F.linear(out, weights[f"{name}.attention.project.weight"], weights[f"{name}.attention.project.bias"])
        x = (x + idwt(8**0.5 * out.transpose(1, 2).unflatten(2, grid), details)) * keep
        h = norm(x, weights[f"{name}.norm2.weight"], weights[f"{name}.norm2.bias"])
        h = F.gelu(linear(h, weights[f"{name}.mlp.expand.weight"], weights[f"{name}.mlp.expand.bias"]))
        x = (x + linear(h, weights[f"{name}.mlp.project.weight"], weights[f"{name}.mlp.project.bias"])) * keep
    levels = [norm(x, weights["norm.weight"], weights["norm.bias"]) * keep]

    def part(x: Tensor, name: str, keep: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
        x = F.conv3d(x, weights[f"sparse.{name}.conv.weight"], None, stride, padding)
        shift, spread, scale, bias = (
            weights[f"sparse.{name}.norm.{p}"][:, None, None, None]
            for p in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu((x - shift) / torch.sqrt(spread + 1e-5) * scale + bias) * keep

    if sparse:
        levels = [part(levels[0], "first", keep)]
    if sparse == 2:
        coarse = kept(cell)
        below = part(part(levels[0], "down.0.0", coarse, 2, 0), "down.0.1", coarse)
        raised = F.conv_transpose3d(below, weights["sparse.up.0.weight"], stride=2)
        levels = [part((levels[0] + raised) * keep, "joined.0", keep), below]
    if sparse:
        levels[0] = part(levels[0], "last", keep)
    return [
        level[:, :, : -(-size[0] // s), : -(-size[1] // s), : -(-size[2] // s)]
        for level, s in zip(levels, (patch, cell), strict=False)
    ]
