"""Preparation that is killed again and again (R8): nothing half-written, nothing done twice, the same store in the end."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from prepare.heads import same_files, write_head
from wavespark.files import UNFINISHED
from wavespark.prepare import open_store, prepare

INPUTS, KILLS = 60, 8


def published(store):
    """When each whole item was published."""
    items = store / "items"
    return {
        p.name: (p / "record.json").stat().st_mtime_ns for p in items.iterdir() if not p.name.startswith(UNFINISHED)
    }


def with_secret(store):
    (store / "private").mkdir(parents=True, mode=0o700)
    (store / "private" / "secret").write_text("ab" * 32)
    return store


@pytest.mark.slow
def test_eight_kills_leave_nothing_half_written_and_nothing_is_done_twice(tmp_path):
    data, store, chance = tmp_path / "data", with_secret(tmp_path / "store"), random.Random(0)
    for n in range(INPUTS):
        write_head(data / f"sub-{n:02d}_T1w.nii.gz", n)
    words = [sys.executable, "-m", "wavespark", "prepare", str(data), "--output", str(store), "--workers", "2"]
    done: dict = {}
    for _ in range(KILLS):
        run = subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while run.poll() is None and not ((store / "items").is_dir() and len(published(store)) > len(done)):
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
        assert run.poll() is None, "it ended before it could be killed: more inputs are needed"
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        now = published(store)
        assert done.items() <= now.items(), "an item was done again"
        done = now
        for name in now:
            assert {p.name for p in (store / "items" / name).iterdir()} == {
                "voxels.b2nd",
                "foreground.b2nd",
                "record.json",
            }
    assert KILLS <= len(done) < INPUTS
    assert subprocess.run(words, check=True, capture_output=True).returncode == 0
    assert done.items() <= published(store).items() and len(open_store(store)) == INPUTS
    assert open_store(store).verify() == () and not list((store / "items").glob(f"{UNFINISHED}*"))
    prepare(data, with_secret(tmp_path / "at-once"))
    assert same_files(store, tmp_path / "at-once")
