"""The learning rate of fine-tuning, read from the optimiser at every step, against a table."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from downstream.labelled import Small, fresh_encoder, small_finetuning
from wavespark.downstream import Segment, fit
from wavespark.downstream.items import with_maps


@pytest.fixture
def rates() -> Iterator[list[set[float]]]:
    """The learning rates of all groups at every step of any optimiser."""
    seen: list[set[float]] = []

    def note(optimizer: torch.optim.Optimizer, *_: object) -> None:
        seen.append({round(float(group["lr"]), 12) for group in optimizer.param_groups})

    handle = register_optimizer_step_pre_hook(note)
    yield seen
    handle.remove()


def table(steps: int, warm: int, peak: float, end: float) -> list[float]:
    rising = [peak * (k + 1) / warm for k in range(warm)]
    left = steps - warm
    return rising + [peak * (end + (1 - end) * 0.5 * (1 + math.cos(math.pi * (k + 1) / left))) for k in range(left)]


def test_the_rate_warms_up_and_falls_to_its_final_fraction(small: Small, rates: list[set[float]]) -> None:
    words = ("run.steps=8", "optimizer.warmup=0.5", "optimizer.learning_rate=1e-3", "optimizer.final_fraction=0.1")
    task = Segment(classes=3, settings=small_finetuning(*words))
    fit(task, fresh_encoder(), with_maps(small.table, small.store, "label"), seed=0, pretrained=False)
    assert [len(group) for group in rates] == [1] * 8
    assert [next(iter(group)) for group in rates] == pytest.approx(table(8, 4, 1e-3, 0.1), rel=1e-6)


def test_every_group_of_a_pretrained_encoder_follows_the_same_schedule(small: Small, rates: list[set[float]]) -> None:
    words = ("run.steps=6", "optimizer.warmup=0.5", "optimizer.learning_rate=1e-3", "optimizer.layer_decay=0.5")
    task = Segment(classes=3, settings=small_finetuning(*words, "optimizer.final_fraction=0.0"))
    fit(task, fresh_encoder(), with_maps(small.table, small.store, "label"), seed=0, pretrained=True)
    expected = table(6, 3, 1e-3, 0.0)
    assert [max(group) for group in rates] == pytest.approx(expected, rel=1e-6, abs=1e-12)
    shares = {round(rate / max(group), 6) for group in rates[:3] for rate in group}
    assert shares == {0.5**k for k in range(len(shares))} and len(shares) > 2
