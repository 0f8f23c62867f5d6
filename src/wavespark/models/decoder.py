"""From the features of visible cells to voxels of hidden ones: densify at every coarse scale, a few
blocks, shuffle to voxels.

After Tian et al., "Designing BERT for convolutional networks: sparse and hierarchical masked
modeling" (SparK, 2023): hidden sites of every scale hold that scale's mask token. The decoder works
at coarse strides only; no tensor of the crop's full resolution is made.
Axes: B batch, G cells of a grid, N visible cells, M predicted cells, b tokens along an edge of a
cell, C channels.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavespark.errors import ModelError
from wavespark.models.blocks import LocalBlock, Rotation, WaveletBlock, initialise
from wavespark.models.densify import Densify
from wavespark.models.idle import others, with_idle
from wavespark.models.settings import DecoderSettings
from wavespark.shapes import Triple
from wavespark.sparse import CellLayout, VisibleCells, join_blocks


class LightDecoder(nn.Module):
    """Densified features of the coarse scales to the voxels of chosen cells.

    Scales without attention are computed only for the predicted cells and the neighbours that they
    read, which is exact.

    Args:
        channels: channels of the encoder's levels, finest first.
        strides: voxels per token of the encoder's levels.
        cell: voxels of a cell.
        outputs: channels of the voxels for each modality.
        settings: widths and depths; as many scales are used as it names.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        cell: Triple,
        outputs: dict[str, int],
        settings: DecoderSettings,
    ) -> None:
        super().__init__()
        self.scales = scales = len(settings.widths)
        if scales > len(channels):
            raise ModelError(f"the decoder names {scales} scale(s), the encoder has {len(channels)}")
        self.cell = cell
        self.outputs = outputs
        self.reach = self._reach(settings, cell[0] // strides[-1])
        self.position = TokenPosition(settings.widths[0])
        self.densify = nn.ModuleList(
            Densify(c, w, settings.densify_kernel if i else 1)
            for i, (c, w) in enumerate(zip(channels[: -scales - 1 : -1], settings.widths, strict=True))
        )
        self.upsample = nn.ModuleList(nn.Linear(a, 8 * b) for a, b in pairwise(settings.widths))
        self.stages = nn.ModuleList(
            nn.ModuleList(
                WaveletBlock(w, h, settings.mlp_ratio, 0.0) if h else LocalBlock(w, settings.mlp_ratio)
                for _ in range(d)
            )
            for w, d, h in zip(settings.widths, settings.depths, settings.heads, strict=True)
        )
        self.norm = nn.LayerNorm(settings.widths[-1])
        self.heads = nn.ModuleDict(
            {name: nn.Linear(settings.widths[-1], strides[-scales] ** 3 * count) for name, count in outputs.items()}
        )
        self.apply(initialise)

    @staticmethod
    def _reach(settings: DecoderSettings, edge: int) -> int | None:
        """Return the number of cells around the predicted ones that the finer scales read; None if
        attention reads all."""
        if any(settings.heads[1:]):
            return None
        own, halo = settings.densify_kernel // 2, 0
        # From the finest on: what a token reads of its own scale, then of the scale above.
        for depth in settings.depths[:0:-1]:
            halo = -(-halo // 2) + own + depth
        return -(-halo // (2 * edge))

    def forward(self, levels: list[VisibleCells], predicted_BDHW: Tensor, modality: str) -> Tensor:
        """The voxels of the predicted cells.

        Args:
            levels: the encoder's, finest first.
            predicted_BDHW: bool, which cells to predict, in the order of `nonzero()`.
            modality: name of the head.

        Returns:
            [M, c, c, c, channels of the modality].
        """
        everywhere = levels[-1].layout.everywhere()
        rotation = Rotation.of(everywhere)
        x = self.densify[0](levels[-1], everywhere)
        x = x.with_features(x.features + self.position(everywhere, x.block)).zero_outside()
        x = self._blocks(x, 0, rotation)
        if self.scales > 1 and self.reach is not None:
            near = _near(predicted_BDHW, self.reach)
            layout = everywhere.only(near)
            rows = near.flatten().nonzero()[:, 0].to(x.features.device, non_blocking=True)
            x = VisibleCells(features=x.features[rows], layout=layout)
            chosen = predicted_BDHW[near].nonzero()[:, 0]
        else:
            layout, chosen = everywhere, predicted_BDHW.flatten().nonzero()[:, 0]
        for scale in range(1, self.scales):
            finer = join_blocks(self.upsample[scale - 1](x.features))
            x = x.with_features(finer + self.densify[scale](levels[-scale - 1], layout).features).zero_outside()
            x = self._blocks(x, scale, rotation)
        tokens = self.heads[modality](self.norm(x.features[chosen.to(x.features.device, non_blocking=True)]))
        if self.training:
            tokens = with_idle(tokens, others(self.heads, modality))
        return self._shuffle(tokens, self.outputs[modality])

    def _blocks(self, x: VisibleCells, scale: int, rotation: Rotation) -> VisibleCells:
        for block in self.stages[scale]:  # type: ignore[attr-defined, union-attr]
            x = block(x) if isinstance(block, LocalBlock) else block(x, rotation, None)
        return x

    def _shuffle(self, tokens_MbbbV: Tensor, channels: int) -> Tensor:
        m, d, h, w, _ = tokens_MbbbV.shape
        sd, sh, sw = (c // b for c, b in zip(self.cell, (d, h, w), strict=True))
        voxels = tokens_MbbbV.view(m, d, h, w, sd, sh, sw, channels).permute(0, 1, 4, 2, 5, 3, 6, 7)
        return voxels.reshape(m, *self.cell, channels)


def _near(chosen_BDHW: Tensor, reach: int) -> Tensor:
    """bool [B, D, H, W]: cells at most `reach` away from a chosen one, corners included."""
    if not reach:
        return chosen_BDHW
    size = 2 * reach + 1
    return F.max_pool3d(chosen_BDHW[:, None].float(), size, stride=1, padding=reach)[:, 0] > 0


class TokenPosition(nn.Module):
    """Position of a token in the crop as projected sines and cosines, so that mask tokens at
    different places differ; free of the crop's size."""

    FREQUENCIES = 6

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(6 * self.FREQUENCIES, width)

    def forward(self, layout: CellLayout, block: Triple) -> Tensor:
        """[G, b, b, b, width] for the cells of the layout with `block` tokens each."""
        device = layout.cells.device
        local = torch.cartesian_prod(*[torch.arange(b, device=device) for b in block]).view(*block, 3)
        tokens = layout.cells[:, None, None, None, 1:] * torch.tensor(block).to(device, non_blocking=True) + local
        frequency = torch.pi / 2.0 ** torch.arange(1, self.FREQUENCIES + 1, device=device, dtype=torch.float64)
        angle = (tokens[..., None] * frequency).flatten(-2)
        waves = torch.cat((angle.sin(), angle.cos()), -1).to(self.project.weight.dtype)
        result: Tensor = self.project(waves)
        return result
