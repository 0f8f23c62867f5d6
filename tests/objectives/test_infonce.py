"""InfoNCE by its definition, with negatives that are elsewhere."""

import math

import pytest
import torch
import torch.nn.functional as F

from objectives.parts import CONTRAST, objective_of
from wavespark.objectives import Places, Projector, info_nce, pairs, places_of
from wavespark.sparse import VisibleCells


def features(n, c=8, seed=0):
    return torch.randn(n, c, generator=torch.Generator().manual_seed(seed))


def places(rows, seed=0):
    """(sample, d, h, w) rows with random features."""
    t = torch.tensor(rows)
    return Places(features=features(len(rows), seed=seed), sample=t[:, 0], tile=t[:, 1:])


def test_the_loss_is_the_published_one():
    q, k = features(5), features(7, seed=1)
    positive, negative = (
        torch.zeros(5, 7, dtype=torch.bool),
        torch.rand(5, 7, generator=torch.Generator().manual_seed(2)) < 0.6,
    )
    positive[range(5), [0, 2, 3, 5, 6]] = True
    negative &= ~positive
    found = info_nce(q, k, positive, negative, 0.2)
    total, chance = 0.0, 0.0
    for i in range(5):
        cosines = [float(F.cosine_similarity(q[i], k[j], dim=0)) / 0.2 for j in range(7)]
        among = [math.exp(cosines[j]) for j in range(7) if positive[i, j] or negative[i, j]]
        total -= math.log(math.exp(cosines[int(positive[i].nonzero())]) / sum(among))
        chance += math.log(len(among))
    assert float(found.total) == pytest.approx(total, rel=1e-5)
    assert float(found.chance) == pytest.approx(chance, rel=1e-5)
    assert int(found.count) == 5


def test_queries_without_a_positive_or_a_negative_are_left_out_with_a_finite_gradient():
    q, k = features(3).requires_grad_(), features(4, seed=1).requires_grad_()
    positive, negative = torch.zeros(3, 4, dtype=torch.bool), torch.zeros(3, 4, dtype=torch.bool)
    positive[0, 0] = positive[1, 1] = negative[0, 2] = negative[2, 3] = True  # 1: no negative; 2: no positive
    found = info_nce(q, k, positive, negative, 0.1)
    found.total.backward()
    assert int(found.count) == 1 and float(found.chance) == pytest.approx(math.log(2))
    assert torch.isfinite(q.grad).all() and torch.isfinite(k.grad).all()
    assert q.grad[0].abs().sum() > 0 and not q.grad[1:].any()
    nothing = info_nce(features(0), k, positive[:0], negative[:0], 0.1)
    assert float(nothing.total.detach()) == 0 and int(nothing.count) == 0


def test_negatives_are_a_whole_tile_away_or_of_another_patient():
    queries = places([(0, 1, 1, 1)])
    keys = places(
        [(0, 1, 1, 1), (0, 1, 1, 2), (0, 2, 2, 2), (0, 1, 1, 3), (0, 3, 0, 0), (1, 1, 1, 1), (2, 1, 1, 1), (2, 3, 3, 3)]
    )
    positive, negative = pairs(queries, keys, ["a", "a", "b"])
    assert positive.tolist() == [[True, *[False] * 7]]
    #                           same   next   corner  two away  far   same patient, other crop  other patient
    assert negative.tolist() == [[False, False, False, True, True, False, True, True]]


def test_the_mean_of_a_tile_is_that_of_its_visible_cells():
    generator = torch.Generator().manual_seed(0)
    crop = torch.randn(2, 3, 8, 8, 12, generator=generator)
    visible = torch.rand(2, 4, 4, 6, generator=generator) < 0.4
    level = VisibleCells.from_dense(crop, visible, cell=2)
    found = places_of(level, (2, 2, 3))
    dense = torch.nn.functional.avg_pool3d(crop, 2)
    for values, sample, (d, h, w) in zip(found.features, found.sample.tolist(), found.tile.tolist(), strict=True):
        box = (slice(2 * d, 2 * d + 2), slice(2 * h, 2 * h + 2), slice(3 * w, 3 * w + 3))
        seen = visible[(sample, *box)]
        assert torch.allclose(values, dense[(sample, slice(None), *box)][:, seen].mean(1), atol=1e-6)
    tiles = visible.float().unfold(1, 2, 2).unfold(2, 2, 2).unfold(3, 3, 3).sum((4, 5, 6)) > 0
    assert len(found.sample) == int(tiles.sum())


def test_low_precision_features_give_the_fp32_loss():
    q, k = features(6), features(9, seed=1)
    positive = torch.eye(6, 9, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        low = info_nce(q, k, positive, ~positive, 0.1)
    assert low.total.dtype == torch.float32
    assert float(low.total) == float(info_nce(q, k, positive, ~positive, 0.1).total)


def test_query_and_key_share_no_projector():
    query, key = objective_of(*CONTRAST).projectors.values()
    assert isinstance(query, Projector) and not {id(p) for p in query.parameters()} & {id(p) for p in key.parameters()}
    one, two = (side(features(3, side.hidden.in_features)) for side in (query, key))
    assert one.shape == two.shape == (3, 64) and not torch.allclose(one, two)
