"""The decoder of nnU-Net (Isensee et al., 2021; its parameter names): transposed convolutions up,
concatenated skips, convolutions.

Where the encoder's finest level is coarser than voxels, the missing scales have no skip but the
last, which sees the voxels.
Axes: B batch, C channels, D H W voxels or tokens.
"""

from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from wavespark.errors import ModelError
from wavespark.models.dense_blocks import ConvNorm, ResidualBlock, cropped
from wavespark.models.idle import others, with_idle
from wavespark.shapes import ceil_div


class UNetDecoder(nn.Module):
    """Features of every level to logits.

    Args:
        channels: channels of the levels, finest first.
        strides: voxels per token of the levels.
        stems: channels of a crop for each modality.
        outputs: channels of the logits.
        convolutions: in each stage.
        deep_supervision: logits of every scale in training, finest first.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        stems: dict[str, int],
        outputs: int,
        convolutions: int = 1,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        if convolutions < 1:
            raise ModelError(f"convolutions {convolutions}: at least 1 in each stage")
        self.deep_supervision = deep_supervision
        widths, self.steps = list(channels[::-1]), [a // b for a, b in pairwise(strides[::-1])]
        skips, stride = list(channels[-2::-1]), strides[0]
        while stride > 1:
            step = 2 if stride % 2 == 0 else stride
            stride //= step
            width = max(16, widths[-1] // 2)
            widths.append(width)
            self.steps.append(step)
            skips.append(width if stride == 1 else 0)
        self.sees_voxels = strides[0] > 1
        self.voxels = nn.ModuleDict(
            {name: ResidualBlock(count, widths[-1]) for name, count in stems.items()} if self.sees_voxels else {}
        )
        self.transpconvs, self.stages, self.seg_layers = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for (below, width), skip, step in zip(pairwise(widths), skips, self.steps, strict=True):
            self.transpconvs.append(nn.ConvTranspose3d(below, width, step, stride=step))
            self.stages.append(_Stage(width + skip, width, convolutions))
            self.seg_layers.append(nn.Conv3d(width, outputs, 1))

    def forward(
        self, crop_BCDHW: Tensor, levels: list[Tensor], details: list[list[Tensor]], modality: str
    ) -> Tensor | list[Tensor]:
        """[B, outputs, D, H, W]; with deep supervision in training a list of them, finest first,
        each at its own stride.

        Args:
            crop_BCDHW: the voxels; what must not be seen is zero.
            levels: dense, finest first.
            details: not used.
            modality: modality of the crop.
        """
        _, _, d, h, w = crop_BCDHW.shape
        x, skips, logits = levels[-1], levels[-2::-1], []
        stride, last = prod(self.steps), len(self.stages) - 1
        for i, (up, stage, head, step) in enumerate(
            zip(self.transpconvs, self.stages, self.seg_layers, self.steps, strict=True)
        ):
            stride //= step
            x = cropped(up(x), ceil_div((d, h, w), (stride,) * 3))
            if i < len(skips):
                x = torch.cat((x, skips[i]), 1)
            elif i == last and self.sees_voxels:
                x = torch.cat((x, self._voxels(crop_BCDHW, modality)), 1)
            x = stage(x)
            if i == last or (self.deep_supervision and self.training):
                logits.append(head(x))
            elif self.training:
                x = with_idle(x, head.parameters())
        return logits[::-1] if self.deep_supervision and self.training else logits[-1]

    def _voxels(self, crop_BCDHW: Tensor, modality: str) -> Tensor:
        voxels: Tensor = self.voxels[modality](crop_BCDHW)
        return with_idle(voxels, others(self.voxels, modality)) if self.training else voxels


class _Stage(nn.Module):
    """Convolutions one after the other; `convs` as nnU-Net names them."""

    def __init__(self, channels: int, out_channels: int, convolutions: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            ConvNorm(channels if i == 0 else out_channels, out_channels) for i in range(convolutions)
        )

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        for conv in self.convs:
            x_BCDHW = conv(x_BCDHW)
        return x_BCDHW
