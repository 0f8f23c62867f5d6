"""The isotropic WaveFormer: one stride throughout, a one-level wavelet in every block, attention on
the low-pass, details untouched.

Block: layer norm, DWT of one level, attention on the low-pass tokens, inverse DWT with the details
as they were, residual; then layer norm, MLP, residual. A cell is 2^3 tokens, so that the wavelet
stays inside it; only visible cells are computed, where the 2025-10 system, whose encoder this is,
encoded the whole volume first.
Axes: B batch, C channels, D H W voxels, N visible cells, b = 2 tokens along an edge of a cell.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from wavespark.models.blocks import Rotation, WaveletBlock, depth_rates, initialise
from wavespark.models.encoder import Encoder
from wavespark.models.idle import others, with_idle
from wavespark.models.settings import IsotropicSettings
from wavespark.models.spark_encoder import SparKEncoder
from wavespark.sparse import CellLayout, VisibleCells, gather_cells


class IsotropicWaveFormer(Encoder):
    """The encoder: voxels of the visible cells in, features at the stride of its patches out (with
    `sparse`, also at twice that).

    Example:
        >>> encoder = IsotropicWaveFormer(IsotropicSettings(patch=4, dim=12, depth=1, heads=2), stems={"MR": 1})
        >>> [tuple(level.shape) for level in encoder(torch.zeros(1, 1, 16, 16, 16))]
        [(1, 12, 4, 4, 4)]
    """

    settings: IsotropicSettings

    def __init__(self, settings: IsotropicSettings, stems: Mapping[str, int]) -> None:
        patch, dim = settings.patch, settings.dim
        super().__init__(
            settings, stems, cell=settings.cell, strides=settings.strides, channels=settings.level_channels
        )
        self.stems = nn.ModuleDict({name: nn.Linear(patch**3 * count, dim) for name, count in stems.items()})
        self.stages = nn.ModuleList(
            WaveletBlock(
                dim,
                settings.heads,
                settings.mlp_ratio,
                rate,
                crosses_cells=False,
                recompute=settings.gradient_checkpointing,
            )
            for rate in depth_rates(settings.drop_path, settings.depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.sparse = SparKEncoder(dim, settings.sparse) if settings.sparse else None
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
        """The visible-only computation: patches, blocks, a norm, the sparse convolutions if there
        are any."""
        x = self._stem(crop_BCDHW, layout, modality)
        rotation = Rotation.of(layout)
        for block in self.stages:
            x = block(x, rotation, generator)
        x = x.with_features(self.norm(x.features)).zero_outside()
        return [x] if self.sparse is None else list(self.sparse(x))

    def own_parameters(self, level: int) -> Iterable[nn.Parameter]:
        """The last convolution of the finest level, where there are two levels."""
        return self.sparse.last.parameters() if self.sparse is not None and level == 0 else ()

    def _stem(self, crop_BCDHW: Tensor, layout: CellLayout, modality: str | None) -> VisibleCells:
        chosen, patch = self.modality_of(crop_BCDHW, modality), self.settings.patch
        voxels = gather_cells(crop_BCDHW, layout, self.cell)
        n, *_, channels = voxels.shape
        patches = voxels.view(n, 2, patch, 2, patch, 2, patch, channels).permute(0, 1, 3, 5, 2, 4, 6, 7)
        tokens = self.stems[chosen](patches.reshape(n, 2, 2, 2, patch**3 * channels))
        tokens = with_idle(tokens, others(self.stems, chosen)) if self.training else tokens
        return VisibleCells(features=tokens, layout=layout).zero_outside()


SeedWaveFormer = IsotropicWaveFormer
"""Former name, kept for code that uses it."""
