"""What a run will take: the largest batch is one that was done."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from engine.small import WORDS, small_settings
from wavespark.engine import estimate, step_parts
from wavespark.engine.run.estimate import TRIES, Measurement, _narrow
from wavespark.engine.run.parts import PARTS, parts_of
from wavespark.errors import SettingsError, TrainingStopped

GIB = 2**30


def measured(peak, seconds=0.1):
    return Measurement(
        device="cpu",
        precision="fp32",
        parameters=10,
        encoder_parameters=5,
        cell=(8, 8, 8),
        seconds=seconds,
        load=0.01,
        parts={"encode": 0.05},
        peak=int(peak),
        memory=16 * GIB,
        checkpoint=100,
    )


@pytest.fixture
def machine(monkeypatch):
    """A machine on which `count` crops take what a function says; None: the process was killed."""

    def of(peak, seconds=0.1):
        asked = []

        def child(settings, store, batch, steps):
            asked.append(batch)
            found = peak(batch)
            if found is None:
                raise TrainingStopped("out of memory", 5)
            return measured(found, seconds)

        monkeypatch.setattr(
            sys.modules["wavespark.engine.run.estimate"], "_in_child", child
        )  # the function has its name
        return asked

    return of


def test_the_largest_batch_was_done_and_fits_into_nine_tenths(machine):
    asked = machine(lambda n: GIB + n * GIB)
    found = estimate(small_settings("data.batch=4"))
    assert (found.largest_crops_at_once, found.more_may_fit, found.advice) == (13, False, "")
    assert 13 in asked and found.peak_bytes == 5 * GIB


def test_where_more_is_needed_than_two_crops_told_the_largest_is_still_one_that_was_done(machine):
    asked = machine(lambda n: GIB + n * GIB if n <= 9 else None)
    found = estimate(small_settings("data.batch=4"))
    assert 4 <= found.largest_crops_at_once <= 9 and found.largest_crops_at_once in asked
    assert len(asked) <= 3 + TRIES


def test_where_only_one_crop_fits_that_is_said_with_the_way_out(machine):
    machine(lambda n: 9 * GIB if n == 1 else None)
    found = estimate(small_settings("data.batch=4"))
    assert found.largest_crops_at_once == 1 and not found.more_may_fit
    assert "run.accumulate=2" in found.advice


def test_a_batch_whose_step_takes_minutes_is_not_tried(machine):
    asked = machine(lambda n: GIB + n * GIB, seconds=10)
    found = estimate(small_settings("data.batch=4"))
    assert found.more_may_fit and max(asked) == 4 == found.largest_crops_at_once


def test_settings_that_cannot_be_followed_here_are_named_as_such(monkeypatch):
    told = SimpleNamespace(stdout=json.dumps({"refused": "no such device", "code": 2}))
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **named: told)
    with pytest.raises(SettingsError, match="no such device"):
        estimate(small_settings())


def test_a_measuring_process_that_was_killed_is_out_of_memory_with_the_next_smaller_crop(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **named: SimpleNamespace(stdout=""))
    with pytest.raises(TrainingStopped, match=r"data\.crop=\[16, 24, 24\]") as caught:
        estimate(small_settings("data.batch=1", "run.gradient_checkpointing=true"))
    assert caught.value.exit_code == 5


def test_a_store_is_split_once_however_many_steps_are_measured(mr_store, monkeypatch):
    module, asked = sys.modules["wavespark.engine.run.estimate"], []
    right = module.choose_split
    monkeypatch.setattr(module, "choose_split", lambda *arguments: asked.append(1) or right(*arguments))
    step_parts(small_settings("data.crop=[16, 16, 16]"), mr_store, 3)
    assert asked == [1]


def test_narrowing_stops_when_nothing_is_left_between():
    tried = {1: {}, 2: {"x": 1}}
    _narrow(tried, 3, lambda count: None)
    assert tried == {1: {}, 2: {"x": 1}, 3: None}


def test_the_parts_of_a_step_add_up_to_it_and_leave_no_hook(mr_store):
    settings = small_settings("data.crop=[16, 16, 16]")
    parts = step_parts(settings, mr_store, 2)
    assert list(parts) == list(PARTS) and all(seconds > 0 for seconds in parts.values())
    assert parts["backward"] > parts["loss"] / 10
    made = parts_of({"model": 3.0, "decoder": 1.0, "objective": 4.0, "optimizer": 2.0}, 12.0, 1.0, 2)
    assert made == {"load": 0.5, "encode": 1.0, "decode": 0.5, "loss": 0.5, "backward": 3.0, "update": 1.0}


@pytest.mark.slow
def test_the_command_measures_this_machine(mr_store):
    words = [*WORDS, "data.crop=[16, 16, 16]", "run.steps=100"]
    done = subprocess.run(
        [sys.executable, "-m", "wavespark", "estimate", "tiny-cpu", *words, "--store", mr_store.path, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert (
        found["device"] == "cpu" and found["parameters"] > 10**5 and found["encoder_parameters"] < found["parameters"]
    )
    assert 2**26 < found["peak_bytes"] < found["memory_bytes"] and found["largest_crops_at_once"] >= 2
    assert list(found["parts"]) == ["load", "encode", "decode", "loss", "backward", "update"]
    assert all(seconds > 0 for seconds in found["parts"].values())
    assert found["hours"] * 3600 >= 99 * found["seconds_per_step"] > 0
    assert found["disk_bytes"] == 3 * found["checkpoint_bytes"] > 0
