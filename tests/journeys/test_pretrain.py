"""`wavespark pretrain` and what follows it, as a person or a scheduler uses them: killed, stopped, asked for a report and an export."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import wavespark as ws
from engine.small import WORDS, write_volume
from wavespark.checkpoints import checkpoint_folders, newest_checkpoint, read_checkpoint
from wavespark.cli.main import run as command_line

STEPS = 30
SETTINGS = [w for w in WORDS if not w.startswith("run.steps")] + [f"run.steps={STEPS}", "run.checkpoint_every=3"]


def start(*words, cwd=None, **more):
    """A real process, in a group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "wavespark", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **more,
    )


def finish(process, code=0, timeout=400):
    """What it said; fails unless it ended with this code."""
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == code, (process.returncode, out, err)
    assert "Traceback" not in err
    return out, err


@pytest.fixture
def wavespark(capfd):
    """Runs a command line in this process; returns what it said; fails unless it ended with this code."""

    def call(*words, code=0):
        ended = 0
        try:
            command_line([str(w) for w in words])
        except SystemExit as end:
            ended = end.code or 0
        out, err = capfd.readouterr()
        assert ended == code, (ended, out, err)
        assert "Traceback" not in err
        return out, err

    return call


def pretrain(store, run, *more):
    return ("pretrain", "tiny-cpu", "--store", store, "--output", run, *SETTINGS, *more)


def wait_for(condition, process, seconds=240):
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.01)


def lines(run, name="metrics"):
    return [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]


def assert_same_run(a, b):
    one, two = (read_checkpoint(run / "checkpoints" / f"step_{STEPS:08d}") for run in (a, b))
    assert all(torch.equal(one.model[k], two.model[k]) for k in one.model)
    assert all(torch.equal(one.optimizer[k], two.optimizer[k]) for k in one.optimizer)
    losses = [[(line["step"], line["loss"]) for line in lines(run)] for run in (a, b)]
    assert losses[0] == losses[1]
    assert [step for step, _ in losses[0]] == list(range(1, STEPS + 1))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("pretrain")
    for i, kind in enumerate(("T1w", "T1w", "ct")):
        write_volume(root / "data" / f"sub-{i}" / f"sub-{i}_{kind}.nii.gz", i, "CT" if kind == "ct" else "MR")
    finish(start("prepare", root / "data", "--output", root / "store"))
    return root / "store"


@pytest.fixture(scope="module")
def whole(store, tmp_path_factory):
    """The run that was never stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    out, err = finish(start(*pretrain(store, run, "--json")))
    document = json.loads(out)
    assert (document["steps"], document["resumed_from"], document["finished"]) == (STEPS, [], True)
    assert document["first"]["normalised_loss"] > 0.9 and document["run"] == str(run)
    assert "pretrain:" in err and "100 %" in err
    return run


def test_a_run_leaves_what_the_contract_says(whole):
    for name in ("config.toml", "environment.json", "metrics.jsonl", "exports/encoder/model.safetensors", "exports/encoder/config.json"):
        assert (whole / name).is_file(), name
    keys = {"step", "loss", "normalised_loss", "reconstruction", "visible_share", "hidden_share", "learning_rate", "seconds"}
    assert all(keys <= line.keys() for line in lines(whole))
    (newest, _) = checkpoint_folders(whole / "checkpoints")
    assert newest.name == f"step_{STEPS:08d}" and (newest / "manifest.json").is_file()


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_killed_run_goes_on_with_the_same_command_and_ends_as_if_it_was_never_killed(store, whole, tmp_path, workers):
    run, words = tmp_path / "run", f"data.workers={workers}"
    process = start(*pretrain(store, run, words))
    wait_for(lambda: checkpoint_folders(run / "checkpoints"), process)
    time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)
    saved = int(checkpoint_folders(run / "checkpoints")[0].name.removeprefix("step_"))
    assert 0 < saved < STEPS, "it was killed too late to prove anything"
    out, err = finish(start(*pretrain(store, run, words)))
    assert f"resumed from step {saved}" in err
    assert f"{STEPS} steps" in out
    assert_same_run(whole, run)
    assert json.loads((run / "summary.json").read_text())["resumed_from"] == [saved]


STOPPING = ["SIGTERM", *(pytest.param(s, marks=pytest.mark.slow) for s in ("SIGINT", "SIGUSR1"))]


@pytest.mark.parametrize("name", STOPPING)
def test_a_signal_to_the_whole_group_saves_the_step_and_ends_with_75(wavespark, store, whole, tmp_path, name):
    run, words = tmp_path / "run", ("data.workers=1", "run.checkpoint_every=1000")
    process = start(*pretrain(store, run, *words))
    wait_for(lambda: (run / "metrics.jsonl").exists() and len(lines(run)) >= 2, process)
    asked = time.monotonic()
    os.killpg(process.pid, getattr(signal, name))
    os.killpg(process.pid, getattr(signal, name))
    _, err = finish(process, code=75, timeout=30)
    assert time.monotonic() - asked < 10
    assert err.splitlines()[-1].startswith(f"error: stopped by {name} after step ")
    done = [line["step"] for line in lines(run)]
    assert newest_checkpoint(run / "checkpoints", pytest.fail).step == done[-1] < STEPS
    until = time.monotonic() + 15
    while _group_lives(process.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert not _group_lives(process.pid), "an orphan was left"
    if name == "SIGTERM":
        wavespark(*pretrain(store, run))
        assert_same_run(whole, run)


def _group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_a_signal_before_the_first_step_ends_with_75_and_the_run_can_go_on(wavespark, store, whole, tmp_path):
    run = tmp_path / "run"
    process = start(*pretrain(store, run))
    wait_for(lambda: (run / ".lock").exists(), process)
    process.send_signal(signal.SIGTERM)
    _, err = finish(process, code=75, timeout=30)
    assert "error: stopped by SIGTERM after step" in err
    wavespark(*pretrain(store, run))
    assert_same_run(whole, run)


@pytest.mark.slow
def test_a_second_run_on_the_folder_is_refused_while_the_first_goes_on(wavespark, store, tmp_path):
    run = tmp_path / "run"
    process = start(*pretrain(store, run))
    wait_for(lambda: (run / "metrics.jsonl").exists() and lines(run), process)
    process.send_signal(signal.SIGSTOP)  # so that it cannot end before the second one asks
    try:
        for more in ((), ("--fresh",)):
            _, err = wavespark(*pretrain(store, run, *more), code=1)
            assert f"process {process.pid} on " in err
        assert run.is_dir() and not list(tmp_path.glob("run.before-*"))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)


def test_a_finished_run_is_reported_inspected_and_exported(wavespark, whole, tmp_path):
    out, _ = wavespark("report", whole)
    assert "report.html" in out and (whole / "report.html").stat().st_size > 10_000
    json.loads(wavespark("report", whole, "--json")[0])
    for what in (whole, whole / "exports" / "encoder"):
        assert "waveformer_tiny" in wavespark("inspect", what)[0]
        json.loads(wavespark("inspect", what, "--json")[0])

    encoder = tmp_path / "deep" / "encoder"
    out, _ = wavespark("export", whole, "--format", "wavespark", "--output", encoder)
    assert f"step {STEPS}" in out
    single = tmp_path / "encoder.safetensors"
    out, _ = wavespark("export", whole, "--format", "safetensors", "--output", single, "--json")
    assert json.loads(out) == {"output": str(single), "format": "safetensors", "step": STEPS}

    from safetensors import safe_open

    loaded = ws.load_encoder(encoder)
    with safe_open(single, "pt") as file:
        described = json.loads(file.metadata()["wavespark"])
        assert set(file.keys()) == set(loaded.state_dict())
        assert all(torch.equal(file.get_tensor(k), t) for k, t in loaded.state_dict().items())
    assert described == json.loads((encoder / "config.json").read_text())
    levels = loaded(torch.zeros(1, 1, 32, 24, 40), modality="MR")
    assert [tuple(level.shape) for level in levels] == [(1, 32, 16, 12, 20), (1, 64, 8, 6, 10), (1, 128, 4, 3, 5)]


def test_an_export_never_deletes_what_is_no_export(wavespark, whole, tmp_path, monkeypatch):
    (tmp_path / "thesis.txt").write_text("years")
    monkeypatch.chdir(tmp_path)
    for output in (tmp_path, ".", whole, whole / "checkpoints"):
        _, err = wavespark("export", whole, "--output", output, code=1)
        assert err.startswith("error: ") and "not replaced" in err
    assert (tmp_path / "thesis.txt").read_text() == "years"
    assert checkpoint_folders(whole / "checkpoints")


def test_mistakes_get_one_line_and_their_exit_code(wavespark, store, whole, tmp_path):
    run = tmp_path / "run"
    for words, code, text in [
        (("pretrain", "tiny-cpi", "--store", store, "--output", run), 2, "tiny-cpu"),
        (("pretrain", "tiny-cpu", "--store", store, "--output", run, "run.step=3"), 2, "run.steps"),
        (("pretrain", "tiny-cpu", "--store", tmp_path, "--output", run), 1, "wavespark prepare"),
        (pretrain(store, whole, "mask.ratio=0.5"), 2, "mask.ratio was 0.6, now 0.5"),
        (("export", tmp_path, "--output", tmp_path / "out"), 1, "no checkpoint"),
        (("export", whole, "--output", tmp_path / "out", "--format", "pickle"), 2, "safetensors"),
    ]:
        out, err = wavespark(*words, code=code)
        assert out == ""
        (line,) = err.strip().splitlines()
        assert line.startswith("error: ") and text in line, line
    assert not run.exists()


def test_fresh_moves_the_earlier_run_aside(wavespark, store, whole, tmp_path):
    run = tmp_path / "run"
    wavespark(*pretrain(store, run, "run.steps=2"))
    wavespark(*pretrain(store, run, "run.steps=1", "--fresh"))
    (before,) = tmp_path.glob("run.before-*")
    assert [len(lines(folder)) for folder in (before, run)] == [2, 1]
