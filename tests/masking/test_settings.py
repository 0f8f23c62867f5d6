"""What the maskings accept and refuse, and what is known of a grid before anything runs."""

import dataclasses
import itertools

import pytest
import torch

from wavespark.errors import MaskError
from wavespark.masking import BlockMasking, NestedMasking, RatioSchedule


@pytest.mark.parametrize("masking", [BlockMasking, NestedMasking])
@pytest.mark.parametrize("bad", [
    {"ratio": 0}, {"ratio": 1}, {"ratio": -0.1}, {"ratio": 1.5}, {"ratio": float("nan")}, {"ratio": True},
    {"block": 0}, {"block": -1}, {"block": True}, {"block": "adaptiv"}, {"block": 1.5},
    {"grid": (8, 8)}, {"grid": (0, 8, 8)}, {"grid": (8, 8, -1)}, {"grid": (8, 8, 8.5)}, {"grid": (1, 1, 1)},
    {"grid": 1}, {"grid": "8,8,8"}, {"grid": None}, {"ratio": "0.6"},
])  # fmt: skip
def test_an_impossible_setting_is_refused_with_its_name_and_value(masking, bad):
    with pytest.raises(MaskError, match=next(iter(bad))) as refusal:
        masking(**{"grid": (8, 8, 8), **bad})
    assert isinstance(refusal.value, ValueError)
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize("local_ratio", [0, 1, 2, float("nan")])
def test_an_impossible_local_ratio_is_refused(local_ratio):
    with pytest.raises(MaskError, match="local_ratio"):
        NestedMasking(grid=(8, 8, 8), local_ratio=local_ratio)


def test_a_masking_is_a_value():
    assert BlockMasking(grid=[8, 8, 8]) == BlockMasking(grid=8) == BlockMasking(grid=torch.zeros(8, 8, 8).shape)
    assert hash(NestedMasking(grid=(2, 2, 2))) == hash(NestedMasking(grid=(2, 2, 2)))
    assert eval(repr(NestedMasking(grid=(2, 3, 4), block=2))) == NestedMasking(grid=(2, 3, 4), block=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        BlockMasking(grid=(8, 8, 8)).ratio = 0.5
    with pytest.raises(TypeError):
        BlockMasking((8, 8, 8))


@pytest.mark.parametrize("masking", [BlockMasking, NestedMasking])
def test_strict_needs_two_blocks_and_nothing_else_does(masking):
    for grid, block in itertools.product([(4, 4, 4), (2, 2, 2), (8, 8, 8), (4, 4, 5), (1, 1, 4)], [1, 2, 4, 5, 9]):
        masking(grid=grid, block=block)
        if all(cells <= block for cells in grid):
            with pytest.raises(MaskError, match="at least two"):
                masking(grid=grid, block=block, strict=True)
        else:
            masking(grid=grid, block=block, strict=True)
    for side in range(2, 17):
        masking(grid=(side, side, side), block="adaptive", strict=True)


@pytest.mark.parametrize(("side", "edge"), [(2, 1), (3, 2), (4, 2), (5, 4), (8, 4), (16, 4)])
def test_A18_the_adaptive_block_of_a_cube_follows_the_seed(side, edge):
    assert BlockMasking(grid=(side, side, side), block="adaptive").block_shape == (edge, edge, edge)


def test_A20_the_counts_are_known_before_anything_runs():
    masking = NestedMasking(grid=(6, 7, 3), block=2)
    assert (masking.num_cells, masking.num_hidden, masking.num_local) == (126, 76, 61)
    assert masking.blocks.block_shape == (2, 2, 2)
    masks = masking.sample(draws=[(0, 0, "a")])
    assert (int(masks.hidden.sum()), int(masks.local.sum())) == (masking.num_hidden, masking.num_local)


def test_sample_takes_either_draws_or_batch_and_generator():
    masking, generator = BlockMasking(grid=(2, 2, 2)), torch.Generator()
    for wrong in (
        {}, {"batch": 2}, {"generator": generator}, {"draws": []}, {"batch": 0, "generator": generator},
        {"draws": [(0, 0, "a")], "batch": 1, "generator": generator}, {"batch": True, "generator": generator},
    ):  # fmt: skip
        with pytest.raises(MaskError):
            masking.sample(**wrong)


def test_shares_are_those_of_the_valid_cells_of_the_batch():
    valid = torch.ones(2, 4, 4, 4, dtype=torch.bool)
    valid[1, 2:] = False
    m = NestedMasking(grid=(4, 4, 4)).sample(draws=[(0, 0, "a"), (0, 0, "b")], valid=valid)
    assert m.hidden_share == (38 + 19) / 96
    assert m.visible_share == pytest.approx(1 - m.hidden_share)
    assert m.shares() == {
        "visible_share": m.visible_share, "hidden_share": m.hidden_share,
        "global_share": (8 + 4) / 96, "local_share": (30 + 15) / 96,
    }  # fmt: skip


def test_a_schedule_goes_straight_from_start_to_end_and_stays():
    schedule = RatioSchedule(start=0.4, end=0.6, steps=10)
    assert schedule.at(0) == 0.4
    assert schedule.at(5) == pytest.approx(0.5)
    assert schedule.at(10) == schedule.at(10**9) == 0.6
    ratios = [schedule.at(step) for step in range(12)]
    assert ratios == sorted(ratios)
    later = dataclasses.replace(NestedMasking(grid=(8, 8, 8), ratio=0.4), ratio=schedule.at(7))
    assert later.num_hidden == round(0.54 * 512)


@pytest.mark.parametrize("bad", [{"start": 0.0}, {"end": 1.0}, {"steps": 0}, {"steps": 1.5}, {"start": float("nan")}])
def test_an_impossible_schedule_is_refused(bad):
    with pytest.raises(MaskError, match=next(iter(bad))):
        RatioSchedule(**{"start": 0.4, "end": 0.6, "steps": 10, **bad})
