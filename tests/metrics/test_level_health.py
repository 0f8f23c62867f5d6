"""Alignment and spread of a level's features."""

import math

import pytest
import torch

from wavespark.metrics.health import alignment, level_health


def rows(n=400, c=8, seed=0):
    return torch.randn(n, c, generator=torch.Generator().manual_seed(seed))


def test_alignment_is_zero_for_the_same_and_two_for_unrelated_features():
    assert alignment(rows(), rows()) == 0
    assert alignment(rows(4000), rows(4000, seed=1)) == pytest.approx(2, abs=0.1)
    a, noise = rows(), rows(seed=2)
    assert 0 < alignment(a, a + 0.1 * noise) < alignment(a, a + noise) < 2


def test_alignment_is_the_published_formula_on_centred_features():
    a, b = rows().double(), rows(seed=3).double()
    mean = (a.sum(0) + b.sum(0)) / 800
    u, v = ((x - mean) / (x - mean).norm(dim=1, keepdim=True) for x in (a, b))
    assert alignment(a.float(), b.float()) == pytest.approx(float((u - v).norm(dim=1).pow(2).mean()), rel=1e-5)


def test_an_offset_that_all_places_share_does_not_look_like_agreement():
    assert alignment(rows() + 100, rows(seed=1) + 100) == pytest.approx(alignment(rows(), rows(seed=1)), rel=1e-3)


def test_without_a_common_cell_there_is_no_alignment():
    assert math.isnan(alignment(rows(0), rows(0)))


def test_the_spread_of_a_level_is_that_of_its_cells():
    x = rows() * 3 + 50
    health = level_health(8, x, x[:10], x[:10])
    assert health.stride == 8 and health.alignment == 0
    assert health.feature_std == pytest.approx(float(x.std(0).mean()), rel=1e-5)
    same = level_health(8, x[:1].expand(400, 8), x[:1], x[:1])
    assert same.feature_std == 0 and same.effective_rank == 1
