"""A plain dense copy of a WaveFormer: what one would write without cells, as fast as plain PyTorch
makes it.

Whole volumes, tokens with the channels last, `nn.Conv3d` for the depthwise convolution, the
low-pass token as a mean over its cell, no masks and no gathering. It is the yardstick of the speed
of visible cells, so it must not be slow on purpose: the weights are the encoder's own tensors, and
the order of the axes is the faster of the two that `nn.Conv3d` knows.
Axes: B batch, C channels, D H W tokens, G cells along an axis, E heads, L cells.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavespark.errors import ShapeError
from wavespark.models import WaveFormer
from wavespark.models.blocks import Rotation, WaveletBlock


class DenseWaveFormer(nn.Module):
    """The levels of `encoder` for whole crops, [B, D, H, W, C], finest first; shares its weights.

    Args:
        encoder: with a single stem.

    Raises:
        ShapeError: in the forward pass, if the crop is not made of whole cells.
    """

    def __init__(self, encoder: WaveFormer) -> None:
        super().__init__()
        (stem,) = encoder.stems.values()
        self.encoder = encoder
        self.stem = stem
        self.convolutions = nn.ModuleDict()
        for i, j, block in self._blocks():
            old: Any = block.mlp.depthwise
            new = nn.Conv3d(len(old.bias), len(old.bias), 3, padding=1, groups=len(old.bias))
            new.weight, new.bias = old.weight, old.bias
            self.convolutions[f"{i}-{j}"] = new

    def _blocks(self) -> Iterable[tuple[int, int, WaveletBlock]]:
        for i, blocks in enumerate(self.encoder.stages):
            for j, block in enumerate(blocks):  # type: ignore[arg-type, var-annotated]
                yield i, j, block

    def forward(self, crop_BCDHW: Tensor) -> list[Tensor]:
        """The features of every level."""
        if any(s % c for s, c in zip(crop_BCDHW.shape[2:], self.encoder.cell, strict=True)):
            raise ShapeError(f"the dense copy takes whole cells of {self.encoder.cell}, the crop is {crop_BCDHW.shape}")
        x = self.stem(_side_by_side(crop_BCDHW.permute(0, 2, 3, 4, 1)))
        tokens = self.encoder.cell[0] // 2
        grid = [n // tokens for n in x.shape[1:4]]
        rotation = Rotation(cells_N3=torch.cartesian_prod(*[torch.arange(n, device=x.device) for n in grid]))
        levels, stage = [], 0
        for i, j, block in self._blocks():
            if i > stage:
                levels.append(self.encoder.norms[stage](x))
                merge: Any = self.encoder.merges[stage]
                x, stage, tokens = merge.project(merge.norm(_side_by_side(x))), i, tokens // 2
            x = self._block(x, block, self.convolutions[f"{i}-{j}"], tokens, rotation)
        return [*levels, self.encoder.norms[stage](x)]

    def _block(self, x: Tensor, block: WaveletBlock, conv: nn.Module, tokens: int, rotation: Rotation) -> Tensor:
        h = block.norm1(x)
        b, d, h_, w, c = h.shape
        cells = h.view(b, d // tokens, tokens, h_ // tokens, tokens, w // tokens, tokens, c)
        mean = cells.mean((2, 4, 6), keepdim=True)
        update = _attend(mean.flatten(1, -2), block, rotation).view_as(mean)
        x = x + (cells + (update - mean)).view_as(x)
        mlp: Any = block.mlp
        h = F.gelu(mlp.norm1(mlp.expand(block.norm2(x))))
        h = conv(h.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
        return x + mlp.project(F.gelu(mlp.norm2(h)))


def _attend(tokens_BLC: Tensor, block: WaveletBlock, rotation: Rotation) -> Tensor:
    attention = block.attention
    batch, cells, channels = tokens_BLC.shape
    q, k, v = attention.qkv(tokens_BLC).view(batch, cells, 3, attention.heads, channels // attention.heads).unbind(2)
    q, k = (torch.stack([rotation.turn(sample) for sample in t]) for t in (q, k))
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v)
    result: Tensor = attention.project(out.transpose(1, 2).flatten(2))
    return result


def _side_by_side(x_BDHWC: Tensor) -> Tensor:
    """[B, D/2, H/2, W/2, 8C]: the eight tokens of every 2^3 block."""
    b, d, h, w, c = x_BDHWC.shape
    blocks = x_BDHWC.reshape(b, d // 2, 2, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 5, 2, 4, 6, 7)
    return blocks.reshape(b, d // 2, h // 2, w // 2, 8 * c)
