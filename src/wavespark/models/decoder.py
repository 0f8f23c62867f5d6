"""From the features of visible cells to voxels of hidden ones: densify at every coarse scale, a few WaveFormer blocks on all cells, shuffle to voxels.

After Tian et al., "Designing BERT for convolutional networks: sparse and hierarchical masked modeling" (SparK, 2023): hidden sites of every scale hold that
scale's mask token. The decoder works at coarse strides only; no tensor of the crop's full resolution is made.
Axes: B batch, G cells of a grid, N visible cells, M predicted cells, b tokens along an edge of a cell, C channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wavespark.errors import ModelError
from wavespark.models.blocks import Rotation, WaveletBlock, check_heads, initialise
from wavespark.shapes import Triple
from wavespark.sparse import CellLayout, VisibleCells, join_blocks


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderSettings:
    """The light decoder; one entry a scale, coarsest (one token a cell) first, each next one at half the stride."""

    widths: tuple[int, ...] = (128, 64)
    depths: tuple[int, ...] = (2, 1)
    heads: tuple[int, ...] = (4, 2)
    mlp_ratio: int = 2

    def __post_init__(self) -> None:
        if not len(self.widths) == len(self.depths) == len(self.heads) >= 1:
            raise ModelError(
                f"widths {self.widths}, depths {self.depths} and heads {self.heads} must name the same scales"
            )
        if min(self.depths) < 0:
            raise ModelError(f"depths {self.depths} must not be negative")
        check_heads(self.widths, self.heads)


class Densify(nn.Module):
    """Visible features to all cells: norm, the mask token where hidden, projection."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(channels), std=0.02))
        self.project = nn.Linear(channels, width)

    def spread(self, level: VisibleCells, everywhere: CellLayout) -> VisibleCells:
        """The normed features on all cells; hidden ones hold exactly zero."""
        zeros = level.features.new_zeros(len(everywhere), *level.features.shape[1:])
        rows = everywhere.rows_of(level.cells)
        return VisibleCells(
            features=zeros.index_copy(0, rows, self.norm(level.features).to(zeros.dtype)), layout=everywhere
        )

    def forward(self, level: VisibleCells, everywhere: CellLayout) -> VisibleCells:
        dense = self.spread(level, everywhere)
        hidden = dense.features.new_ones(len(everywhere)).index_fill(0, everywhere.rows_of(level.cells), 0)
        filled = dense.features + hidden[:, None, None, None, None] * self.mask_token
        return dense.with_features(self.project(filled)).zero_outside()


class LightDecoder(nn.Module):
    """Densified features of the coarse scales to the voxels of chosen cells.

    Args:
        channels: of the encoder's levels, finest first.
        cell: voxels of a cell.
        outputs: channels of the voxels for each modality.
        settings: widths and depths; as many scales are used as it names.
    """

    def __init__(
        self, channels: tuple[int, ...], cell: Triple, outputs: dict[str, int], settings: DecoderSettings
    ) -> None:
        super().__init__()
        scales = len(settings.widths)
        if scales > len(channels):
            raise ModelError(f"the decoder names {scales} scale(s), the encoder has {len(channels)}")
        self.cell = cell
        self.outputs = outputs
        self.position = CellPosition(settings.widths[0])
        self.densify = nn.ModuleList(
            Densify(c, w) for c, w in zip(reversed(channels[-scales:]), settings.widths, strict=True)
        )
        self.upsample = nn.ModuleList(
            nn.Linear(a, 8 * b) for a, b in zip(settings.widths, settings.widths[1:], strict=False)
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(WaveletBlock(w, h, settings.mlp_ratio, 0.0) for _ in range(d))
            for w, d, h in zip(settings.widths, settings.depths, settings.heads, strict=True)
        )
        self.norm = nn.LayerNorm(settings.widths[-1])
        self.voxels_per_token = (cell[0] * cell[1] * cell[2]) // 8 ** (scales - 1)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(settings.widths[-1], self.voxels_per_token * count) for name, count in outputs.items()}
        )
        self.apply(initialise)

    def forward(self, levels: list[VisibleCells], predicted_BDHW: Tensor, modality: str) -> Tensor:
        """The voxels of the predicted cells.

        Args:
            levels: the encoder's, finest first.
            predicted_BDHW: bool, which cells to predict, in the order of `nonzero()`.
            modality: which head.

        Returns:
            [M, c, c, c, channels of the modality].
        """
        layout = levels[-1].layout
        everywhere = layout.everywhere()
        rotation = Rotation.of(everywhere)
        coarse_first = levels[::-1]
        x = self.densify[0](coarse_first[0], everywhere)
        x = x.with_features(x.features + self.position(everywhere)[:, None, None, None])
        for scale, blocks in enumerate(self.stages):
            if scale:
                finer = join_blocks(self.upsample[scale - 1](x.features))
                x = x.with_features(
                    finer + self.densify[scale](coarse_first[scale], everywhere).features
                ).zero_outside()
            for block in blocks:  # type: ignore[union-attr, attr-defined]
                x = block(x, rotation, None)
        chosen = predicted_BDHW.flatten().nonzero()[:, 0].to(x.features.device)
        tokens = self.heads[modality](self.norm(x.features[chosen]))
        for name, head in self.heads.items():  # an idle head joins the graph with an exact zero
            if name != modality and self.training:
                tokens = tokens + 0 * sum(p.sum() for p in head.parameters())
        return self._shuffle(tokens, self.outputs[modality])

    def _shuffle(self, tokens_MbbbV: Tensor, channels: int) -> Tensor:
        m, d, h, w, _ = tokens_MbbbV.shape
        sd, sh, sw = (c // b for c, b in zip(self.cell, (d, h, w), strict=True))
        voxels = tokens_MbbbV.view(m, d, h, w, sd, sh, sw, channels).permute(0, 1, 4, 2, 5, 3, 6, 7)
        return voxels.reshape(m, *self.cell, channels)


class CellPosition(nn.Module):
    """Where a cell lies in the crop, so that mask tokens of different cells differ: fixed sines and cosines, projected; free of the crop's size."""

    FREQUENCIES = 6

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(6 * self.FREQUENCIES, width)

    def forward(self, layout: CellLayout) -> Tensor:
        """[G, width] for the cells of the layout."""
        frequency = torch.pi / 2.0 ** torch.arange(
            1, self.FREQUENCIES + 1, device=layout.cells.device, dtype=torch.float64
        )
        angle = (layout.cells[:, 1:, None] * frequency).flatten(1)
        waves = torch.cat((angle.sin(), angle.cos()), 1).to(self.project.weight.dtype)
        result: Tensor = self.project(waves)
        return result
