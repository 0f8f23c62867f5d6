"""`wavespark prepare` and `wavespark inspect`, as a person or a script uses them."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from prepare.heads import same_files, write_head
from wavespark.cli.main import run
from wavespark.prepare import open_store


@pytest.fixture
def wavespark(capfd):
    """Runs a command line in this process; returns its exit code and what it said."""

    def call(*words, check=None):
        code = 0
        try:
            run([str(w) for w in words])
        except SystemExit as end:
            code = end.code or 0
        said = capfd.readouterr()
        assert check is None or code == check, said
        assert "Traceback" not in said.err
        return subprocess.CompletedProcess(words, code, said.out, said.err)

    return call


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("journey") / "data"
    for i in range(4):
        write_head(root / f"sub-DOEJANE{i}" / "anat" / f"sub-DOEJANE{i}_T1w.nii.gz", i)
    write_head(root / "sub-DOEJANE9" / "x_ct.nii.gz", 9, "CT")
    (root / "DOEJANE_T1w.nii.gz").write_bytes((root / "sub-DOEJANE0/anat/sub-DOEJANE0_T1w.nii.gz").read_bytes()[:500])
    return root


def test_a_folder_becomes_a_store_and_the_damaged_file_is_named(wavespark, data, tmp_path):
    store = tmp_path / "store"
    told = wavespark("prepare", data, "--output", store, "--workers", "2", check=0)
    assert "5 input(s) prepared, 0 already there, 1 refused" in told.stdout
    assert "prepare:" in told.stderr and "%" in told.stderr
    assert "DOEJANE" not in told.stdout + told.stderr
    again = wavespark("prepare", data, "--output", store, "--json", check=0)
    document = json.loads(again.stdout)
    assert (document["prepared"], document["already_there"], document["refused"]) == (0, 5, 1)
    assert wavespark("prepare", data, "--output", store, "--strict").returncode == 1
    shown = wavespark("inspect", store, "--verify", check=0).stdout
    assert "5 of 5 patient(s)" in shown and "CT" in shown and "as it was written" in shown
    assert "DOEJANE" not in shown
    document = json.loads(wavespark("inspect", store, "--json", check=0).stdout)
    assert document["volumes"] == 5 and sum(g["volumes"] for g in document["groups"]) == 5
    name = document["refused"][0]["source_id"]
    assert "DOEJANE_T1w.nii.gz" in wavespark("inspect", store, "--reveal", name, check=0).stdout


def test_mistakes_get_one_line_and_their_exit_code(wavespark, data, tmp_path):
    store = tmp_path / "store"
    for words, code, text in [
        ((data, "--output", store, "spacing=2"), 2, "spacing_mm"),
        ((data, "--output", store, "--recipe", "head"), 2, "head-1mm"),
        ((data, "--output", store, "--shard", "0/2"), 2, "shard"),
        ((tmp_path / "none", "--output", store), 1, "spelling"),
    ]:
        told = wavespark("prepare", *words, check=code)
        assert text in told.stderr
        assert [line for line in told.stderr.splitlines() if line.startswith("error: ")], told.stderr
    assert wavespark("inspect", tmp_path, check=1).stderr.startswith("error: ")


def test_damage_makes_inspect_verify_fail_and_names_the_item(wavespark, data, tmp_path):
    store = tmp_path / "store"
    wavespark("prepare", data, "--output", store, "--recipe", "native", check=0)
    name = open_store(store)[1].id
    path = store / "items" / name / "voxels.b2nd"
    path.write_bytes(path.read_bytes()[:-1] + b"\0\0")
    told = wavespark("inspect", store, "--verify", check=1)
    assert name in told.stdout and "damaged" in told.stderr


def start(data, store, workers=2):
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "wavespark",
            "prepare",
            str(data),
            "--output",
            str(store),
            "--workers",
            str(workers),
            "--json",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def published(store):
    items = store / "items"
    return {p.name: p.stat().st_ino for p in items.iterdir() if p.name[0] != "."} if items.is_dir() else {}


def killed_and_finished(wavespark, data, tmp_path, kills, how):
    rng = np.random.default_rng(len(kills))
    whole, store = tmp_path / "whole", tmp_path / "store"
    for place in (whole, store):
        (place / "private").mkdir(parents=True, mode=0o700)
        (place / "private" / "secret").write_text("cd" * 32)
    wavespark("prepare", data, "--output", whole, "--workers", "1", check=0)
    before: dict[str, int] = {}
    for after in kills:
        started = start(data, store)
        goal = len(before) + after
        for _ in range(3000):
            if len(published(store)) >= goal or started.poll() is not None:
                break
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0, 0.05)))
        how(started)
        started.communicate(timeout=60)
        now = published(store)
        assert before.items() <= now.items(), "what was there is not made again"
        before = now
        assert all((store / "items" / name / "record.json").is_file() for name in now), "nothing half-written"
    document = json.loads(wavespark("prepare", data, "--output", store, "--json", check=0).stdout)
    assert document["already_there"] >= len(before), "0 redone"
    assert before.items() <= published(store).items()
    assert same_files(whole, store)
    assert open_store(store).verify() == ()


def test_a_preparation_that_was_killed_twice_is_finished_without_redoing_anything(wavespark, data, tmp_path):
    killed_and_finished(wavespark, data, tmp_path, [1, 2], lambda started: os.killpg(started.pid, signal.SIGKILL))


@pytest.mark.slow
def test_a_preparation_killed_eight_times_at_random_is_finished_without_redoing_anything(wavespark, tmp_path):
    for i in range(30):
        write_head(tmp_path / "data" / f"{i}_T1w.nii.gz", i)
    how = [lambda started: os.killpg(started.pid, signal.SIGKILL), lambda started: started.kill()]
    rng = np.random.default_rng(0)
    killed_and_finished(
        wavespark,
        tmp_path / "data",
        tmp_path,
        [0, 2, 1, 4, 0, 3, 5, 2],
        lambda started: how[int(rng.integers(2))](started),
    )


def test_a_scheduler_that_stops_it_gets_exit_code_75_and_no_process_is_left(wavespark, data, tmp_path):
    store = tmp_path / "store"
    started = start(data, store)
    for _ in range(3000):
        if published(store):
            break
        time.sleep(0.01)
    started.send_signal(signal.SIGTERM)
    out, err = started.communicate(timeout=60)
    if started.returncode != 0:  # else it was quicker than the signal
        assert started.returncode == 75, err
        assert b"run the same command again" in err
        assert out == b""
        assert not list(store.rglob(".unfinished-*"))
    for _ in range(100):
        try:
            os.killpg(started.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("a process is left behind")
    wavespark("prepare", data, "--output", store, check=0)
    assert len(open_store(store)) == 5
