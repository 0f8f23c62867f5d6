"""The seed's rule, shown as it is: its table (SPEC A13 to A15) and its faults."""

from collections import Counter

import numpy as np
import pytest

from wavespark.errors import MaskError
from wavespark.masking import LegacyRule, legacy_table


def test_A13_the_rows_of_the_seeds_table():
    rows = [(r.grid[0], r.blocks, r.num_masked, r.hides_everything) for r in legacy_table()]
    assert rows == [(2, (1, 1, 1), 1, True), (4, (1, 1, 1), 1, True), (8, (2, 2, 2), 4, False)]


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_A14_up_to_4_cells_nothing_is_ever_visible(side):
    masks = LegacyRule(grid=(side, side, side)).sample(batch=20, generator=np.random.default_rng(0))
    assert not masks.visible.any()
    assert masks.hidden.all()
    assert len(masks.visible_sites) == 0


def test_A15_512_of_1024_visible_always_and_128_to_384_most_often():
    rule = LegacyRule(grid=(8, 8, 8))
    draws = rule.sample(batch=2 * 3000, generator=np.random.default_rng(0))
    splits = Counter()
    for name in ("visible", "global_only", "local"):
        counts = getattr(draws, name).reshape(3000, -1).sum(1).tolist()
        splits[name] = Counter(counts)
    assert splits["visible"] == {512: 3000}
    assert splits["global_only"].most_common(1)[0][0] == 128
    local, times = splits["local"].most_common(1)[0]
    visible, global_only, expected_local, probability = rule.most_frequent(2)
    assert (visible, global_only, expected_local, local) == (512, 128, 384, 384)
    assert times / 3000 == pytest.approx(probability, abs=4 * (0.42 * 0.58 / 3000) ** 0.5)
    assert (draws.shares()["visible_share"], rule.visible_range) == (0.5, (256, 256))


def test_the_range_of_visible_cells_holds_every_draw_and_is_reached():
    rule = LegacyRule(grid=(3, 3, 3), block=2)
    visible = rule.sample(batch=3000, generator=np.random.default_rng(0)).visible.sum((1, 2, 3))
    assert rule.visible_range == (int(visible.min()), int(visible.max()))
    assert rule.most_frequent(1) is None


def test_a_legacy_draw_masks_whole_blocks():
    hidden = LegacyRule(grid=(8, 8, 12)).sample(batch=5, generator=np.random.default_rng(0)).hidden
    shares = hidden.reshape(5, 2, 4, 2, 4, 3, 4).float().mean((2, 4, 6))
    assert set(shares.unique().tolist()) == {0.0, 1.0}
    assert shares.sum((1, 2, 3)).tolist() == [7.0] * 5


BAD = [{"ratio": 1.0}, {"local_ratio": 0}, {"block": "adaptive"}, {"block": 0}, {"grid": (0, 1, 1)}]


@pytest.mark.parametrize("bad", BAD)
def test_an_impossible_legacy_setting_is_refused(bad):
    with pytest.raises(MaskError):
        assert LegacyRule(**{"grid": (8, 8, 8), **bad}).blocks
