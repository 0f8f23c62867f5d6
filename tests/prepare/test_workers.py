import os
import time

import pytest

from prepare.children import CannotStart, Try
from wavespark.errors import StoreError
from wavespark.prepare.workers import Limits, Lost, work_through


def run(tmp_path, tasks, workers=2, **limits):
    return dict(work_through(tasks, Try(str(tmp_path)), workers, Limits(**{"seconds": 30.0, **limits})))


def gone(process_id):
    for _ in range(50):
        try:
            os.kill(int(process_id), 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_a_worker_that_is_killed_or_hangs_costs_nothing_but_its_own_task(tmp_path):
    good = [f"ok g{i}" for i in range(12)]
    tasks = [*good[:4], "die d", *good[4:8], "hang h", "die-once o", *good[8:]]
    result = run(tmp_path, tasks, seconds=2.0)
    assert [result[t].split()[0] for t in good] == [t.split()[1] for t in good]
    assert result["die d"] == Lost("worker_crashed")
    assert result["hang h"] == Lost("time_limit")
    assert result["die-once o"].startswith("o ")
    assert (tmp_path / "d").stat().st_size == 3, "a task whose worker dies is tried three times"
    assert (tmp_path / "h").stat().st_size == 1, "a task that hangs is tried once"
    assert all((tmp_path / t.split()[1]).stat().st_size == 1 for t in good), "no other task is done twice"
    assert all(gone(result[t].split()[1]) for t in good), "no worker is left behind"


def test_memory_of_a_task_is_limited(tmp_path):
    assert run(tmp_path, ["eat e"], workers=1, megabytes=700) == {"eat e": "no memory"}


def test_workers_end_when_the_caller_stops_early(tmp_path):
    results = work_through([*(f"ok g{i}" for i in range(6)), "hang h"], Try(str(tmp_path)), 1, Limits())
    _, first = next(results)
    results.close()
    assert gone(first.split()[1])
    assert list(work_through([], Try(str(tmp_path)), 2, Limits())) == []


def test_a_worker_that_cannot_start_is_an_error_and_no_endless_loop():
    with pytest.raises(StoreError, match="__main__"):
        list(work_through(["a"], CannotStart(), 2, Limits()))
