"""From sparse voxels to visible cells: rows are moved, nothing is computed.

Axes: B batch, C channels, D H W grid, N visible cells.
"""

import torch

from wavespark.errors import SitesError
from wavespark.shapes import Triple, ceil_div
from wavespark.sparse.cell_layout import CellLayout
from wavespark.sparse.cells import VisibleCells
from wavespark.sparse.coordinates import Lattice
from wavespark.sparse.voxels import SparseVoxels


def to_cells(x: SparseVoxels, cell: Triple, size: Triple | None = None) -> VisibleCells:
    """The cells that hold the sites of x; each must be full, since a visible cell has no absent tokens.

    Args:
        x: sites of stride s; a cell has `cell / s` tokens along each axis.
        cell: voxels of a cell.
        size: voxels of the crop; by default up to the last site.

    Raises:
        SitesError: if the stride does not divide the cell, a site lies outside the crop, or a cell is only partly active.
        ShapeError: if a sample has no site.
    """
    sites = x.coordinates
    if any(c % s for c, s in zip(cell, sites.stride, strict=True)):
        raise SitesError(f"{x!r} does not divide into cells of {cell} voxels: the stride must divide them")
    d, h, w = (e * s for e, s in zip(sites.extent, sites.stride, strict=True))
    size = size or (d, h, w)
    if any(far - s >= limit for far, s, limit in zip((d, h, w), sites.stride, size, strict=True)):
        raise SitesError(f"the sites of {x!r} reach {(d, h, w)} voxels, beyond the crop of {size}")
    bd, bh, bw = (c // s for c, s in zip(cell, sites.stride, strict=True))
    filled = sites.coarser((bd, bh, bw))
    visible_BDHW = torch.zeros(sites.batch_size, *ceil_div(size, cell), dtype=torch.bool, device=sites.device)
    visible_BDHW[filled.lattice] = True
    layout = CellLayout.of(visible_BDHW, size=size, cell=cell)
    s, *axes = layout.cells.unbind(1)
    inner = torch.cartesian_prod(*(torch.arange(b, device=sites.device) for b in (bd, bh, bw))).view(-1, 3)
    td, th, tw = ((axis * b)[:, None] + i for axis, b, i in zip(axes, (bd, bh, bw), inner.unbind(1), strict=True))
    tokens: Lattice = (s[:, None].expand_as(td).flatten(), td.flatten(), th.flatten(), tw.flatten())
    rows = sites.find(tokens)[:, 0]
    inside = layout.inside((bd, bh, bw))
    absent = (rows == len(x)) if inside is None else (rows == len(x)) & inside.flatten()
    if bool(absent.any()):
        row = int(absent.int().argmax()) // (bd * bh * bw)
        raise SitesError(
            f"cell {layout.cells[row].tolist()} (sample, d, h, w) is only partly active, so x cannot be visible cells "
            f"of {cell} voxels: {int(absent.sum())} token(s) have no site"
        )
    padded = torch.cat((x.features, x.features.new_zeros(1, x.channels)))
    return VisibleCells(features=padded.index_select(0, rows).view(len(layout), bd, bh, bw, -1), layout=layout)
