"""Preparation on a dask cluster: the same store, whatever dies."""

import subprocess
import sys
import time

import pytest

from prepare.children import Try
from prepare.heads import same_files
from wavespark.errors import DependencyError, SettingsError, StoreError
from wavespark.prepare import prepare
from wavespark.prepare.dask_workers import work_on_cluster
from wavespark.prepare.workers import Limits, Lost

distributed = pytest.importorskip("distributed", reason="dask is not installed: pip install 'wavespark[cluster]'")


def test_a_killed_and_a_hanging_worker_cost_nothing_but_their_own_task(tmp_path):
    good = [f"ok g{i}" for i in range(6)]
    tasks = [*good[:2], "die d", "die-once o", "hang h", *good[2:]]
    limits = Limits(seconds=3.0, tries=2)
    (tmp_path / "late-0").touch()  # what another shard on this store has left
    result = dict(work_on_cluster(tasks, Try(str(tmp_path)), None, 2, limits, tmp_path))
    assert [result[t].split()[0] for t in good] == [t.split()[1] for t in good]
    assert result["die d"] == Lost("worker_crashed")
    assert result["hang h"] == Lost("time_limit")
    assert result["die-once o"].startswith("o ")
    assert (tmp_path / "h").stat().st_size == 1 and [p.name for p in tmp_path.glob("late-*")] == ["late-0"]


@pytest.mark.slow
def test_a_cluster_makes_the_store_that_local_processes_make(folder, tmp_path):
    stores = []
    for engine in ("local", "dask"):
        store = tmp_path / engine
        (store / "private").mkdir(parents=True, mode=0o700)
        (store / "private" / "secret").write_text("ab" * 32)
        report = prepare(folder, store, workers=1, engine=engine)
        assert (report.prepared, len(report.refused)) == (5, 1)
        stores.append(store)
    assert same_files(*stores)
    assert prepare(folder, stores[1], workers=1, engine="dask").already_there == 5


def start(tmp_path, *words):
    return subprocess.Popen(
        [sys.executable, "-m", *words], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.mark.slow
def test_a_running_scheduler_is_used_and_one_whose_workers_have_threads_is_refused(folder, tmp_path):
    file = tmp_path / "scheduler.json"
    words = ["--scheduler-file", str(file)]
    processes = [start(tmp_path, "distributed.cli.dask_scheduler", *words, "--port", "0", "--no-dashboard")]
    try:
        for threads in (1, 2):
            processes.append(
                start(tmp_path, "distributed.cli.dask_worker", *words, "--nthreads", str(threads), "--no-dashboard")
            )
            deadline = time.monotonic() + 30
            while not file.exists() and time.monotonic() < deadline:
                time.sleep(0.1)
            if threads == 1:
                assert prepare(folder, tmp_path / "store", engine="dask", scheduler=str(file)).prepared == 5
                processes[-1].terminate()
                processes.pop().wait()
            else:
                time.sleep(1)
                with pytest.raises((SettingsError, StoreError), match="--nthreads 1"):
                    for _ in range(3):
                        prepare(folder, tmp_path / "other", engine="dask", scheduler=str(file))
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def test_without_dask_one_line_says_how_to_get_it(monkeypatch, folder, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(DependencyError, match=r"--engine dask needs distributed.*wavespark\[cluster\]"):
        prepare(folder, tmp_path / "store", workers=1, engine="dask")


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch, folder, tmp_path):
    monkeypatch.setattr("wavespark.prepare.dask_workers._CONNECT_SECONDS", 1)
    with pytest.raises(StoreError, match=r"tcp://127\.0\.0\.1:9 did not answer"):
        prepare(folder, tmp_path / "store", engine="dask", scheduler="tcp://127.0.0.1:9")


def test_a_scheduler_without_dask_is_refused_before_anything_is_made(folder, tmp_path):
    with pytest.raises(SettingsError, match="--scheduler is for --engine dask"):
        prepare(folder, tmp_path / "store", scheduler="tcp://127.0.0.1:9")
    assert not (tmp_path / "store").exists()
