"""Laws I13 and I14: the contrast is not solved before anything is learned, and features that collapse raise the alarm."""

import pytest
import torch

from engine.small import make_store, small_settings
from objectives.parts import CONTRAST, SAME_LOCATION, batch_for, objective_of, train
from wavespark.checkpoints import checkpoint_folders
from wavespark.config.objective import HealthSettings
from wavespark.engine import pretrain
from wavespark.engine.learning.objective import Objective, Term, Terms
from wavespark.engine.learning.step import Scoring, reconstruct
from wavespark.engine.run import components
from wavespark.engine.watching.alarms import Alarms
from wavespark.engine.watching.validation import health_of
from wavespark.errors import TrainingStopped
from wavespark.files import read_lines
from wavespark.masking import MaskPlan
from wavespark.objectives import info_nce, pairs, places_of

VARIANTS = pytest.mark.parametrize("words", [CONTRAST, SAME_LOCATION], ids=["second view", "same location"])


def contrast_of(objective, numbers=range(4), change=lambda pairs: pairs, monkeypatch=None):
    """(loss, chance) per query over some batches."""
    objective.contrast_open = True
    if monkeypatch is not None:
        monkeypatch.setattr("wavespark.engine.learning.objective.pairs", lambda *a: change(pairs(*a)))
    total = chance = count = 0.0
    for number in numbers:
        with torch.no_grad():
            terms = objective(batch_for(objective, number, count=4), number + 1).terms
        total, chance = total + float(terms["contrast"].total), chance + float(terms["contrast_chance"].total)
        count += int(terms["contrast"].count)
    return total / count, chance / count


@VARIANTS
@pytest.mark.parametrize("seed", range(3))
def test_a_fresh_model_does_not_solve_the_contrast(words, seed):
    loss, chance = contrast_of(objective_of(*words, seed=seed).eval())
    assert chance > 3
    assert loss >= 0.7 * chance


@VARIANTS
def test_with_the_positive_of_another_patient_the_loss_is_about_chance(words, monkeypatch):
    objective = objective_of(*words).eval()

    def elsewhere(found):
        """The positive becomes a random negative: as if it came from another patient."""
        positive, negative = found
        g = torch.Generator().manual_seed(0)
        moved = torch.zeros_like(positive)
        for row in (positive.any(1) & negative.any(1)).nonzero()[:, 0].tolist():
            options = negative[row].nonzero()[:, 0]
            moved[row, options[torch.randint(len(options), (), generator=g)]] = True
        return moved, (negative | positive) & ~moved

    loss, chance = contrast_of(objective, change=elsewhere, monkeypatch=monkeypatch)
    assert abs(loss - chance) < 0.15 * chance


def test_the_law_catches_what_the_seed_did():
    """One projector for both sides, query and key from the same features of the same pass: solved before the first update."""
    objective = objective_of(*SAME_LOCATION).eval()
    batch = batch_for(objective, count=4)
    with torch.no_grad():
        masks = objective.plan.masks(batch.mask_keys, 1)
        scoring = Scoring(variance_floor=1e-4)
        levels = reconstruct(objective.model, batch, masks, 0, 1, scoring, levels_too=True).levels
        places = places_of(levels[-1])
        projected = objective.projectors["key"](places.features)
        positive, negative = pairs(places, places, batch.patients)
        found = info_nce(projected, projected, positive, negative, 0.15)
    assert float(found.total) < 0.7 * float(found.chance)


def collapse_terms(self, batch, step):
    """The seed's target choice: the network's own un-detached features."""
    model = self.model
    scoring = Scoring(variance_floor=1e-4)
    one, other = (
        reconstruct(
            model,
            batch,
            self.plan.masks([f"{k}{end}" for k in batch.mask_keys], step),
            0,
            step,
            scoring,
            levels_too=True,
        )
        for end in ("", ":other")
    )
    a, b = places_of(one.levels[-1]), places_of(other.levels[-1])
    positive, _ = pairs(a, b, batch.patients or batch.mask_keys)
    difference = torch.cdist(a.features, b.features).square()[positive].sum() + 0 * one.score.error
    return Terms(terms={"own features": Term(total=difference, count=positive.sum())}, score=one.score, masks=one.masks)


def health(model, step):
    """A line of validation.jsonl as far as the alarm reads it."""
    plan, was = MaskPlan(grid=(5, 5, 5)), model.training
    model.eval()
    objective, found = objective_of(), []
    with torch.no_grad():
        for end in ("", ":other"):
            levels = []
            for k in range(4):
                batch = batch_for(objective, 500 + k, count=1)
                masks = plan.held_out_masks([f"{key}{end}" for key in batch.mask_keys])
                levels.append(
                    reconstruct(model, batch, masks, 0, 0, Scoring(variance_floor=1e-4), levels_too=True).levels
                )
            found.append(levels)
    model.train(was)
    return {"step": step, "normalised_loss": 0.5, **health_of(model.encoder.strides, *found)[-1]}


def alarms(**settings):
    return Alarms(HealthSettings(**settings), 0, [].append, "RUN/checkpoints")


def test_the_collapse_of_a_network_that_chases_its_own_features_is_caught():
    objective, watch = objective_of(), alarms()
    objective.forward = collapse_terms.__get__(objective)
    watch.measured(health(objective.model, 0))
    with pytest.raises(TrainingStopped, match="features collapse") as caught:
        for step in range(10, 121, 10):
            train(objective, 10, rate=5e-3, first=step - 9)
            watch.measured(health(objective.model, step))
    assert caught.value.exit_code == 4


def test_a_run_that_learns_keeps_its_features_and_raises_no_alarm():
    """That its loss falls below 0.9 is a test of the engine's; here a few steps are enough."""
    objective, watch = objective_of(), alarms()
    first = health(objective.model, 0)
    watch.measured(first)
    losses = train(objective, 40)
    last = health(objective.model, 40)
    for step in (40, 41):
        watch.measured(last | {"step": step})
    assert watch.collapsed_in_a_row == 0 and watch.sound_at == 41
    assert last["effective_rank"] > 0.25 * first["effective_rank"]
    assert sum(losses[-5:]) < sum(losses[:5])


def test_a_run_whose_features_collapse_stops_with_code_4_and_keeps_its_checkpoints(tmp_path, monkeypatch):
    class Chasing(Objective):
        forward = collapse_terms

    monkeypatch.setattr(components, "Objective", Chasing)
    store = make_store(tmp_path, ("MR", "MR"))
    settings = small_settings(
        "run.steps=200",
        "run.validate_every=20",
        "run.checkpoint_every=20",
        "optimizer.learning_rate=1e-2",
        "optimizer.warmup_steps=0",
    )
    with pytest.raises(TrainingStopped, match="last sound measure was at step") as caught:
        pretrain(settings, store, tmp_path / "run")
    assert caught.value.exit_code == 4
    assert len(str(caught.value).splitlines()) == 1
    lines = read_lines(tmp_path / "run" / "validation.jsonl", strict=False)
    assert checkpoint_folders(tmp_path / "run" / "checkpoints")
    assert (
        lines[-1]["feature_std"] < 0.1 * lines[0]["feature_std"]
        or lines[-1]["effective_rank"] < 0.25 * lines[0]["effective_rank"]
    )
