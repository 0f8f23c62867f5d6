"""From visible cells to all cells: what is hidden gets a mask token.

After Tian et al., "Designing BERT for convolutional networks: sparse and hierarchical masked
modeling" (SparK, 2023). The 3^3 projection is what the ablation of S3D credits with most of the
gain; at the coarsest scale a projection of each token is enough.
Axes: N cells, b tokens along an edge of a cell, C channels.
"""

import torch
from torch import Tensor, nn

from wavespark.errors import ModelError
from wavespark.sparse import CellLayout, SubmanifoldConv3d, VisibleCells


class Densify(nn.Module):
    """Visible features to chosen cells: norm, the mask token where hidden, projection.

    Args:
        channels: channels of the level.
        width: channels of the result.
        kernel: kernel of the projection, 1 or 3.
    """

    def __init__(self, channels: int, width: int, kernel: int = 1) -> None:
        super().__init__()
        if kernel not in (1, 3):
            raise ModelError(f"the projection has kernel 1 or 3, not {kernel}")
        self.norm = nn.LayerNorm(channels)
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(channels), std=0.02))
        self.project = nn.Linear(channels, width) if kernel == 1 else SubmanifoldConv3d(channels, width, 3)

    def spread(self, level: VisibleCells, layout: CellLayout) -> VisibleCells:
        """The normed features on the cells of the layout; those that are not visible hold exactly
        zero."""
        cells, rows = len(layout), _rows(level.layout, layout)
        normed = self.norm(level.features)
        # One row more takes what lies in none of the cells.
        zeros = normed.new_zeros(cells + 1, *level.features.shape[1:])
        return VisibleCells(features=zeros.index_copy(0, rows, normed)[:cells], layout=layout)

    def forward(self, level: VisibleCells, layout: CellLayout) -> VisibleCells:
        """The projected features on the cells of the layout; a 3^3 projection reads zeros from
        cells that are not in it."""
        dense = self.spread(level, layout)
        ones = dense.features.new_ones(len(layout) + 1)
        hidden = ones.index_fill(0, _rows(level.layout, layout), 0)[: len(layout)]
        filled = dense.with_features(dense.features + hidden[:, None, None, None, None] * self.mask_token)
        if isinstance(self.project, nn.Linear):
            return filled.with_features(self.project(filled.features)).zero_outside()
        projected: VisibleCells = self.project(filled.zero_outside())
        return projected.zero_outside()


def _rows(visible: CellLayout, layout: CellLayout) -> Tensor:
    """int64 [N]: where each visible cell lies in the layout; the number of cells where it does
    not."""
    if layout.is_full:
        return layout.rows_of(visible.cells)
    grid = layout.grid
    table = torch.full((layout.batch_size * grid[0] * grid[1] * grid[2],), len(layout), device=layout.cells.device)
    table[layout.rows_of(layout.cells)] = torch.arange(len(layout), device=table.device)
    return table[layout.rows_of(visible.cells)]
