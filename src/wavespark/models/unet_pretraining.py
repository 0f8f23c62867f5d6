"""Pre-training the segmentation decoder together with the encoder: every level densified, then the
dense decoder, then the predicted cells cut out.

As S3D (Wald et al., "Revisiting MAE pre-training for 3D medical image segmentation", 2025), which
transfers both. The price is a dense pass at full resolution in every step; `wavespark bench step
--decoder unet` prints it beside the light decoder.
"""

import torch
from torch import Tensor, nn

from wavespark.models.densify import Densify
from wavespark.models.encoder import Encoder
from wavespark.models.segmentation import dense_decoder
from wavespark.sparse import CellLayout, VisibleCells, cut_cells


class DensifiedDecoder(nn.Module):
    """`decoder` is the segmentation decoder (its weights are exported), `densify` one layer a
    level, `heads` voxels for each modality.

    Args:
        encoder: encoder whose levels are decoded.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.cell = encoder.cell
        self.densify = nn.ModuleList(
            Densify(c, c, 1 if i + 1 == len(encoder.channels) else 3) for i, c in enumerate(encoder.channels)
        )
        # One output channel for each voxel channel of each modality; the last layer is replaced
        # when classes are known.
        self.decoder = dense_decoder(encoder, sum(encoder.stem_channels.values()))
        starts, total = {}, 0
        for name, count in encoder.stem_channels.items():
            starts[name], total = slice(total, total + count), total + count
        self.outputs = starts

    def forward(
        self,
        crop_BCDHW: Tensor,
        levels: list[VisibleCells],
        details: list[list[Tensor]],
        predicted_BDHW: Tensor,
        modality: str,
    ) -> Tensor:
        """[M, c, c, c, C]: the voxels of the predicted cells; hidden voxels are replaced by zero
        before anything reads the crop."""
        layout = levels[0].layout
        everywhere = layout.everywhere()
        dense = [f(level, everywhere).to_dense() for f, level in zip(self.densify, levels, strict=True)]
        rows = everywhere.rows_of(layout.cells)
        spread = [[_spread(d, rows, len(everywhere)) for d in stage] for stage in details]
        shown = _voxels(layout, crop_BCDHW)
        voxels = self.decoder(crop_BCDHW.where(shown, 0), dense, spread, modality)[:, self.outputs[modality]]
        return cut_cells(voxels, predicted_BDHW, self.cell)


def _spread(features: Tensor, rows: Tensor, cells: int) -> Tensor:
    return features.new_zeros(cells, *features.shape[1:]).index_copy(0, rows, features)


def _voxels(layout: CellLayout, crop_BCDHW: Tensor) -> Tensor:
    """bool [B, 1, D, H, W]: voxels of visible cells."""
    grid = torch.zeros(layout.batch_size, *layout.grid, dtype=torch.bool, device=crop_BCDHW.device)
    grid.index_put_(layout.cells.unbind(1), grid.new_ones(()))  # a Python True would be waited for
    shown = grid[:, None]
    for axis in range(3):
        shown = shown.repeat_interleave(layout.cell[axis], axis + 2)
    _, _, d, h, w = crop_BCDHW.shape
    return shown[:, :, :d, :h, :w]
