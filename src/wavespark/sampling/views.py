"""Two views of one box: a coarse one of all of it, and a fine one of a small part of it, both in
the box's own millimetres (MiM: Zhuang et al., 2024).

A voxel of the coarse view is the mean of `factor` voxels of the store; the fine view keeps the
store's voxels. The fine view covers whole cells of the coarse one, its *footprint*, so that it can
be asked for exactly where the coarse view hides.
Axes: B batch, C channels, D H W voxels or cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from wavespark.errors import ShapeError
from wavespark.randomness import stream
from wavespark.sampling.dataset import Batch
from wavespark.shapes import Triple, ceil_div


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Views:
    """A coarse view, and what lies in part of it."""

    coarse: Batch
    fine: Batch
    footprint: Tensor
    """bool [B, D, H, W] on the cell grid of the coarse view: what the fine view shows."""
    tile: Triple
    """Cells of the coarse view that a fine one covers along each axis."""
    places: tuple[Triple, ...]
    """Index of each sample's tile in the coarse view."""


def two_views(box: Batch, *, cell: Triple, factor: Triple, tile: Triple, seed: int, step: int) -> Views:
    """Both views of each sample; where the fine one lies is drawn from (seed, step, the sample's
    key) alone, among tiles that are at least a quarter head.

    Args:
        box: voxels of the store, `crop * factor` along each axis.
        cell: voxels of a cell, in both views.
        factor: voxels of the store in one voxel of the coarse view.
        tile: cells of the coarse view that the fine one covers.
        seed: of the run.
        step: of the run.

    Raises:
        ShapeError: if the box is not made of whole tiles' voxels at least once along each axis.
    """
    size = tuple(box.voxels.shape[2:])
    extent = (tile[0] * cell[0] * factor[0], tile[1] * cell[1] * factor[1], tile[2] * cell[2] * factor[2])
    if any(s % f or s < e for s, f, e in zip(size, factor, extent, strict=True)):
        raise ShapeError(
            f"a box of {size} voxels has no part of {extent}, or cannot be joined by {factor}: use a larger one"
        )
    coarse = replace(
        box,
        voxels=F.avg_pool3d(box.voxels, factor),
        foreground=F.avg_pool3d(box.foreground[:, None].float(), factor)[:, 0] >= 0.5,
    )
    share = F.avg_pool3d(box.foreground[:, None].float(), extent)[:, 0]
    places = tuple(_place(s, seed, step, key) for s, key in zip(share, box.mask_keys, strict=True))
    grid = ceil_div(coarse.voxels.shape[2:], cell)
    footprint = _footprints(grid, tile, places)
    voxels, foreground = [], []
    for b, place in enumerate(places):
        d, h, w = _slices(place, extent)
        voxels.append(box.voxels[b, :, d, h, w])
        foreground.append(box.foreground[b, d, h, w])
    fine = replace(
        box,
        voxels=torch.stack(voxels),
        foreground=torch.stack(foreground),
        mask_keys=tuple(f"{key}:fine" for key in box.mask_keys),
    )
    return Views(coarse=coarse, fine=fine, footprint=footprint, tile=tile, places=places)


def footprints_in_head(grid: Triple, tile: Triple, keys: Sequence[str], seed: int, step: int) -> Tensor:
    """Draw the cells, bool [B, D, H, W], that second views of `two_views` cover in crops that are
    all head."""
    shape = tuple(g // t for g, t in zip(grid, tile, strict=True))
    return _footprints(grid, tile, [_place(torch.ones(shape), seed, step, key) for key in keys])


def _footprints(grid: Triple, tile: Triple, places: Sequence[Triple]) -> Tensor:
    footprint = torch.zeros(len(places), *grid, dtype=torch.bool)
    for b, place in enumerate(places):
        d, h, w = _slices(place, tile)
        footprint[b, d, h, w] = True
    return footprint


def _place(share_DHW: Tensor, seed: int, step: int, key: str) -> Triple:
    full = (share_DHW >= 0.25).flatten().nonzero()[:, 0].tolist() or [int(share_DHW.argmax())]
    chosen = full[int(stream(seed, purpose="second view", step=step, volume=key).integers(len(full)))]
    _, h, w = share_DHW.shape
    return chosen // (h * w), chosen // w % h, chosen % w


def _slices(place: Triple, edges: Triple) -> tuple[slice, slice, slice]:
    d, h, w = (slice(p * e, (p + 1) * e) for p, e in zip(place, edges, strict=True))
    return d, h, w
