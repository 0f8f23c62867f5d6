"""Several processes: the losses of one; a lost process; another number of processes on going on. Over gloo, on the CPU."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from engine import two_ranks
from engine.small import WORDS, small_settings
from wavespark.checkpoints import checkpoint_folders, read_checkpoint
from wavespark.engine import pretrain
from wavespark.engine.machine import distributed
from wavespark.engine.machine.distributed import Ranks, average_gradients, ranks_of
from wavespark.errors import SettingsError, TrainingStopped
from wavespark.files import read_lines

TESTS = Path(__file__).resolve().parents[1]


def torchrun(*words, restarts=0, **more):
    """Two processes of one thread."""
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        str(restarts),
    ]
    return subprocess.Popen(
        [*launch, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=TESTS,
        start_new_session=True,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
        },
        **more,
    )


def children(process):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True)
    return [int(pid) for pid in found.stdout.split()]


def finish(process, code=0):
    out, err = process.communicate(timeout=280)
    assert process.returncode == code, (process.returncode, out, err)
    return out, err


def command(store, run, *more):
    return ("-m", "wavespark", "pretrain", "tiny-cpu", "--store", store.path, "--output", run, *WORDS, *more)


def losses(run):
    return [line["loss"] for line in read_lines(run / "metrics.jsonl", strict=False)]


def test_two_processes_reach_the_losses_of_one_in_fp64_with_batch_norm_over_both_and_stop_together(mixed_store):
    out, _ = finish(torchrun(TESTS / "engine/two_ranks.py", mixed_store.path))
    told = json.loads(out)
    assert told["asked"] == [None, "SIGTERM"]
    for one, two in zip(two_ranks.losses(str(mixed_store.path)), told["losses"], strict=True):
        assert one == pytest.approx(two, abs=1e-10)
    for name, one in two_ranks.normed(Ranks()).items():
        assert one == pytest.approx(told["normed"][name], abs=1e-10), name


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_the_number_of_processes_may_change_when_a_run_goes_on(mixed_store, tmp_path, parallel):
    settings = small_settings()
    pretrain(settings, mixed_store, tmp_path / "one")
    run = tmp_path / "two"
    with pytest.raises(TrainingStopped):
        pretrain(settings, mixed_store, run, should_stop=iter([None, None, "SIGTERM"]).__next__)
    _, err = finish(torchrun(*command(mixed_store, run, f"run.parallel={parallel}")))
    assert "resumed from step 2" in err and "with 2 process(es) instead of 1" in err
    assert losses(run) == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    assert [line["step"] for line in read_lines(run / "metrics.jsonl", strict=False)] == list(range(1, 7))
    said = []
    assert pretrain(settings, mixed_store, run, log=said.append).processes == 1
    assert said[0] == "resumed from step 6"


@pytest.mark.slow
def test_a_killed_process_makes_all_start_again_with_the_same_result(mixed_store, tmp_path):
    words = ("run.steps=24", "run.checkpoint_every=6", "run.validate_every=12")
    whole, run = tmp_path / "whole", tmp_path / "run"
    finish(torchrun(*command(mixed_store, whole, *words)))
    process = torchrun(*command(mixed_store, run, *words), restarts=3)
    until = time.monotonic() + 200
    while not checkpoint_folders(run / "checkpoints"):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    os.kill(children(process)[-1], signal.SIGKILL)
    _, err = finish(process)
    assert "resumed from step" in err
    a, b = (read_checkpoint(checkpoint_folders(r / "checkpoints")[0]) for r in (whole, run))
    assert a.step == b.step == 24
    assert all((a.model[k] == b.model[k]).all() for k in a.model)
    assert losses(whole) == losses(run)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["torchrun", "one process"])
def test_a_signal_saves_the_same_step_everywhere(mixed_store, tmp_path, to):
    run = tmp_path / "run"
    process = torchrun(
        *command(mixed_store, run, "run.steps=500", "run.checkpoint_every=500", "run.validate_every=500")
    )
    until = time.monotonic() + 200
    while len(losses(run)) < 3:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    os.kill(process.pid if to == "torchrun" else children(process)[-1], signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert "stopped by SIGTERM after step" in err
    assert read_checkpoint(checkpoint_folders(run / "checkpoints")[0]).step == len(losses(run))


def test_a_batch_that_the_processes_cannot_share_is_refused(mr_store, tmp_path, monkeypatch):
    from wavespark.engine.run.components import build_components

    with pytest.raises(SettingsError, match=r"data\.batch 2 cannot be shared by 4 process"):
        build_components(small_settings(), mr_store, tmp_path, print, Ranks(rank=0, world=4))


def test_dense_batch_norm_of_each_process_alone_is_refused_and_of_one_process_is_not():
    model, cpu = nn.Sequential(nn.BatchNorm3d(3)), torch.device("cpu")
    assert average_gradients(model, Ranks(), "ddp", cpu) is model
    with pytest.raises(
        SettingsError, match=r"0 \(BatchNorm3d\) would take the statistics of each of 2 processes alone"
    ):
        average_gradients(model, Ranks(world=2), "ddp", cpu)


def test_a_process_that_cannot_leave_the_others_ends_with_the_code_of_the_run(monkeypatch):
    """What a dead process left behind can hold `destroy_process_group` for ever."""
    monkeypatch.setattr(distributed, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: time.sleep(300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this process has threads
        child = os.fork()
    if child == 0:
        try:
            distributed._part(75)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 75


def test_the_environment_of_torchrun_is_read_and_checked():
    assert ranks_of({}) == Ranks()
    told = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert ranks_of(told) == Ranks(rank=3, world=8, local_rank=1, local_world=2)
    assert not ranks_of(told).writes
    for wrong in ({"RANK": "x"}, {"RANK": "8"}):
        with pytest.raises(SettingsError, match="torchrun"):
            ranks_of(told | wrong)
