"""Long work is never silent, and long logs stay short."""

import itertools

from wavespark.cli.console import PATIENT_AFTER, PATIENT_SECONDS, ProgressLines


class FakeClock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run_silently(seconds: int) -> list[tuple[float, str]]:
    """Return (second, line) of work that says nothing for so long."""
    clock, lines = FakeClock(), []
    shown = ProgressLines("estimate", lambda text: lines.append((clock.now - 100.0, text)), clock)
    for _ in range(seconds):
        clock.now += 1.0
        shown.beat()
    return lines


def test_work_that_makes_no_call_is_silent_for_less_than_five_seconds() -> None:
    times = [0.0, *(second for second, _ in run_silently(300)), 300.0]
    assert max(b - a for a, b in itertools.pairwise(times)) < 5


def test_a_job_of_hours_writes_two_lines_a_minute() -> None:
    late = [second for second, _ in run_silently(7200) if second > PATIENT_AFTER + PATIENT_SECONDS]
    assert {b - a for a, b in itertools.pairwise(late)} == {30.0}


def test_lines_tell_the_share_the_text_and_the_time_left() -> None:
    clock, lines = FakeClock(), []
    shown = ProgressLines("pretrain", lines.append, clock)
    shown(0, 10, "loading")
    clock.now += 2
    shown(1, 10, "step 1")  # two seconds after the last line: not yet
    clock.now += 3
    shown(2, 10, "step 2")
    clock.now += 1
    shown(10, 10, "step 10")
    assert lines == [
        "pretrain: loading",
        "pretrain: 20 % · step 2, about 0:20 left",
        "pretrain: 100 % · step 10, 0:06 so far",
    ]


def test_a_new_phase_before_the_first_figure_is_told_at_once() -> None:
    lines: list[str] = []
    shown = ProgressLines("pretrain", lines.append, FakeClock())
    shown(0, 1, "loading PyTorch")
    shown(0, 400, "measuring the start")
    shown(0, 400, "measuring the start")
    assert lines == ["pretrain: loading PyTorch", "pretrain: measuring the start"]
