"""Alarms: on what, how loud, and once."""

from contextlib import nullcontext

import pytest

from wavespark.config.objective import HealthSettings
from wavespark.engine.watching.alarms import Alarms
from wavespark.errors import TrainingStopped


def made(**settings):
    said = []
    return Alarms(HealthSettings(**settings), 20, said.append, "RUN/checkpoints"), said


def line(step, rank=20.0, spread=1.0, loss=0.5):
    return {"step": step, "effective_rank": rank, "feature_std": spread, "normalised_loss": loss}


@pytest.mark.parametrize("sign", [{"rank": 4.9}, {"spread": 0.09}])
def test_a_collapse_stops_at_the_second_measure_that_shows_it(sign):
    alarms, said = made()
    alarms.measured(line(0))
    alarms.measured(line(100))
    alarms.measured(line(200, **sign))
    with pytest.raises(
        TrainingStopped, match=r"step 300: .*at step 100; .*RUN/checkpoints.*health\.collapse=warn"
    ) as caught:
        alarms.measured(line(300, **sign))
    assert caught.value.exit_code == 4 and not said


@pytest.mark.parametrize("sound", [{"rank": 5.0}, {"rank": 5.01}, {"spread": 0.1}, {"spread": 0.101}])
def test_features_at_the_threshold_or_above_are_no_collapse(sound):
    alarms, said = made()
    for step in range(0, 500, 100):
        alarms.measured(line(step, **(sound if step else {})))
    assert not said and alarms.collapsed_in_a_row == 0


@pytest.mark.parametrize("bad", [{"rank": 4.99}, {"spread": 0.0999}])
def test_features_just_below_the_threshold_are_a_collapse(bad):
    alarms, _ = made()
    alarms.measured(line(0))
    alarms.measured(line(100, **bad))
    assert alarms.collapsed_in_a_row == 1
    with pytest.raises(TrainingStopped):
        alarms.measured(line(200, **bad))


@pytest.mark.parametrize(("loss", "warnings"), [(0.989, 0), (0.99, 0), (0.9901, 1), (1.2, 1)])
def test_a_loss_at_the_threshold_counts_as_learned_and_above_it_does_not(loss, warnings):
    alarms, said = made(patience=0)
    alarms.measured(line(0, loss=1.0))
    alarms.measured(line(20, loss=loss))
    assert len(said) == warnings


@pytest.mark.parametrize(("off", "stops"), [(0.0, False), (0.5, False), (0.51, True), (-0.5, False), (-0.51, True)])
def test_a_mask_may_be_half_a_cell_from_its_ratio_and_no_more(off, stops):
    alarms, _ = made()
    with pytest.raises(TrainingStopped) if stops else nullcontext():
        alarms.masks(1, (10 + off) / 20, 20, 0.5)


def test_one_bad_measure_between_good_ones_is_no_collapse():
    alarms, said = made()
    for step in range(0, 1000, 100):
        alarms.measured(line(step, rank=3.0 if step % 200 else 20.0))
    assert not said


@pytest.mark.parametrize(("action", "count"), [("warn", 1), ("off", 0)])
def test_a_warning_is_said_once_and_off_says_nothing(action, count):
    alarms, said = made(collapse=action)
    for step in range(0, 600, 100):
        alarms.measured(line(step, rank=20.0 if not step else 2.0))
    assert len(said) == count


def test_nothing_learned_counts_after_warm_up_and_patience_only():
    alarms, said = made(patience=100)
    for step in (0, 50, 119):
        alarms.measured(line(step, loss=1.02))
    assert not said
    alarms.measured(line(120, loss=0.995))
    alarms.measured(line(200, loss=1.0))
    assert len(said) == 1 and said[0].startswith("step 120: the held-out normalised loss is 0.995")
    stopping, _ = made(not_learning="stop", patience=0)
    stopping.measured(line(0, loss=1.0))
    stopping.measured(line(20, loss=0.98))
    stopping.measured(line(30, loss=None))
    with pytest.raises(TrainingStopped) as caught:
        stopping.measured(line(40, loss=0.991))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("cells", "ratio", "hidden"), [(27, 0.6, 16), (512, 0.6, 307), (8, 0.99, 7), (8, 0.01, 1), (125, 0.504, 63)]
)
def test_mask_shares_may_be_off_by_rounding_and_no_more(cells, ratio, hidden):
    alarms, _ = made()
    alarms.masks(1, hidden / cells, cells, ratio)
    for wrong in (hidden - 1, hidden + 1):
        with pytest.raises(TrainingStopped, match=f"masks hide {wrong}.00 of {cells} cells") as caught:
            alarms.masks(1, wrong / cells, cells, ratio)
        assert caught.value.exit_code == 4


def test_a_resumed_run_remembers_its_start_and_what_was_said():
    alarms, _ = made(collapse="warn")
    for step in (0, 100, 200):
        alarms.measured(line(step, rank=20.0 if not step else 2.0))
    again, said = made(collapse="warn")
    again.restore(alarms.state())
    again.measured(line(300, rank=2.0))
    assert again.start == {"effective_rank": 20.0, "feature_std": 1.0} and not said
    assert again.sound_at == 0 and again.collapsed_in_a_row == 3
