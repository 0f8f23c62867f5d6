"""A plain U-Net as the control that a user would train first: convolutions, instance norm, leaky
ReLU, max pooling, nothing pre-trained.

The layers and widths are those of MONAI's `BasicUNet` (after Falk et al., "U-Net: deep learning for
cell counting", Nature Methods 16, 2019) with the features 16, 16, 32, 64, 128, 16: 1.4 million
parameters. Axes: B batch, C channels, D H W voxels or tokens, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavespark.models import Encoder
from wavespark.models.dense_blocks import InstanceNorm, cropped
from wavespark.shapes import as_triple, ceil_div
from wavespark.sparse import CellLayout, VisibleCells, gather_cells

WIDTHS = (16, 16, 32, 64, 128)
"""Channels at strides 1, 2, 4, 8, 16; the last stage of the decoder is as wide as the first of the
encoder."""

_SLOPE = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainSettings:
    """The shape of a plain U-Net."""

    widths: tuple[int, ...] = WIDTHS
    """Channels at strides 1, 2, 4, ..., finest first."""


class PlainEncoder(Encoder):
    """The contracting path of a plain U-Net.

    It computes whole crops; hidden cells are left out of its output only.

    Args:
        stems: channels of a crop for each modality.
        settings: widths.
    """

    settings: PlainSettings

    def __init__(self, stems: Mapping[str, int], settings: PlainSettings | None = None) -> None:
        settings = settings or PlainSettings()
        widths = settings.widths
        strides = tuple(2**i for i in range(len(widths)))
        super().__init__(settings, stems, cell=strides[-1], strides=strides, channels=widths)
        self.stems = nn.ModuleDict({name: _conv_norm(count, widths[0]) for name, count in stems.items()})
        self.first = _conv_norm(widths[0], widths[0])
        self.stages = nn.ModuleList(_two_convs(a, b) for a, b in pairwise(widths))

    def dense_levels(self, crop_BCDHW: Tensor, modality: str | None) -> list[Tensor]:
        """Features [B, C, D, H, W] of every level, finest first, of the crop padded with zeros to
        whole cells."""
        size = crop_BCDHW.shape[2:]
        missing = [n * c - s for s, n, c in zip(size, ceil_div(size, self.cell), self.cell, strict=True)]
        padded = F.pad(crop_BCDHW, (0, missing[2], 0, missing[1], 0, missing[0]))
        x = self.first(self.stems[self.modality_of(crop_BCDHW, modality)](padded))
        levels = [x]
        for stage in self.stages:
            x = stage(F.max_pool3d(x, 2))
            levels.append(x)
        return levels

    def encode(
        self,
        crop_BCDHW: Tensor,
        layout: CellLayout,
        *,
        modality: str | None = None,
        generator: torch.Generator | None = None,
        details: list[list[Tensor]] | None = None,
    ) -> list[VisibleCells]:
        """Every level of the whole crop, cut into its visible cells."""
        levels = []
        for dense, stride in zip(self.dense_levels(crop_BCDHW, modality), self.strides, strict=True):
            block = as_triple(self.cell[0] // stride)
            inside = cropped(dense, ceil_div(layout.size, layout.stride(block)))
            levels.append(VisibleCells(features=gather_cells(inside, layout, block), layout=layout))
        return levels


class PlainUNet(nn.Module):
    """Logits of every voxel: `forward(crop, modality)` -> [B, K, D, H, W].

    Args:
        encoder: the contracting path.
        classes: channels of the logits.
    """

    def __init__(self, encoder: PlainEncoder, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        widths = encoder.channels
        self.ups, self.stages = nn.ModuleList(), nn.ModuleList()
        for fine, coarse in zip(widths[-2::-1], widths[:0:-1], strict=True):
            # The finest stage keeps the width of what comes from below, as in BasicUNet.
            width = coarse if fine == widths[0] and len(self.ups) == len(widths) - 2 else coarse // 2
            self.ups.append(nn.ConvTranspose3d(coarse, width, 2, stride=2))
            self.stages.append(_two_convs(fine + width, fine))
        self.out = nn.Conv3d(widths[0], classes, 1)

    def forward(self, crop_BCDHW: Tensor, modality: str | None = None) -> Tensor:
        """Logits [B, K, D, H, W]; any size."""
        *skips, x = self.encoder.dense_levels(crop_BCDHW, modality)
        for up, stage, skip in zip(self.ups, self.stages, skips[::-1], strict=True):
            x = stage(torch.cat((skip, up(x)), 1))
        logits: Tensor = self.out(cropped(x, crop_BCDHW.shape[2:]))
        return logits


def plain_encoder(stems: Mapping[str, int], seed: int) -> PlainEncoder:
    """A fresh contracting path whose weights depend on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PlainEncoder(stems)


def _conv_norm(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(channels, width, 3, padding=1), InstanceNorm(width), nn.LeakyReLU(_SLOPE))


def _two_convs(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(_conv_norm(channels, width), _conv_norm(width, width))
