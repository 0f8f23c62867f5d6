"""A plain dense copy of a ResEnc: `nn.Conv3d`, `nn.InstanceNorm3d`, whole volumes, as nnU-Net runs
it. Shares the encoder's weights.

Axes: B batch, C channels, D H W voxels or tokens.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from wavespark.errors import ShapeError
from wavespark.models import ResEnc


class DenseResEnc(nn.Module):
    """The levels of `encoder` for whole crops, [B, D, H, W, C], finest first.

    Args:
        encoder: with a single stem.

    Raises:
        ShapeError: in the forward pass, if the crop is not made of whole cells.
    """

    def __init__(self, encoder: ResEnc) -> None:
        super().__init__()
        self.cell = encoder.cell
        (stem,) = encoder.named_stems().values()
        self.stem = _dense(stem.convs[0], 1)  # type: ignore[union-attr, index]
        self.stages = nn.ModuleList()
        for i, stage in enumerate(encoder.stages):
            blocks = enumerate(stage.blocks)  # type: ignore[arg-type]
            self.stages.append(nn.Sequential(*(_Block(block, 2 if i and not j else 1) for j, block in blocks)))

    def forward(self, crop_BCDHW: Tensor) -> list[Tensor]:
        """The features of every level."""
        if any(s % c for s, c in zip(crop_BCDHW.shape[2:], self.cell, strict=True)):
            raise ShapeError(f"the dense copy takes whole cells of {self.cell}, the crop is {crop_BCDHW.shape}")
        x, levels = F.leaky_relu(self.stem(crop_BCDHW), 0.01), []
        for stage in self.stages:
            x = stage(x)
            levels.append(x.permute(0, 2, 3, 4, 1))
        return levels


class _Block(nn.Module):
    def __init__(self, block: Any, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            _dense(block.conv1, stride), nn.LeakyReLU(0.01, inplace=True), _dense(block.conv2, 1)
        )
        self.skip = nn.Sequential(
            *([nn.AvgPool3d(2)] if stride == 2 else []),
            *(_dense(part, 1, padding=0) for part in block.skip if hasattr(part, "conv")),
        )

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        return F.leaky_relu(self.branch(x_BCDHW) + self.skip(x_BCDHW), 0.01, inplace=True)


def _dense(part: Any, stride: int, padding: int = 1) -> nn.Sequential:
    out, channels, kernel = part.conv.weight.shape[:3]
    conv = nn.Conv3d(channels, out, kernel, stride, padding, bias=part.conv.bias is not None)
    conv.weight = part.conv.weight
    conv.bias = part.conv.bias
    norm = nn.InstanceNorm3d(out, affine=True)
    norm.weight, norm.bias = part.norm.weight, part.norm.bias
    return nn.Sequential(conv, norm)
