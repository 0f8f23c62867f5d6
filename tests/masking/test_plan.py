"""The plan of a run's masks: who is hidden at a step, and why; forced cells; the numbers that the command line shows."""

import numpy as np
import pytest
import torch

from wavespark.config import load_pretraining
from wavespark.errors import MaskError
from wavespark.masking import BlockMasking, MaskPlan, MaskSchedule

GRID = (4, 4, 4)
KEYS = ["a", "b"]


def footprint(*cells: tuple[int, int, int]) -> torch.Tensor:
    chosen = torch.zeros(2, *GRID, dtype=torch.bool)
    for d, h, w in cells:
        chosen[:, d, h, w] = True
    return chosen


CORNER = footprint(*[(d, h, w) for d in range(2) for h in range(2) for w in range(2)])


@pytest.mark.parametrize("step", [1, 2, 50])
def test_forced_cells_are_hidden_or_visible_and_the_counts_stay_exact(step: int) -> None:
    plan = MaskPlan(grid=GRID, schedule=MaskSchedule(ratio=0.5))
    hide, show = (plan.masks_around(CORNER, KEYS, step, hide=h) for h in (True, False))
    assert (hide.hidden >= CORNER).all() and (show.visible >= CORNER).all()
    for masks in (hide, show):
        assert masks.hidden.sum((1, 2, 3)).tolist() == [32, 32]
        assert not torch.equal(masks.hidden[0], masks.hidden[1])


def test_forcing_a_cell_draws_the_others_as_an_overwhelming_weight_would() -> None:
    """The rule of earlier versions: a weight of 1e30 for what is hidden, of 1e-30 for what is shown."""
    masking, draws = BlockMasking(grid=GRID, ratio=0.6), [(3, 7, key) for key in KEYS]
    guide = torch.rand(2, *GRID, generator=torch.Generator().manual_seed(0)) + 0.1
    for weights in (torch.ones(2, *GRID), guide):
        expected = masking.sample(draws=draws, weights=torch.where(CORNER, 1e30, weights))
        assert torch.equal(masking.sample(draws=draws, weights=weights, hide=CORNER).hidden, expected.hidden)
    expected = masking.sample(draws=draws, weights=torch.where(CORNER, 1e-30, torch.ones(2, *GRID)))
    assert torch.equal(masking.sample(draws=draws, show=CORNER).hidden, expected.hidden)


def test_a_forced_cell_is_hidden_even_if_its_weight_is_zero() -> None:
    weights = torch.where(CORNER, 0.0, 1.0)
    masks = BlockMasking(grid=GRID, ratio=0.5).sample(draws=[(0, 1, k) for k in KEYS], weights=weights, hide=CORNER)
    assert (masks.hidden >= CORNER).all()


@pytest.mark.parametrize(("ratio", "hide"), [(0.1, True), (0.9, False)])
def test_a_footprint_without_room_is_refused_with_the_numbers(ratio: float, hide: bool) -> None:
    plan = MaskPlan(grid=GRID, schedule=MaskSchedule(ratio=ratio))
    with pytest.raises(MaskError, match=r"8 cell\(s\)|and 8 visible.*second_view_cells|no room"):
        plan.masks_around(CORNER, KEYS, 1, hide=hide)


def test_cells_of_larger_blocks_cannot_be_forced() -> None:
    with pytest.raises(MaskError, match="single cells"):
        BlockMasking(grid=GRID, block=2).sample(draws=[(0, 0, k) for k in KEYS], hide=CORNER)


def test_the_masks_of_a_step_are_those_of_its_masking_for_seed_step_and_key_alone() -> None:
    plan = MaskPlan(grid=GRID, schedule=MaskSchedule(ratio=0.75, ratio_start=0.25, ratio_steps=4), seed=5)
    for step, count in ((1, 16), (3, 32), (5, 48), (100, 48)):
        expected = BlockMasking(grid=GRID, ratio=count / 64).sample(draws=[(5, step, key) for key in KEYS])
        assert torch.equal(plan.masks(KEYS, step).hidden, expected.hidden)
    held_out = BlockMasking(grid=GRID, ratio=0.75).sample(draws=[(5, 0, key) for key in KEYS])
    assert torch.equal(plan.held_out_masks(KEYS).hidden, held_out.hidden)


def test_the_plan_of_settings_has_their_grid_shares_seed_and_second_view() -> None:
    words = ["run.seed=7", "mask.ratio=0.7", "mask.local_ratio=0.8", "objective.second_view=1"]
    plan = load_pretraining("tiny-cpu", words).mask_plan((8, 8, 8))
    assert (plan.grid, plan.seed, plan.tile, plan.fine_grid) == ((8, 8, 8), 7, (2, 2, 2), (4, 4, 4))
    assert (plan.masking(1).ratio, plan.fine_masking(1).ratio) == (0.7, 0.8)
    assert plan.fine_masks(KEYS, 1).hidden.sum((1, 2, 3)).tolist() == [51, 51]
    single = load_pretraining("tiny-cpu").mask_plan((8, 8, 8))
    assert single.tile is None
    with pytest.raises(MaskError, match="no second view"):
        single.fine_masking(1)


def test_the_explanation_says_how_many_why_and_which() -> None:
    words = [
        "mask.ratio_start=0.25",
        "mask.ratio=0.75",
        "mask.ratio_steps=2",
        "mask.guide=vessels",
        "mask.guide_steps=4",
    ]
    plan = load_pretraining("tiny-cpu", [*words, "objective.second_view=1"]).mask_plan((8, 8, 8))
    text = " ".join(plan.explain(2))
    for part in (
        "Step 2: 256 of 512",
        "from 0.25 to 0.75 over 2 steps",
        "vessels",
        "12.5 %",
        "2 x 2 x 2 = 8 cells",
        "384 of 512",
    ):
        assert part in text
    drawn = " ".join(load_pretraining("tiny-cpu", ["mask.ratio_low=0.3"]).mask_plan((8, 8, 8)).explain(1))
    assert "drawn for this step between 0.3 and 0.6" in drawn
    assert "at every step" in " ".join(MaskPlan(grid=GRID).explain(1))


def test_forced_cells_leave_the_other_cells_equally_likely() -> None:
    plan = MaskPlan(grid=GRID, schedule=MaskSchedule(ratio=0.5))
    share = np.mean(
        [plan.masks_around(CORNER, KEYS, s, hide=True).hidden.float().mean(0).numpy() for s in range(300)], 0
    )
    others = share[~CORNER[0].numpy()]
    assert abs(others.mean() - 24 / 56) < 1e-6 and others.std() < 0.04
