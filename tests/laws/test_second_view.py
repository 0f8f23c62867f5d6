"""Law I22: the fine view lies inside hidden cells of the coarse view, in mm. The voxels of the volume are their own coordinates."""

import numpy as np
import pytest
import torch

from wavespark.errors import ShapeError
from wavespark.masking import MaskPlan
from wavespark.sampling import Batch
from wavespark.sampling.views import two_views

CELL = 4


def ramp(size, spacing, batch=3, head=None):
    """Channels hold the mm coordinate of each voxel's centre along D, H, W; float64, so that means are exact to 1e-9."""
    axes = [(torch.arange(n, dtype=torch.float64) + 0.5) * s for n, s in zip(size, spacing, strict=True)]
    voxels = torch.stack(torch.meshgrid(*axes, indexing="ij"))[None].repeat(batch, 1, 1, 1, 1)
    foreground = torch.ones(batch, *size, dtype=torch.bool) if head is None else head.expand(batch, *size)
    keys = tuple(f"v{i}" for i in range(batch))
    return Batch(voxels=voxels, foreground=foreground, modality="MR", draws=tuple(range(batch)), mask_keys=keys)


CASES = pytest.mark.parametrize(
    ("crop", "spacing", "factor", "tile"),
    [
        ((16, 16, 16), (1.0, 1.0, 1.0), (2, 2, 2), (2, 2, 2)),
        ((16, 20, 24), (0.5, 0.75, 5.0), (2, 2, 1), (1, 2, 1)),
        ((12, 12, 20), (1.0, 0.4, 0.8), (3, 1, 2), (1, 1, 2)),
    ],
)


@CASES
@pytest.mark.parametrize("step", range(4))
def test_the_fine_view_lies_inside_hidden_cells_of_the_coarse_view_in_mm(crop, spacing, factor, tile, step):
    box = ramp([c * f for c, f in zip(crop, factor, strict=True)], spacing)
    views = two_views(box, cell=(CELL,) * 3, factor=factor, tile=tile, seed=5, step=step)
    grid = tuple(c // CELL for c in crop)
    masks = MaskPlan(grid=grid, seed=5).masks_around(views.footprint, views.coarse.mask_keys, step, hide=True)
    # A cell of the coarse view, from the values of its own voxels: half a coarse voxel beyond the outermost centres.
    half = [0.5 * s * f for s, f in zip(spacing, factor, strict=True)]
    for b in range(3):
        inside = torch.zeros(views.fine.voxels.shape[2:], dtype=torch.bool)
        for cell in masks.hidden[b].nonzero().tolist():
            d, h, w = (slice(i * CELL, (i + 1) * CELL) for i in cell)
            own = views.coarse.voxels[b, :, d, h, w].flatten(1)
            fine = views.fine.voxels[b]
            within = [
                (fine[a] - 0.5 * spacing[a] >= own[a].min() - half[a] - 1e-9)
                & (fine[a] + 0.5 * spacing[a] <= own[a].max() + half[a] + 1e-9)
                for a in range(3)
            ]
            inside |= within[0] & within[1] & within[2]
        assert inside.all()
    assert torch.equal(views.footprint.sum((1, 2, 3)), torch.full((3,), int(np.prod(tile))))


@CASES
def test_the_fine_view_keeps_the_voxels_of_the_store_and_the_coarse_one_joins_them(crop, spacing, factor, tile):
    box = ramp([c * f for c, f in zip(crop, factor, strict=True)], spacing)
    views = two_views(box, cell=(CELL,) * 3, factor=factor, tile=tile, seed=5, step=1)
    assert views.coarse.voxels.shape[2:] == crop
    assert views.fine.voxels.shape[2:] == tuple(CELL * f * t for f, t in zip(factor, tile, strict=True))
    for axis in range(3):
        fine = views.fine.voxels[:, axis].diff(dim=axis + 1)
        coarse = views.coarse.voxels[:, axis].diff(dim=axis + 1)
        assert (fine - spacing[axis]).abs().max() < 1e-9
        assert (coarse - spacing[axis] * factor[axis]).abs().max() < 1e-9


def test_keys_see_all_that_the_fine_view_shows_and_both_masks_hide_the_exact_number():
    plan = MaskPlan(grid=(4, 4, 4), seed=1)
    for step in range(20):
        views = two_views(
            ramp((32, 32, 32), (1, 1, 1)), cell=(4, 4, 4), factor=(2, 2, 2), tile=(2, 2, 2), seed=1, step=step
        )
        hide, show = (
            plan.masks_around(views.footprint, views.coarse.mask_keys, step, hide=h) for h in (True, False)
        )
        assert (views.footprint <= hide.hidden).all() and (views.footprint <= show.visible).all()
        for masks in (hide, show):
            assert masks.hidden.sum((1, 2, 3)).tolist() == [plan.masking(step).num_hidden] * 3


def test_a_place_depends_on_seed_step_and_sample_alone_and_lies_where_the_head_is():
    head = torch.zeros(32, 32, 32, dtype=torch.bool)
    head[:, 16:] = True
    box = ramp((32, 32, 32), (1, 1, 1), batch=3, head=head)

    def places(box, seed=0, step=0):
        return two_views(box, cell=(4, 4, 4), factor=(2, 2, 2), tile=(2, 2, 2), seed=seed, step=step).places

    one = places(ramp((32, 32, 32), (1, 1, 1), batch=1, head=head))
    assert places(box)[0] == one[0]
    found = {place for step in range(60) for place in places(box, step=step)}
    assert found == {(d, 1, w) for d in range(2) for w in range(2)}
    assert len({places(box, seed=seed) for seed in range(8)}) > 1


def test_a_box_that_is_too_small_for_a_second_view_is_refused():
    with pytest.raises(ShapeError, match="larger"):
        two_views(ramp((8, 8, 8), (1, 1, 1)), cell=(4, 4, 4), factor=(2, 2, 2), tile=(2, 2, 2), seed=0, step=0)
