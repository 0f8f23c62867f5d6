"""Functions on both kinds of sparse value: conversion, which moves rows and computes nothing, and
concatenation.

Axes: B batch, C channels, D H W grid, N visible cells.
"""

from collections.abc import Sequence
from typing import overload

import torch

from wavespark.errors import ShapeError, SitesError
from wavespark.shapes import Triple, ceil_div
from wavespark.sparse.cells.layout import CellLayout
from wavespark.sparse.cells.value import VisibleCells, cat_cells
from wavespark.sparse.kinds import SparseValue
from wavespark.sparse.voxels.coordinates import Lattice
from wavespark.sparse.voxels.value import SparseVoxels, cat_voxels


def to_sparse(x: VisibleCells) -> SparseVoxels:
    """Return the same values as general sparse voxels; sites are in voxels of the crop, multiples
    of the stride."""
    block, stride = x.block, x.stride
    axes = [
        (x.cells[:, a + 1, None] * block[a] + torch.arange(block[a], device=x.cells.device)) * stride[a]
        for a in range(3)
    ]
    d, h, w = (axes[a].reshape(-1, *(block[a] if a == i else 1 for i in range(3))).expand(-1, *block) for a in range(3))
    sample = x.cells[:, 0, None, None, None].expand(-1, *block)
    sites = torch.stack((sample, d, h, w), -1).reshape(-1, 4)
    features = x.features.reshape(-1, x.channels)
    inside = x.layout.inside(block)
    if inside is not None:
        sites, features = sites[inside.flatten()], features[inside.flatten()]
    return SparseVoxels(features, sites.int(), stride=stride, batch_size=x.batch_size)


def to_cells(x: SparseVoxels, cell: Triple, size: Triple | None = None) -> VisibleCells:
    """Return the cells that hold the sites of x; each must be full, since a visible cell has no
    absent tokens.

    Args:
        x: sites of stride s; a cell has `cell / s` tokens along each axis.
        cell: voxels of a cell.
        size: voxels of the crop; by default up to the last site.

    Raises:
        SitesError: if the stride does not divide the cell, a site lies outside the crop, or a cell
            is only partly active.
        ShapeError: if a sample has no site.
    """
    sites = x.coordinates
    if min(*cell, *(size or cell)) < 1:
        raise ShapeError(f"a crop and its cells have at least one voxel along each axis, got {size} and {cell}")
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


@overload
def cat(values: Sequence[SparseVoxels]) -> SparseVoxels: ...
@overload
def cat(values: Sequence[VisibleCells]) -> VisibleCells: ...
def cat(values: Sequence[SparseValue]) -> SparseValue:
    """Return the channels of several values on the same sites or tokens, one after the other; rows
    follow the first.

    Raises:
        SitesError: if sparse voxels do not have the same sites.
        ShapeError: if visible cells do not have the same tokens, or there is no value, or some are
            of another kind.
    """
    if not isinstance(values, Sequence):
        raise ShapeError(f"cat takes a list of SparseVoxels or VisibleCells, got {type(values).__name__}")
    if not values:
        raise ShapeError("cat needs at least one value")
    cells = [x for x in values if isinstance(x, VisibleCells)]
    voxels = [x for x in values if isinstance(x, SparseVoxels)]
    if len(cells) == len(values):
        return cat_cells(cells)
    if len(voxels) == len(values):
        return cat_voxels(voxels)
    names = ", ".join(type(x).__name__ for x in values)
    raise ShapeError(f"cat takes SparseVoxels or VisibleCells, all of one kind, got {names}")
