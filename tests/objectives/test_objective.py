"""The objective of a run: every recipe has finite losses and trains all its weights; nothing leaks, nothing is shared between runs."""

import copy
import math

import pytest
import torch

from objectives.parts import CELL, CONTRAST, SAME_LOCATION, SECOND_VIEW, batch_for, objective_of, settings_of, train
from wavespark.engine.learning.step import Scoring, reconstruct

RECIPES = {
    "reconstruction": (),
    "second view": SECOND_VIEW,
    "contrast": CONTRAST,
    "same location": SAME_LOCATION,
    "dense": ("objective.dense=true",),
    "everywhere": ("objective.where=everywhere",),
    "hard cells": ("mask.guide=hard",),
    "foreground": ("mask.guide=foreground",),
    "vessels": ("mask.guide=vessels",),
    "growing ratio": ("mask.ratio_start=0.3", "mask.ratio_steps=4"),
}
ALL = pytest.mark.parametrize("words", list(RECIPES.values()), ids=list(RECIPES))


def opened(*words, **more):
    """With the contrast under way."""
    objective = objective_of(*words, **more)
    objective.contrast_open = objective.projectors is not None
    return objective


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@ALL
def test_every_trained_weight_gets_a_gradient_and_the_slow_copy_none(words):
    objective = opened(*words).train()
    objective(batch_for(objective), 3).loss.backward()
    unused = [name for name, p in objective.named_parameters() if p.grad is None]
    assert unused == []
    assert all(torch.isfinite(p.grad).all() for p in objective.parameters())
    if objective.teacher is not None:
        assert not any(p.requires_grad or p.grad is not None for p in objective.teacher.model.parameters())
        assert not {id(p) for p in objective.teacher.model.parameters()} & {id(p) for p in objective.parameters()}


@ALL
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_finite_in_low_precision_and_near_fp32(words, dtype):
    """Law I28."""
    objective = opened(*words).eval()
    with torch.no_grad():
        exact = objective(batch_for(objective), 2).loss
        with torch.autocast("cpu", dtype):
            low = objective(batch_for(objective), 2)
    assert all(torch.isfinite(t.total) for t in low.terms.values())
    assert abs(float(low.loss) - float(exact)) < 0.05 * float(exact)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_are_finite_in_low_precision(dtype):
    objective = opened(*CONTRAST).train()
    with torch.autocast("cpu", dtype):
        loss = objective(batch_for(objective), 2).loss
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in objective.parameters())


@pytest.mark.parametrize("words", [CONTRAST, ("mask.guide=hard",)], ids=["contrast", "hard cells"])
def test_two_runs_with_slow_copies_side_by_side_are_as_they_are_apart(words):
    """Law I25."""
    apart = [opened(*words, seed=seed) for seed in (0, 1)]
    for objective in apart:
        train(objective, 4)
    beside = [opened(*words, seed=seed) for seed in (0, 1)]
    optimizers = [torch.optim.AdamW(o.parameters(), lr=2e-3) for o in beside]
    for step in range(1, 5):
        for objective, optimizer in zip(beside, optimizers, strict=True):
            optimizer.zero_grad()
            objective(batch_for(objective, step), step).loss.backward()
            torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
            optimizer.step()
            objective.after_update(step)
    for one, other in zip(apart, beside, strict=True):
        assert same(one, other) and same(one.teacher.model, other.teacher.model)
    assert not same(apart[0].model, apart[1].model)


@pytest.mark.parametrize("words", [CONTRAST, ("mask.guide=hard",)], ids=["contrast", "hard cells"])
def test_what_a_checkpoint_holds_puts_everything_back(words):
    objective = opened(*words)
    train(objective, 3)
    tensors, state = copy.deepcopy(objective.extra_tensors()), objective.extra_state()
    fresh = objective_of(*words)
    fresh.model.load_state_dict(objective.model.state_dict())
    fresh.restore(tensors, state)
    batch = batch_for(objective, 9)
    with torch.no_grad():
        assert float(fresh(batch, 9).loss) == float(objective(batch, 9).loss)
    assert fresh.contrast_open == objective.contrast_open


def test_the_slow_copy_is_the_moving_average_of_the_weights():
    objective = objective_of("mask.guide=hard", "objective.teacher_momentum=0.3")
    expected = {k: v.detach().clone() for k, v in objective.model.named_parameters()}
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    for step in range(1, 4):
        optimizer.zero_grad()
        objective(batch_for(objective, step), step).loss.backward()
        optimizer.step()
        objective.after_update(step)
        keep = min(0.3, (1 + step) / (10 + step))
        for name, p in objective.model.named_parameters():
            expected[name] = keep * expected[name] + (1 - keep) * p.detach()
    for name, p in objective.teacher.model.named_parameters():
        assert torch.allclose(p, expected[name], atol=1e-6)


def test_a_slow_copy_exists_only_where_something_needs_it():
    assert objective_of().teacher is None and objective_of(*SECOND_VIEW).teacher is None
    assert objective_of("mask.guide=hard").teacher is not None


def test_the_contrast_begins_once_the_held_out_loss_is_low_enough():
    said = []
    objective = objective_of(*CONTRAST, "objective.contrast_below=0.9")
    objective.log = said.append
    for step, loss in enumerate((1.0, None, 0.95)):
        objective.measured({"step": step, "normalised_loss": loss})
        assert "contrast" not in objective(batch_for(objective), 1).terms
    objective.measured({"step": 7, "normalised_loss": 0.89})
    objective.measured({"step": 8, "normalised_loss": 0.99})  # it does not stop again
    assert "contrast" in objective(batch_for(objective), 1).terms
    assert len(said) == 1 and "step 7" in said[0] and "0.890" in said[0]


@pytest.mark.parametrize("words", [(), ("objective.dense=true",)], ids=["visible only", "dense"])
def test_nothing_of_hidden_voxels_reaches_a_prediction(words):
    objective = objective_of(*words).eval()
    batch = batch_for(objective)
    masks = objective.plan.masks(batch.mask_keys, 1)
    scoring = Scoring.of(objective.settings.objective)
    hidden = masks.hidden
    for axis in range(3):
        hidden = hidden.repeat_interleave(CELL, axis + 1)
    for fill in (math.nan, math.inf, 1e4):
        changed = copy.copy(batch)
        object.__setattr__(changed, "voxels", batch.voxels.masked_fill(hidden[:, None], fill))
        with torch.no_grad():
            a = reconstruct(objective.model, batch, masks, 0, 1, scoring).prediction
            b = reconstruct(objective.model, changed, masks, 0, 1, scoring).prediction
        assert torch.equal(a, b)


def test_the_loss_is_the_weighted_sum_of_its_parts():
    objective = opened(*CONTRAST, "objective.second_view=0.5", "objective.contrast=0.25")
    terms = objective(batch_for(objective), 1)
    parts = {name: float((t.total / t.count).detach()) for name, t in terms.terms.items()}
    assert list(parts) == ["reconstruction", "second_view", "contrast", "contrast_chance"]
    expected = parts["reconstruction"] + 0.5 * parts["second_view"] + 0.25 * parts["contrast"]
    assert float(terms.loss.detach()) == pytest.approx(expected, rel=1e-6)


def test_the_hidden_share_follows_its_schedule_and_stays_exact():
    objective = objective_of("mask.ratio_start=0.2", "mask.ratio=0.6", "mask.ratio_steps=4", grid=5)
    hidden = [int(objective(batch_for(objective, s), s).masks.hidden[0].sum()) for s in (1, 3, 5, 9)]
    assert hidden == [25, 50, 75, 75]


def test_the_share_of_the_second_view_follows_a_schedule_of_its_own():
    """The seed's: 0.4 to 0.6 of the first view, 0.6 to 0.8 of the second."""
    schedule = (
        "mask.ratio_start=0.4",
        "mask.ratio=0.6",
        "mask.local_ratio_start=0.6",
        "mask.local_ratio=0.8",
        "mask.ratio_steps=4",
    )
    settings = settings_of(*SECOND_VIEW, "objective.second_view_factor=[5, 2, 1]", *schedule)
    fine = [settings.mask_plan((8, 8, 8)).fine_masking(step) for step in (1, 3, 5, 9, None)]
    assert [m.grid for m in fine] == [(5, 2, 1)] * 5
    assert [int(m.sample(draws=[(0, 0, "a")]).hidden.sum()) for m in fine] == [6, 7, 8, 8, 8]
    assert settings_of(*SECOND_VIEW, "mask.ratio=0.5").mask_plan((8, 8, 8)).fine_masking(1).ratio == 0.5


def test_guided_masks_hide_cells_of_the_head_more_often():
    objective = objective_of("mask.guide=foreground", "mask.guide_strength=0.8", "mask.ratio=0.3")
    batch = batch_for(objective)
    batch.foreground[:, :10] = False
    shares = torch.zeros(5)
    for step in range(40):
        shares += objective(batch, step + 1).masks.hidden.float().mean((0, 2, 3)) / 40
    assert shares[3:].mean() > 2 * shares[:2].mean()
