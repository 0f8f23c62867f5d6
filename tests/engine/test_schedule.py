"""The learning rate, step by step, against a table that was worked out by hand."""

import pytest

from wavespark.config import load_pretraining
from wavespark.engine.learning.optimizer import rate_at

ROOT_HALF = 0.5**0.5
"""The cosine of 45 degrees."""


def rates(steps: int, **words: float) -> list[float]:
    settings = load_pretraining("tiny-cpu", [f"run.steps={steps}", *(f"optimizer.{k}={v}" for k, v in words.items())])
    return [rate_at(step, settings) for step in range(1, steps + 1)]


def test_the_rate_rises_in_a_line_and_falls_by_half_a_cosine_to_its_final_fraction() -> None:
    falling = [1.0 * (0.2 + 0.8 * 0.5 * (1 + c)) for c in (ROOT_HALF, 0.0, -ROOT_HALF, -1.0)]
    expected = [0.25, 0.5, 0.75, 1.0, *falling]
    assert rates(8, learning_rate=1.0, warmup_steps=4, final_fraction=0.2) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("final_fraction", [0.0, 0.02, 0.5, 1.0])
def test_the_last_step_has_the_final_fraction_of_the_peak(final_fraction: float) -> None:
    last = rates(50, learning_rate=3e-4, warmup_steps=5, final_fraction=final_fraction)[-1]
    assert last == pytest.approx(3e-4 * final_fraction, abs=1e-18)


def test_halfway_through_the_fall_the_rate_is_halfway_between_peak_and_end() -> None:
    assert rates(30, learning_rate=2.0, warmup_steps=10, final_fraction=0.1)[19] == pytest.approx(2.0 * 0.55)


def test_a_short_run_warms_up_for_half_of_its_steps_at_most() -> None:
    assert rates(4, learning_rate=1.0, warmup_steps=20, final_fraction=0.0) == pytest.approx([0.5, 1.0, 0.5, 0.0])


def test_without_warm_up_the_first_step_is_already_below_the_peak() -> None:
    expected = [0.5 * (1 + ROOT_HALF), 0.5, 0.5 * (1 - ROOT_HALF), 0.0]
    assert rates(4, learning_rate=1.0, warmup_steps=0, final_fraction=0.0) == pytest.approx(expected)
    assert rates(1, learning_rate=1.0, warmup_steps=20, final_fraction=0.25) == pytest.approx([0.25])
