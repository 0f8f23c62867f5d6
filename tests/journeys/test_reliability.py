"""Promises R1, R5, R10 and R12 through the real command line: kills at random moments, a full disk, losses that are no numbers, memory that runs out."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from engine.small import WORDS, make_store, small_settings
from wavespark.checkpoints import checkpoint_folders, read_checkpoint
from wavespark.engine import pretrain
from wavespark.files import read_lines

EVERY = 4


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("reliability"), ("MR", "CT")).path


def start(store, run, *more, faults=""):
    words = [
        sys.executable,
        "-m",
        "wavespark",
        "pretrain",
        "tiny-cpu",
        "--store",
        str(store),
        "--output",
        str(run),
        *WORDS,
        *more,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WAVESPARK_FAULTS": faults}
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    )


def finish(process, code=0):
    out, err = process.communicate(timeout=280)
    assert process.returncode == code, (process.returncode, out, err)
    assert "Traceback" not in err
    return err


def lines(run):
    return [(line["step"], line["loss"]) for line in read_lines(run / "metrics.jsonl", strict=False)]


def steps_saved(run):
    return int((checkpoint_folders(run / "checkpoints") or [run / "step_0"])[0].name.removeprefix("step_"))


@pytest.mark.parametrize("kills", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_at_random_moments_the_run_is_to_the_bit_the_one_that_was_not(store, tmp_path, kills):
    steps = 16 if kills == 2 else 12 * kills
    words = (
        f"run.steps={steps}",
        f"run.checkpoint_every={EVERY}",
        "run.validate_every=16",
        "data.crop=[16, 16, 16]",
        "data.workers=2",
    )
    rng, done, run = random.Random(kills), 0, tmp_path / "run"
    finish(start(store, tmp_path / "whole", *words))
    while done < kills:
        process = start(store, run, *words)
        before = steps_saved(run)
        until = time.monotonic() + 240
        while steps_saved(run) <= before and process.poll() is None:  # so that every attempt gets a little further
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)
        if process.returncode != -signal.SIGKILL:
            break
        done += 1
        reached = lines(run)[-1][0]
        assert reached - steps_saved(run) <= EVERY
    assert done == kills, "it was finished before it was killed often enough"
    finish(start(store, run, *words))
    a, b = (read_checkpoint(r / "checkpoints" / f"step_{steps:08d}") for r in (tmp_path / "whole", run))
    assert all((a.model[k] == b.model[k]).all() for k in a.model)
    assert all((a.optimizer[k] == b.optimizer[k]).all() for k in a.optimizer)
    assert lines(tmp_path / "whole") == lines(run)
    assert [s for s, _ in lines(run)] == list(range(1, steps + 1))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 32 MiB: three checkpoints of 7.4 and what else a small run writes."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("a file system cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("free_mb", [1, 5, 9, 14])
def test_a_disk_that_fills_up_is_a_sentence_and_the_run_goes_on_when_there_is_room(
    store, tmp_path, small_disk, free_mb
):
    """As a library, which makes no pre-flight: the disk is full at a picture, at the first, at a later checkpoint."""
    from wavespark.errors import StoreError
    from wavespark.prepare import open_store

    settings, opened = (
        small_settings("run.steps=8", "run.checkpoint_every=2", "run.save_in_background=true"),
        open_store(store),
    )
    pretrain(settings, opened, tmp_path / "whole")
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - free_mb * 2**20))
    run = small_disk / "run"
    with pytest.raises(StoreError, match="disk is full"):
        pretrain(settings, opened, run)
    assert not [p for p in run.rglob("*") if p.name.startswith(".unfinished")]
    ballast.unlink()
    pretrain(settings, opened, run)
    assert lines(run) == lines(tmp_path / "whole")


def test_a_run_that_cannot_fit_on_the_disk_is_refused_before_it_starts(store, tmp_path, monkeypatch):
    from collections import namedtuple

    from wavespark.engine import preflight
    from wavespark.errors import StoreError
    from wavespark.prepare import open_store

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda p: usage(2**30, 2**30 - 2**20, 2**20))
    with pytest.raises(StoreError, match="1 MiB free, but 3 checkpoints of"):
        preflight(small_settings(), open_store(store), tmp_path / "run")


def test_the_lines_before_a_run_say_data_model_crops_device_and_disk(store, tmp_path):
    from wavespark.engine import preflight
    from wavespark.errors import StoreError
    from wavespark.prepare import open_store

    text = "\n".join(preflight(small_settings(), open_store(store), tmp_path / "run"))
    for part in (
        "1 MR T1",
        "1 CT",
        "every byte verified",
        "grid 3 x 3 x 3",
        "16 of 27 hidden",
        "CPU, 1 thread(s), fp32",
        "3 checkpoints of",
        "end     6 steps; shown after the first ones",
    ):
        assert part in text, text
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").write_text('{"step": 4, "seconds": 0.5, "load_seconds": 0.25}\n')
    end = preflight(small_settings(), open_store(store), tmp_path / "run")[-1]
    assert end.startswith("end     2 of 6 steps left, 0.75 s each until now: about 2")
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    victim = next((copy / "items").rglob("*.b2nd"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    with pytest.raises(StoreError, match="damaged in 1 place"):
        preflight(small_settings(), open_store(copy), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "code", "text"),
    [("nan@step:" + ",nan@step:".join("34567"), 4, "5 steps in a row"), ("oom@step:3", 5, "run.accumulate=2")],
)
def test_faults_end_with_their_code_and_the_last_good_state(store, tmp_path, fault, code, text):
    err = finish(start(store, tmp_path / "run", "run.steps=9", faults=fault), code)
    assert text in err.splitlines()[-1] and err.splitlines()[-1].startswith("error: ")
    assert steps_saved(tmp_path / "run") >= 2
    err = finish(start(store, tmp_path / "run", "run.steps=9"))
    assert "resumed from step" in err
