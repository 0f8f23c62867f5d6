"""Laws I12, I13 and I15: what is learned is learned from what is visible."""

import pytest
import torch
import torch.nn.functional as F

from objectives.parts import scored
from wavespark.masking import BlockMasking
from wavespark.models import DecoderSettings, SparK, WaveFormer, WaveFormerSettings
from wavespark.objectives import cell_targets, reconstruction
from wavespark.sampling import Batch

CELL = 4
GRID = (4, 4, 4)
SIZE = tuple(CELL * g for g in GRID)
MASKING = BlockMasking(grid=GRID, ratio=0.4)
FLOOR = 1e-4


def small_model(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = WaveFormer(WaveFormerSettings(channels=(24, 48), depths=(1, 2), heads=(2, 4), mlp_ratio=2), {"MR": 1})
        return SparK(encoder, DecoderSettings(widths=(48,), depths=(2,), heads=(4,)))


def smooth(count, generator, cells=5):
    """Volumes that can be guessed from their surroundings."""
    coarse = torch.randn(count, 1, cells, cells, cells, generator=generator)
    return F.interpolate(coarse, size=SIZE, mode="trilinear", align_corners=True)


def batch_of(voxels, name="v"):
    keys = tuple(f"{name}{i}" for i in range(len(voxels)))
    foreground = torch.ones(len(voxels), *SIZE, dtype=torch.bool)
    return Batch(voxels=voxels, foreground=foreground, modality="MR", draws=tuple(range(len(voxels))), mask_keys=keys)


def train(model, step_score, steps, rate=2e-3):
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    losses = []
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, step / 20)
        score = step_score(step)
        optimizer.zero_grad()
        score.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(score.normalised_loss.detach()))
    return losses


def test_the_normalised_loss_of_a_fresh_model_is_about_one():
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            result = scored(small_model(seed), batch_of(smooth(4, generator)), MASKING, seed, 1, FLOOR)
        assert 0.95 < float(result.score.normalised_loss) < 1.15


def test_one_batch_can_be_overfitted():
    """Always the same crops with the same masks: nothing but a broken path from what is visible to what is predicted can prevent it."""
    model, batch = small_model(), batch_of(torch.randn(2, 1, *SIZE, generator=torch.Generator().manual_seed(0)))
    losses = train(model, lambda step: scored(model, batch, MASKING, 0, 1, FLOOR).score, 60, rate=4e-3)
    assert losses[0] > 0.95
    assert losses[-1] < 0.3, losses[-1]


@pytest.fixture(scope="module")
def learned():
    """A model that has seen some hundred smooth volumes once each, and its losses."""
    model, generator = small_model(), torch.Generator().manual_seed(1)
    losses = train(
        model, lambda s: scored(model, batch_of(smooth(4, generator), f"{s}."), MASKING, 0, s, FLOOR).score, 110
    )
    return model.eval(), losses


def held_out(model, swap=False):
    """Normalised loss on volumes never seen; `swap` gives each sample the visible cells of another one."""
    voxels = smooth(8, torch.Generator().manual_seed(99))
    batch = batch_of(voxels, "held out")
    masks = MASKING.sample(draws=[(0, 0, key) for key in batch.mask_keys])
    seen = voxels.roll(1, 0) if swap else voxels
    with torch.no_grad():
        prediction = model(seen, masks.visible, masks.hidden, "MR")
    targets = cell_targets(voxels, batch.foreground, masks.hidden, (CELL,) * 3, FLOOR)
    return float(reconstruction(prediction, targets).normalised_loss)


def test_after_the_smoke_run_the_loss_on_new_volumes_is_well_below_one(learned):
    model, losses = learned
    assert losses[0] > 0.95
    assert held_out(model) < 0.9


def test_swapping_the_visible_cells_between_samples_raises_the_loss(learned):
    model, _ = learned
    assert held_out(model, swap=True) >= held_out(model) + 0.05


def test_with_shuffled_targets_nothing_is_learned():
    """New volumes each step, and each sample is scored against the hidden cells of another one."""
    model, generator = small_model(), torch.Generator().manual_seed(2)

    def step_score(step):
        voxels = smooth(4, generator)
        batch = batch_of(voxels, f"{step}.")
        masks = MASKING.sample(draws=[(0, step, key) for key in batch.mask_keys])
        prediction = model(voxels.roll(1, 0), masks.visible, masks.hidden, "MR")
        return reconstruction(prediction, cell_targets(voxels, batch.foreground, masks.hidden, (CELL,) * 3, FLOOR))

    losses = train(model, step_score, 80)
    assert 0.95 < sum(losses[-20:]) / 20 < 1.1
