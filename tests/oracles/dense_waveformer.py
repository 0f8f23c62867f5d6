"""A dense WaveFormer in plain PyTorch, written from the published description.

Whole volumes, explicit wavelets, explicit softmax. It shares no code with the package; it only reads the same named
weights. With `visible` it multiplies by the mask after every operation and masks keys in the attention, which is what
the package must equal although it never holds a hidden token.
Axes: B batch, C channels, D H W tokens, L cells, E heads.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

HAAR = ((1 / math.sqrt(2), 1 / math.sqrt(2)), (1 / math.sqrt(2), -1 / math.sqrt(2)))


def haar_filters(like: Tensor) -> Tensor:
    """[8, 1, 2, 2, 2]: the separable filters of one level, `aaa` first."""
    rows = [like.new_tensor(row) for row in HAAR]
    return torch.stack([torch.einsum("i,j,k->ijk", a, b, c) for a in rows for b in rows for c in rows])[:, None]


def dwt(x: Tensor) -> tuple[Tensor, Tensor]:
    """One level over the volume: approximation [B, C, D/2, ..] and details [B, 7 C, D/2, ..]."""
    channels = x.shape[1]
    bands = F.conv3d(x, haar_filters(x).repeat(channels, 1, 1, 1, 1), stride=2, groups=channels).unflatten(
        1, (channels, 8)
    )
    return bands[:, :, 0], bands[:, :, 1:].flatten(1, 2)


def idwt(approximation: Tensor, details: Tensor) -> Tensor:
    """The inverse of `dwt`."""
    channels = approximation.shape[1]
    bands = torch.cat((approximation[:, :, None], details.unflatten(1, (channels, 7))), 2).flatten(1, 2)
    return F.conv_transpose3d(bands, haar_filters(bands).repeat(channels, 1, 1, 1, 1), stride=2, groups=channels)


def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Layer normalisation over the channels of [B, C, D, H, W]."""
    centred = x - x.mean(1, keepdim=True)
    scaled = centred / torch.sqrt(centred.square().mean(1, keepdim=True) + 1e-5)
    return scaled * weight[:, None, None, None] + bias[:, None, None, None]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1^3 convolution."""
    return F.conv3d(x, weight[:, :, None, None, None], bias)


def rotate(x_BELC: Tensor, positions_L3: Tensor) -> Tensor:
    """Rotary positions as a product of complex numbers: pairs of channels, first those of d, then h, then w."""
    pairs = x_BELC.shape[-1] // 6
    wavelengths = [128 / 32 ** (k / max(pairs - 1, 1)) for k in range(pairs)]
    angles = torch.stack(
        [2 * math.pi * positions_L3[:, axis].double() / n for axis in range(3) for n in wavelengths], -1
    )
    turns = torch.polar(torch.ones_like(angles), angles).to(
        torch.complex128 if x_BELC.dtype == torch.float64 else torch.complex64
    )
    turned = (
        torch.complex(x_BELC[..., : 3 * pairs].contiguous(), x_BELC[..., 3 * pairs : 6 * pairs].contiguous()) * turns
    )
    return torch.cat((turned.real, turned.imag, x_BELC[..., 6 * pairs :]), -1)


def attend(q_BELC: Tensor, k_BELC: Tensor, v_BELC: Tensor, visible_BL: Tensor) -> Tensor:
    """Softmax attention in which hidden keys weigh exp(-inf)."""
    scores = torch.einsum("beic,bejc->beij", q_BELC, k_BELC) / math.sqrt(q_BELC.shape[-1])
    scores = scores.masked_fill(~visible_BL[:, None, None, :], -torch.inf)
    return torch.einsum("beij,bejc->beic", scores.softmax(-1), v_BELC)


def dense_levels(
    weights: dict[str, Tensor],
    depths: tuple[int, ...],
    heads: tuple[int, ...],
    crop_BCDHW: Tensor,
    visible_BDHW: Tensor | None = None,
    modality: str = "any",
    multi_scale: bool = False,
) -> list[Tensor]:
    """The features of every level, finest first, [B, C, ceil(size / stride)]; zero where hidden."""
    stages = len(depths)
    cell = 2**stages
    size = crop_BCDHW.shape[2:]
    beyond = [-s % cell for s in size]
    x = F.pad(crop_BCDHW, (0, beyond[2], 0, beyond[1], 0, beyond[0]))
    grid = tuple(n // cell for n in x.shape[2:])
    if visible_BDHW is None:
        visible_BDHW = torch.ones(len(x), *grid, dtype=torch.bool)

    def kept(stride: int) -> Tensor:
        """[B, 1, D, H, W]: 1 at tokens that are visible and hold a voxel of the crop."""
        times = cell // stride
        mask = visible_BDHW[:, None].repeat_interleave(times, 2).repeat_interleave(times, 3).repeat_interleave(times, 4)
        for axis in range(3):
            token = torch.arange(mask.shape[axis + 2]).view(-1, *[1] * (2 - axis))
            mask = mask & (token * stride < size[axis])
        return mask.to(x.dtype)

    def low_pass_attention(h: Tensor, levels: int, name: str, number_of_heads: int) -> Tensor:
        """h with its low-pass band, brought to the scale of a token, replaced by attention between the cells."""
        details = []
        for _ in range(levels):
            h, detail = dwt(h)
            details.append(detail)
        gain = 2 ** (1.5 * levels)
        tokens = (h / gain).flatten(2).transpose(1, 2)
        positions = torch.cartesian_prod(*[torch.arange(n) for n in grid])
        qkv = F.linear(tokens, weights[f"{name}.qkv.weight"], weights[f"{name}.qkv.bias"])
        q, k, v = (t.unflatten(-1, (number_of_heads, -1)).transpose(1, 2) for t in qkv.chunk(3, -1))
        out = attend(rotate(q, positions), rotate(k, positions), v, visible_BDHW.flatten(1)).transpose(1, 2).flatten(2)
        out = F.linear(out, weights[f"{name}.project.weight"], weights[f"{name}.project.bias"])
        h = gain * out.transpose(1, 2).unflatten(2, grid)
        for detail in reversed(details):
            h = idwt(h, detail)
        return h

    def within_cells(h: Tensor, levels: int, name: str, number_of_heads: int) -> Tensor:
        """The sum over finer scales of what attention inside each cell finds, as a low-pass without details."""
        total = torch.zeros_like(h)
        for scale in range(max(levels - 1, 0)):
            edge, halvings = 2 ** (scale + 1), levels - scale - 1
            low = h
            for _ in range(halvings):
                low = dwt(low)[0]
            gain = 2 ** (1.5 * halvings)
            batch, channels = low.shape[:2]
            cut = (low / gain).view(batch, channels, grid[0], edge, grid[1], edge, grid[2], edge)
            tokens = cut.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(-1, edge**3, channels)
            there = kept(cell // edge).view(batch, 1, grid[0], edge, grid[1], edge, grid[2], edge)
            there = there.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(-1, edge**3) > 0
            there = there | ~there.any(1, keepdim=True)  # hidden cells are multiplied by zero in the end
            positions = torch.cartesian_prod(*[torch.arange(edge)] * 3)
            inner = f"{name}.{scale}"
            qkv = F.linear(tokens, weights[f"{inner}.qkv.weight"], weights[f"{inner}.qkv.bias"])
            q, k, v = (t.unflatten(-1, (number_of_heads, -1)).transpose(1, 2) for t in qkv.chunk(3, -1))
            out = attend(rotate(q, positions), rotate(k, positions), v, there).transpose(1, 2).flatten(2)
            out = F.linear(out, weights[f"{inner}.project.weight"], weights[f"{inner}.project.bias"])
            out = out.view(batch, *grid, edge, edge, edge, channels).permute(0, 7, 1, 4, 2, 5, 3, 6)
            total = total + F.interpolate(
                out.reshape(batch, channels, *(g * edge for g in grid)), scale_factor=2**halvings, mode="nearest"
            )
        return total

    weight = weights[f"stems.{modality}.weight"]
    kernel = weight.unflatten(1, (2, 2, 2, crop_BCDHW.shape[1])).permute(0, 4, 1, 2, 3)
    x = F.conv3d(x, kernel, weights[f"stems.{modality}.bias"], stride=2) * kept(2)
    found = []
    for i in range(stages):
        stride = 2 ** (i + 1)
        if i:
            parities = [x[:, :, a::2, b::2, c::2] for a in (0, 1) for b in (0, 1) for c in (0, 1)]
            merged = norm(
                torch.cat(parities, 1), weights[f"merges.{i - 1}.norm.weight"], weights[f"merges.{i - 1}.norm.bias"]
            )
            x = linear(merged, weights[f"merges.{i - 1}.project.weight"], None) * kept(stride)
        for j in range(depths[i]):
            name = f"stages.{i}.{j}"
            h = norm(x, weights[f"{name}.norm1.weight"], weights[f"{name}.norm1.bias"]) * kept(stride)
            update = low_pass_attention(h, stages - 1 - i, f"{name}.attention", heads[i])
            if multi_scale:
                update = update + within_cells(h, stages - 1 - i, f"{name}.inner", heads[i])
            x = (x + update) * kept(stride)
            h = norm(x, weights[f"{name}.norm2.weight"], weights[f"{name}.norm2.bias"])
            h = linear(h, weights[f"{name}.mlp.expand.weight"], weights[f"{name}.mlp.expand.bias"])
            h = F.gelu(norm(h, weights[f"{name}.mlp.norm1.weight"], weights[f"{name}.mlp.norm1.bias"])) * kept(stride)
            h = F.conv3d(
                h,
                weights[f"{name}.mlp.depthwise.weight"],
                weights[f"{name}.mlp.depthwise.bias"],
                padding=1,
                groups=h.shape[1],
            )
            h = F.gelu(norm(h, weights[f"{name}.mlp.norm2.weight"], weights[f"{name}.mlp.norm2.bias"]))
            x = (x + linear(h, weights[f"{name}.mlp.project.weight"], weights[f"{name}.mlp.project.bias"])) * kept(
                stride
            )
        level = norm(x, weights[f"norms.{i}.weight"], weights[f"norms.{i}.bias"]) * kept(stride)
        found.append(level[:, :, : -(-size[0] // stride), : -(-size[1] // stride), : -(-size[2] // stride)])
    return found
