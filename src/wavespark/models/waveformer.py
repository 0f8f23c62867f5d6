"""WaveFormer: a hierarchical 3-D transformer whose global attention sees one low-pass wavelet token
per cell, computed on visible cells only.

After Hasan et al., "WaveFormer: a 3D transformer with wavelet-driven feature representation for
efficient medical image segmentation" (2025), with its published faults mended: every merge uses all
eight parities, the low-pass gain is normalised, relative positions are exact and free of the crop's
size.
Axes: B batch, C channels, D H W voxels or grid, N visible cells, b tokens along an edge of a cell.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from wavespark.models.blocks import Rotation, WaveletBlock, depth_rates, initialise
from wavespark.models.encoder import Encoder
from wavespark.models.idle import others, with_idle
from wavespark.models.long_wavelets import check_wavelet
from wavespark.models.settings import WaveFormerSettings
from wavespark.sparse import CellLayout, VisibleCells, gather_cells, haar_dwt, split_blocks


class WaveFormer(Encoder):
    """The encoder: voxels of the visible cells in, features at every stride out.

    Parameters and operations of each size stand in `models.catalogue`.

    Example:
        >>> encoder = WaveFormer(WaveFormerSettings(channels=(12, 24), depths=(1, 1), heads=(1, 2)), stems={"MR": 1})
        >>> [tuple(level.shape) for level in encoder(torch.zeros(1, 1, 8, 8, 8))]
        [(1, 12, 4, 4, 4), (1, 24, 2, 2, 2)]
    """

    settings: WaveFormerSettings

    def __init__(self, settings: WaveFormerSettings, stems: Mapping[str, int]) -> None:
        stages = settings.stages
        super().__init__(
            settings, stems, cell=settings.cell, strides=settings.strides, channels=settings.level_channels
        )
        self.stems = nn.ModuleDict({name: nn.Linear(8 * count, settings.channels[0]) for name, count in stems.items()})
        rates = depth_rates(settings.drop_path, sum(settings.depths))
        self.stages = nn.ModuleList()
        self.merges = nn.ModuleList()
        self.norms = nn.ModuleList()
        for i, (channels, depth, heads) in enumerate(
            zip(settings.channels, settings.depths, settings.heads, strict=True)
        ):
            levels = stages - 1 - i
            self.stages.append(
                nn.ModuleList(
                    WaveletBlock(
                        channels,
                        heads,
                        settings.mlp_ratio,
                        rates.pop(0),
                        scales=max(levels - 1, 0) if settings.multi_scale else 0,
                        wavelet=settings.wavelet,
                        levels=levels,
                        recompute=settings.gradient_checkpointing,
                    )
                    for _ in range(depth)
                )
            )
            self.norms.append(nn.LayerNorm(channels))
            if i + 1 < stages:
                self.merges.append(Merge(channels, settings.channels[i + 1]))
        self.apply(initialise)

    def encode(
        self,
        crop_BCDHW: Tensor,
        layout: CellLayout,
        *,
        modality: str | None = None,
        generator: torch.Generator | None = None,
        details: list[list[Tensor]] | None = None,
    ) -> list[VisibleCells]:
        """The visible-only computation: stem, then for every stage blocks, a norm for the level, a
        merge."""
        check_wavelet(self.settings.wavelet, layout)
        x = self._stem(crop_BCDHW, layout, modality)
        rotation = Rotation.of(layout)
        levels = []
        for i, blocks in enumerate(self.stages):
            if i:
                x = self.merges[i - 1](x)
            for j, block in enumerate(blocks):  # type: ignore[arg-type, var-annotated]
                if details is not None and j + 1 == self.settings.depths[i]:
                    details.append(haar_dwt(block.normed(x).features, self.settings.stages - 1 - i)[1])
                x = block(x, rotation, generator)
            levels.append(x.with_features(self.norms[i](x.features)).zero_outside())
        return levels

    def own_parameters(self, level: int) -> Iterable[nn.Parameter]:
        """The norm of the level."""
        return self.norms[level].parameters()

    def _stem(self, crop_BCDHW: Tensor, layout: CellLayout, modality: str | None) -> VisibleCells:
        chosen = self.modality_of(crop_BCDHW, modality)
        tokens = self.stems[chosen](split_blocks(gather_cells(crop_BCDHW, layout, self.cell)))
        tokens = with_idle(tokens, others(self.stems, chosen)) if self.training else tokens
        return VisibleCells(features=tokens, layout=layout).zero_outside()


class Merge(nn.Module):
    """2^3 tokens of a cell become one: all eight side by side, norm, projection."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8 * channels)
        self.project = nn.Linear(8 * channels, out_channels, bias=False)

    def forward(self, x: VisibleCells) -> VisibleCells:
        return x.with_features(self.project(self.norm(split_blocks(x.features)))).zero_outside()
