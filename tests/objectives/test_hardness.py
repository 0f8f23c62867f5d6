"""Law I23: what is hard does not depend on how bright a cell is or how strong its contrast."""

import pytest
import torch

from wavespark.masking import BlockMasking, hardness_weights
from wavespark.objectives import cell_errors, cell_targets

CELL = (4, 4, 4)


def errors(crop, prediction, chosen, floor=1e-4):
    foreground = torch.ones(len(crop), *crop.shape[2:], dtype=torch.bool)
    return cell_errors(prediction, cell_targets(crop, foreground, chosen, CELL, floor), chosen)


def made():
    g = torch.Generator().manual_seed(0)
    crop = torch.randn(2, 1, 16, 16, 16, generator=g)
    chosen = torch.rand(2, 4, 4, 4, generator=g) < 0.7
    return crop, torch.randn(int(chosen.sum()), *CELL, 1, generator=g), chosen


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 5.0), (30.0, 0.0), (0.5, -2.0)])
def test_errors_and_their_order_stay_where_the_intensity_of_a_cell_is_shifted_or_scaled(scale, shift):
    crop, prediction, chosen = made()
    before = errors(crop.double(), prediction, chosen)
    changed = crop.double().clone()
    for b in range(2):
        changed[b, :, 4:8, :8, 8:16] = changed[b, :, 4:8, :8, 8:16] * scale + shift
    after = errors(changed, prediction, chosen)
    known = ~before.isnan()
    assert (before - after)[known].abs().max() < 1e-5
    assert torch.equal(before[known].argsort(), after[known].argsort())


def test_the_error_of_a_cell_is_its_mean_squared_error_in_normalised_units():
    crop, prediction, chosen = made()
    found = errors(crop, prediction, chosen)
    assert torch.equal(found.isnan(), ~chosen)
    for m, (b, d, h, w) in enumerate(chosen.nonzero().tolist()):
        cell = crop[b, 0, d * 4 : d * 4 + 4, h * 4 : h * 4 + 4, w * 4 : w * 4 + 4].double()
        target = (cell - cell.mean()) / (cell.var(correction=0) + 1e-6).sqrt()
        assert float(found[b, d, h, w]) == pytest.approx(
            float((prediction[m, ..., 0] - target).square().mean()), rel=1e-4
        )


def test_a_flat_cell_is_neither_hard_nor_easy():
    crop, prediction, chosen = made()
    b, d, h, w = chosen.nonzero()[0].tolist()
    crop[b, :, d * 4 : d * 4 + 4, h * 4 : h * 4 + 4, w * 4 : w * 4 + 4] = 2.0
    assert errors(crop, prediction, chosen)[b, d, h, w].isnan()


def test_hard_cells_are_hidden_more_often():
    masking = BlockMasking(grid=(4, 4, 4), ratio=0.5)
    found = torch.full((1, 4, 4, 4), 0.5)
    found[0, 0] = 4.0
    hits = torch.zeros(4, 4, 4)
    for step in range(300):
        hits += masking.sample(draws=[(0, step, "v")], weights=hardness_weights(found, strength=0.5)).hidden[0]
    assert hits[0].mean() / 300 > hits[1:].mean() / 300 + 0.2
