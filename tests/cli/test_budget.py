"""The quickstart keeps to its minutes on fast and on slow machines."""

import pytest

from wavespark.cli.budget import FEWEST_STEPS, IN_A_RUN, MEASURES, PATIENT, REPORT, Pace, patients_for, steps_for


def quickstart_on(slowness: float, minutes: float) -> tuple[float, int]:
    """Return (seconds, steps) of a quickstart on a machine with a fake clock that is so many times as slow."""
    head, step, measure = 0.4 * slowness, 0.6 * slowness, 4.0 * slowness
    clock = 4.0 * slowness + 2 * head  # imports, and the small head that measures the machine
    patients = patients_for(60 * minutes, head)
    clock += patients * PATIENT * head + slowness  # samples, and the real brain
    clock += 5 * step + measure  # steps and a held-out measure on the clock
    steps = steps_for(60 * minutes - clock, Pace(head=head, step=step, measure=measure))
    clock += IN_A_RUN * step * steps + (MEASURES + 1) * measure + REPORT * head
    return clock, steps


@pytest.mark.parametrize("minutes", [3, 5, 10, 30])
@pytest.mark.parametrize("slowness", [0.25, 1, 2, 4])
def test_all_phases_fit_into_the_minutes(slowness: float, minutes: float) -> None:
    seconds, steps = quickstart_on(slowness, minutes)
    assert steps == FEWEST_STEPS or seconds <= 60 * minutes


@pytest.mark.parametrize("slowness", [0.25, 1, 2, 4])
def test_five_minutes_are_kept_and_used(slowness: float) -> None:
    seconds, steps = quickstart_on(slowness, 5)
    assert steps > FEWEST_STEPS
    assert 0.95 * 300 <= seconds <= 300


def test_a_slow_machine_gets_fewer_patients_and_fewer_steps() -> None:
    assert patients_for(120, 4.0) < patients_for(300, 0.4)
    assert quickstart_on(4, 5)[1] < quickstart_on(1, 5)[1]
