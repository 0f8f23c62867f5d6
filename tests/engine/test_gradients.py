"""Gradients of an update, compared as gradients: in parts, with several terms, clipped. AdamW hides a wrong scale, so nothing here looks at its weights."""

from dataclasses import replace

import pytest
import torch

from objectives.parts import SECOND_VIEW, batch_for, objective_of
from wavespark.engine.learning.objective import Objective
from wavespark.engine.learning.update import Measured, Updater
from wavespark.engine.machine.distributed import Ranks
from wavespark.engine.machine.faults import Faults
from wavespark.engine.machine.precision import Precision
from wavespark.sampling import Batch

COUNT = 4
STEP = 3
TERMS = {"one term": (), "two terms": ("objective.second_view=0.5", SECOND_VIEW[1])}


def objective_in(parts: int, *words: str) -> Objective:
    return objective_of(f"data.batch={COUNT}", f"run.accumulate={parts}", "run.device=cpu", *words).train()


def updated(objective: Objective, batch: Batch, rate: float = 1.0) -> Measured:
    """One update with plain SGD."""
    optimizer = torch.optim.SGD(objective.parameters(), lr=123.0)
    precision = Precision(objective.settings, torch.device("cpu"))
    update = Updater(objective.settings, objective, objective, optimizer, precision, Ranks(), Faults())
    return update(batch, STEP, rate)


def gradients(objective: Objective) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}


def uneven_batch(objective: Objective) -> Batch:
    """Samples of which the later ones show less and less of the head."""
    batch = batch_for(objective, count=COUNT)
    foreground = batch.foreground.clone()
    for k in range(COUNT):
        foreground[k, : 4 * k] = False
    return replace(batch, foreground=foreground)


def own_gradients(objective: Objective, batch: Batch, parts: int) -> tuple[dict[str, torch.Tensor], float]:
    """The mean of the gradients of the parts, each computed alone; and the mean of their losses. No code of the updater."""
    size = COUNT // parts
    total: dict[str, torch.Tensor] = {}
    loss = 0.0
    for k in range(parts):
        at = slice(k * size, (k + 1) * size)
        part = replace(
            batch,
            voxels=batch.voxels[at],
            foreground=batch.foreground[at],
            draws=batch.draws[at],
            mask_keys=batch.mask_keys[at],
            patients=batch.patients[at],
        )
        objective.zero_grad(set_to_none=True)
        terms = objective(part, STEP).terms.values()
        value = sum(t.weight * t.total / t.count for t in terms) / parts
        value.backward()
        loss += float(value.detach())
        for name, gradient in gradients(objective).items():
            total[name] = total.get(name, 0.0) + gradient
    return total, loss


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    scale = max(float(g.abs().max()) for g in one.values())
    wrong = [n for n, g in one.items() if not torch.allclose(g, other[n], rtol=1e-4, atol=1e-6 * scale)]
    assert not wrong


@pytest.mark.parametrize("words", list(TERMS.values()), ids=list(TERMS))
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_the_gradient_of_an_update_is_the_mean_of_the_gradients_of_its_parts(
    parts: int, words: tuple[str, ...]
) -> None:
    objective = objective_in(parts, "optimizer.clip=1e9", *words)
    batch = uneven_batch(objective)
    expected, loss = own_gradients(objective, batch, parts)
    line = updated(objective, batch, rate=0.0).line()
    assert_close(gradients(objective), expected)
    assert line["loss"] == pytest.approx(loss, rel=1e-5)
    norm = torch.stack([g.square().sum() for g in expected.values()]).sum().sqrt()
    assert line["gradient_norm"] == pytest.approx(float(norm), rel=1e-4)


@pytest.mark.parametrize("words", list(TERMS.values()), ids=list(TERMS))
def test_parts_that_score_alike_have_the_gradient_of_the_batch_at_once(words: tuple[str, ...]) -> None:
    found = {}
    for parts in (1, 4):
        objective = objective_in(parts, "optimizer.clip=1e9", "objective.where=everywhere", *words)
        line = updated(objective, batch_for(objective, count=COUNT), rate=0.0).line()
        found[parts] = gradients(objective), line["loss"], line["normalised_loss"]
    assert_close(found[1][0], found[4][0])
    assert found[1][1:] == pytest.approx(found[4][1:], rel=1e-5)


@pytest.mark.parametrize("parts", [1, 2])
def test_an_update_moves_each_weight_by_its_rate_times_the_clipped_gradient(parts: int) -> None:
    objective = objective_in(parts, "optimizer.clip=0.01")
    batch = batch_for(objective, count=COUNT)
    expected, _ = own_gradients(objective, batch, parts)
    norm = torch.stack([g.square().sum() for g in expected.values()]).sum().sqrt()
    assert norm > 0.01
    before = {name: p.detach().clone() for name, p in objective.named_parameters()}
    updated(objective, batch, rate=500.0)  # so large that the weights' own rounding does not matter
    moved = {name: (before[name] - p.detach()) for name, p in objective.named_parameters() if name in expected}
    assert_close(moved, {name: 500.0 * g * 0.01 / norm for name, g in expected.items()})
