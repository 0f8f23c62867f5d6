"""The published decoder of WaveFormer: an inverse wavelet transform from the coarsest level to
every finer one, with the encoder's own details.

After Hasan et al. (2025). What differs: the low-pass is brought to the gain of the transform (as in
the encoder); the calibration keeps the coarsest grid instead of pooling it to 4^3, and squeezes
from before its norm, after which every mean is zero; levels are lifted to the finest one by
transposed convolutions of kernel = stride; any crop size. Parameters of `waveformer_small` with 4
channels in and 4 classes: 17.28 M (encoder 5.69 M, without the published tables of relative
positions); published: 17.17 M (5.99 M).
Axes: B batch, C channels, D H W voxels or tokens, N cells.
"""

import torch
from torch import Tensor, nn

from wavespark.models.dense_blocks import ChannelCalibration, ResidualBlock, cropped
from wavespark.models.idle import others, with_idle
from wavespark.sparse import haar_idwt


class WaveletDecoder(nn.Module):
    """Features of every level, and the details of every stage's last block, to logits.

    Args:
        channels: channels of the levels, finest (stride 2) first.
        strides: voxels per token of the levels.
        stems: channels of a crop for each modality.
        outputs: channels of the logits.
    """

    def __init__(
        self, channels: tuple[int, ...], strides: tuple[int, ...], stems: dict[str, int], outputs: int
    ) -> None:
        super().__init__()
        finest, coarsest = channels[0], channels[-1]
        self.voxels = nn.ModuleDict({name: ResidualBlock(count, finest) for name, count in stems.items()})
        self.skips = nn.ModuleList(ResidualBlock(c, c) for c in channels[:-1])
        self.calibrate = ChannelCalibration(coarsest)
        self.low_pass = nn.ModuleList(nn.Conv3d(coarsest, c, 3, padding=1, bias=False) for c in channels[:-1])
        self.fuse = nn.ModuleList(ResidualBlock(2 * c, c) for c in channels[:-1])
        self.lift = nn.ModuleList(
            nn.ConvTranspose3d(c, finest, 2**i, stride=2**i, bias=False) for i, c in enumerate(channels[:-1]) if i
        )
        self.up = nn.ConvTranspose3d(finest * max(1, len(channels) - 1), finest, 2, stride=2, bias=False)
        self.last = ResidualBlock(2 * finest, finest)
        self.out = nn.Conv3d(finest, outputs, 1)

    def forward(self, crop_BCDHW: Tensor, levels: list[Tensor], details: list[list[Tensor]], modality: str) -> Tensor:
        """[B, outputs, D, H, W].

        Args:
            crop_BCDHW: the voxels; what must not be seen is zero.
            levels: dense, finest first.
            details: wavelet details of each stage, coarsest scale first, [N, 7, b, b, b, C] for all
                N cells.
            modality: modality of the crop.
        """
        coarsest = self.calibrate(levels[-1])
        rebuilt = []
        for i, level in enumerate(levels[:-1]):
            back = self._inverse(self.low_pass[i](coarsest), details[i], level.shape[2:])
            rebuilt.append(self.fuse[i](torch.cat((back, self.skips[i](level)), 1)))
        size = levels[0].shape[2:]
        lifted = [cropped(lift(x), size) for lift, x in zip(self.lift, rebuilt[1:], strict=True)]
        finest = torch.cat((*lifted[::-1], *rebuilt[:1]), 1) if rebuilt else coarsest
        x = cropped(self.up(finest), crop_BCDHW.shape[2:])
        voxels = self.voxels[modality](crop_BCDHW)
        if self.training:
            voxels = with_idle(voxels, others(self.voxels, modality))
        logits: Tensor = self.out(self.last(torch.cat((x, voxels), 1)))
        return logits

    @staticmethod
    def _inverse(low_BCDHW: Tensor, details: list[Tensor], size: torch.Size) -> Tensor:
        """[B, C, *size]: the inverse transform cell by cell; the low-pass comes at the scale of a
        token."""
        batch, channels, *grid = low_BCDHW.shape
        tokens = low_BCDHW.permute(0, 2, 3, 4, 1).reshape(-1, 1, 1, 1, channels)
        cells = haar_idwt(tokens * 2 ** (1.5 * len(details)), details)
        b = cells.shape[1]
        whole = cells.view(batch, *grid, b, b, b, channels).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return cropped(whole.reshape(batch, channels, *(b * g for g in grid)), size)
