"""The reconstruction score: by definition, on hidden foreground only, free of shift and scale."""

import numpy as np
import pytest
import torch

from objectives.parts import scored
from wavespark.engine.learning.step import target_cells
from wavespark.masking import BlockMasking
from wavespark.models import DecoderSettings, SparK, WaveFormer, WaveFormerSettings
from wavespark.objectives import CellTargets, Score, cell_targets, reconstruction
from wavespark.sampling import Batch

CELL = (4, 4, 4)
FLOOR = 1e-3


def made(seed=0, channels=2, size=(10, 8, 13), batch=2):
    g = torch.Generator().manual_seed(seed)
    crop = torch.randn(batch, channels, *size, generator=g) * 3 + 1
    foreground = torch.rand(batch, *size, generator=g) < 0.7
    grid = tuple(-(-s // c) for s, c in zip(size, CELL, strict=True))
    chosen = torch.rand(batch, *grid, generator=g) < 0.5
    crop[0, 0, :4, :4, :4] = 2.5  # a flat cell, in one channel
    chosen[0, 0, 0, 0] = True
    return crop, foreground, chosen


def by_definition(crop, foreground, chosen, prediction, floor=FLOOR):
    """SPEC, end of section 3, in numpy with loops: (normalised loss, mean squared error, voxels)."""
    crop, foreground, prediction = crop.double().numpy(), foreground.numpy(), prediction.double().numpy()
    errors, targets = [], []
    for m, (b, *cell) in enumerate(chosen.nonzero().tolist()):
        box = tuple(slice(i * c, (i + 1) * c) for i, c in zip(cell, CELL, strict=True))
        inside = foreground[b][box]
        for channel in range(crop.shape[1]):
            values = crop[b, channel][box][inside]
            if len(values) == 0 or values.var() <= floor:
                continue
            target = (values - values.mean()) / np.sqrt(values.var() + 1e-6)
            d, h, w = inside.shape
            errors.append((prediction[m, :d, :h, :w, channel][inside] - target) ** 2)
            targets.append(target)
    e, t = np.concatenate(errors), np.concatenate(targets)
    return e.sum() / ((t - t.mean()) ** 2).sum(), e.mean(), len(t)


@pytest.mark.parametrize("seed", range(4))
def test_the_normalised_loss_is_what_the_definition_says(seed):
    crop, foreground, chosen = made(seed)
    targets = cell_targets(crop, foreground, chosen, CELL, FLOOR)
    prediction = torch.randn(targets.values.shape, generator=torch.Generator().manual_seed(9))
    score = reconstruction(prediction, targets)
    normalised, mean, voxels = by_definition(crop, foreground, chosen, prediction)
    assert float(score.normalised_loss) == pytest.approx(normalised, rel=1e-5)
    assert float(score.loss) == pytest.approx(mean, rel=1e-5)
    assert int(score.voxels) == voxels


def test_predicting_the_mean_scores_one_and_the_truth_zero():
    targets = cell_targets(*made(), CELL, FLOOR)
    mean = (targets.values * targets.weight).sum() / targets.weight.sum()
    assert float(reconstruction(mean.expand(targets.values.shape), targets).normalised_loss) == pytest.approx(
        1, abs=1e-6
    )
    assert float(reconstruction(targets.values, targets).normalised_loss) == 0


def test_a_channel_of_a_cell_that_varies_less_than_the_floor_is_not_scored():
    crop, foreground, chosen = made()
    targets = cell_targets(crop, foreground, chosen, CELL, FLOOR)
    assert targets.weight[0, ..., 0].sum() == 0
    assert targets.weight[0, ..., 1].sum() == foreground[0, :4, :4, :4].sum()
    assert torch.isfinite(targets.values).all()
    everything = cell_targets(crop, foreground, chosen, CELL, 1e9)
    score = reconstruction(torch.ones_like(everything.values), everything)
    assert float(score.loss) == 0 and torch.isnan(score.normalised_loss)


def test_targets_are_detached():
    crop, foreground, chosen = made()
    crop.requires_grad_()
    targets = cell_targets(crop, foreground, chosen, CELL, FLOOR)
    assert not any(getattr(targets, name).requires_grad for name in ("values", "weight", "mean", "scale"))
    prediction = torch.zeros_like(targets.values).requires_grad_()
    reconstruction(prediction, targets).loss.backward()
    assert crop.grad is None and prediction.grad.abs().sum() > 0


def test_voxels_beyond_the_crop_or_outside_the_foreground_never_count():
    crop, foreground, chosen = made()
    targets = cell_targets(crop, foreground, chosen, CELL, FLOOR)
    prediction = torch.randn(targets.values.shape, generator=torch.Generator().manual_seed(1))
    before = reconstruction(prediction, targets)
    changed = crop.where(foreground[:, None], torch.tensor(1e4))
    after = reconstruction(prediction.where(targets.weight.bool(), torch.tensor(-77.0)), targets)
    moved = reconstruction(prediction, cell_targets(changed, foreground, chosen, CELL, FLOOR))
    for name in ("error", "total", "square", "voxels"):
        assert torch.equal(getattr(before, name), getattr(after, name))
        assert torch.equal(getattr(before, name), getattr(moved, name))
    # 10 x 8 x 13 voxels in cells of 4: the last cells along D hold 2 slices, those along W hold 1
    edge = (chosen.nonzero()[:, 1] == 2).nonzero()[:, 0]
    assert len(edge) and targets.weight[edge, 2:].sum() == 0


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 5.0), (3.0, 0.0), (0.5, -2.0)])
def test_normalised_targets_do_not_change_when_the_intensity_is_shifted_or_scaled(scale, shift):
    crop, foreground, chosen = made()
    a = cell_targets(crop, foreground, chosen, CELL, 1e-2)
    b = cell_targets(crop * scale + shift, foreground, chosen, CELL, 1e-2)
    assert torch.equal(a.weight, b.weight)
    assert ((a.values - b.values) * a.weight).abs().max() < 1e-5


def test_the_mean_of_the_targets_is_taken_over_all_scored_voxels():
    g = torch.Generator().manual_seed(0)
    values, weight = torch.randn(5, 4, 4, 4, 2, generator=g) + 3, (torch.rand(5, 4, 4, 4, 2, generator=g) < 0.5).float()
    targets = CellTargets(
        values=values, weight=weight, mean=torch.zeros(5, 1, 1, 1, 2), scale=torch.ones(5, 1, 1, 1, 2)
    )
    prediction = torch.randn(values.shape, generator=g)
    t, p = (x[weight.bool()].double() for x in (values, prediction))
    expected = float(((p - t) ** 2).sum() / ((t - t.mean()) ** 2).sum())
    assert float(reconstruction(prediction, targets).normalised_loss) == pytest.approx(expected, rel=1e-4)


def test_scores_of_batches_add_up_to_the_score_of_all():
    crop, foreground, chosen = made()
    targets = cell_targets(crop, foreground, chosen, CELL, FLOOR)
    prediction = torch.randn(targets.values.shape, generator=torch.Generator().manual_seed(1))
    whole, parts, start = reconstruction(prediction, targets), None, 0
    for b in range(2):
        some = cell_targets(crop[b : b + 1], foreground[b : b + 1], chosen[b : b + 1], CELL, FLOOR)
        one = reconstruction(prediction[start : start + len(some.values)], some)
        parts, start = one if parts is None else parts + one, start + len(some.values)
    assert isinstance(parts, Score)
    assert float(parts.normalised_loss) == pytest.approx(float(whole.normalised_loss), rel=1e-6)


class Fixed(SparK):
    """Predicts the same whatever it sees."""

    def forward(self, crop, visible, predicted, modality, generator=None):
        size = (int(predicted.sum()), *self.encoder.cell, 1)
        return torch.randn(size, generator=torch.Generator().manual_seed(5)) + 0 * self.encoder.stems["MR"].bias.sum()


def step(voxels, foreground):
    with torch.random.fork_rng(devices=[]):
        encoder = WaveFormer(WaveFormerSettings(channels=(12, 24), depths=(1, 1), heads=(1, 2)), {"MR": 1})
        model = Fixed(encoder, DecoderSettings(widths=(12,), depths=(1,), heads=(1,)))
    keys = tuple(f"v{i}" for i in range(len(voxels)))
    batch = Batch(voxels=voxels, foreground=foreground, modality="MR", draws=(0, 1), mask_keys=keys)
    return scored(model, batch, BlockMasking(grid=(3, 2, 4)), 7, 1, FLOOR)


def test_the_loss_does_not_depend_on_the_targets_of_visible_cells_or_of_cells_that_are_mostly_air():
    crop, foreground, _ = made(channels=1, size=(12, 8, 16))
    foreground[:, :4, :4, :4] = False
    foreground[:, :4, :4, 0] = True  # a quarter of the first cell
    first = step(crop, foreground)
    assert first.predicted.any() and not first.predicted[:, 0, 0, 0].any()
    scored = first.predicted
    for axis in range(3):
        scored = scored.repeat_interleave(4, axis + 1)
    assert not (first.predicted & first.masks.visible).any()
    second = step(crop.where(scored[:, None], crop * 100 + 3), foreground)
    third = step(crop.where(~scored[:, None], crop.flip(4) * 2), foreground)
    assert torch.equal(first.score.error, second.score.error) and torch.equal(first.score.square, second.score.square)
    assert not torch.equal(first.score.error, third.score.error)


@pytest.mark.parametrize("size", [(8, 8, 8), (10, 8, 13), (5, 4, 1)])
def test_a_target_cell_holds_at_least_half_foreground_of_its_voxels_in_the_crop(size):
    g = torch.Generator().manual_seed(3)
    foreground = torch.rand(3, *size, generator=g) < torch.tensor([0.2, 0.5, 0.8])[:, None, None, None]
    found = target_cells(foreground, CELL)
    for b, d, h, w in np.ndindex(*found.shape):
        box = foreground[b, d * 4 : d * 4 + 4, h * 4 : h * 4 + 4, w * 4 : w * 4 + 4]
        assert bool(found[b, d, h, w]) == (2 * int(box.sum()) >= box.numel())
