"""Work on the workers of a dask cluster: the same outcomes as on local processes, for as many
machines as share the store's disk.

A worker that dies is replaced by its nanny, and only its task is tried again. Dask itself cannot
end a task that hangs: a timer in the worker leaves a mark in the store and ends the process, so
that the next try knows why.
"""

import logging
import os
import resource
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

from wavespark.errors import DependencyError, SettingsError, StoreError
from wavespark.prepare.workers import Limits, Lost, limit_memory

T = TypeVar("T")
R = TypeVar("R")

_CONNECT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class _Limited(Generic[T, R]):
    """The work of one task within limits; runs on a worker."""

    work: Callable[[T], R]
    limits: Limits
    marks: str
    """Folder in which a task that was late leaves its mark."""

    def __call__(self, task: T, number: int) -> R | Lost:
        mark = Path(self.marks) / str(number)
        if mark.exists():
            return Lost("time_limit")
        before = limit_memory(self.limits.megabytes)
        timer = threading.Timer(self.limits.seconds, _end_late, (str(mark),))
        timer.daemon = True
        timer.start()
        try:
            return self.work(task)
        finally:
            timer.cancel()
            resource.setrlimit(resource.RLIMIT_DATA, before)


def _end_late(mark: str) -> None:
    try:
        Path(mark).touch()
    finally:
        os._exit(1)


def work_on_cluster(
    tasks: Sequence[T], work: Callable[[T], R], scheduler: str | None, workers: int, limits: Limits, marks: Path
) -> Iterator[tuple[T, R | Lost]]:
    """Each task with its result, in the order in which they end.

    Args:
        tasks: picklable values.
        work: picklable; the workers must be able to import it.
        scheduler: address (`tcp://host:8786`) or path of a scheduler file; None starts a cluster of
            processes on this machine.
        workers: how many processes such a local cluster has.
        limits: time, memory and tries of one task (of an own scheduler: its `allowed-failures`
            count).
        marks: folder that all workers can write to.

    Raises:
        DependencyError: if dask is not installed.
        StoreError: if the scheduler does not answer or has no workers.
        SettingsError: if its workers run several tasks in one process.
    """
    try:
        import dask
        import distributed
    except ImportError:
        raise DependencyError("distributed", "cluster", "--engine dask") from None
    settings = {
        "distributed.scheduler.allowed-failures": limits.tries - 1,
        "distributed.scheduler.worker-saturation": 1.0,
    }
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # of other people's event loops
        stack.enter_context(dask.config.set(settings))
        client = _client(distributed, stack, scheduler, workers)
        own = stack.enter_context(TemporaryDirectory(prefix="late-", dir=marks))  # other shards number their tasks, too
        limited = _Limited(work, limits, own)
        suspects: list[tuple[int, T]] = []
        for number, task, result in _results(distributed, client, limited, enumerate(tasks), alone=False):
            if result == Lost("worker_crashed"):
                suspects.append((number, task))  # or it only lay on a worker that another task killed
            else:
                yield task, result
        for _, task, result in _results(distributed, client, limited, iter(suspects), alone=True):
            yield task, result


def _results(
    distributed: Any, client: Any, limited: _Limited[T, R], numbered: Iterator[tuple[int, T]], *, alone: bool
) -> Iterator[tuple[int, T, R | Lost]]:
    """Results as they come; as many tasks are under way as there are workers, or one."""
    given: dict[Any, tuple[int, T]] = {}
    running = distributed.as_completed()

    def fill() -> None:
        at_once = 1 if alone else max(1, sum(client.nthreads().values()))
        for number, task in islice(numbered, max(0, at_once - len(given))):
            future = client.submit(limited, task, number, pure=False)
            given[future.key] = number, task
            running.add(future)

    fill()
    for future in running:
        number, task = given.pop(future.key)
        result = _result(distributed, future)
        future.release()
        fill()
        yield number, task, result


def _result(distributed: Any, future: Any) -> Any:
    try:
        return future.result()
    except distributed.scheduler.KilledWorker:
        return Lost("worker_crashed")
    except Exception as error:
        # The text of a foreign exception can quote the input: only its kind is kept.
        raise StoreError(
            f"the cluster lost a task ({type(error).__name__}): run the same command again to go on"
        ) from None


def _client(distributed: Any, stack: ExitStack, scheduler: str | None, workers: int) -> Any:
    if scheduler is None:
        cluster = distributed.LocalCluster(
            n_workers=max(1, workers),
            threads_per_worker=1,
            memory_limit=0,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        )
        return stack.enter_context(distributed.Client(stack.enter_context(cluster)))
    where = {"scheduler_file": scheduler} if os.path.isfile(scheduler) else {"address": scheduler}
    try:
        client = stack.enter_context(distributed.Client(**where, timeout=_CONNECT_SECONDS))
        client.wait_for_workers(1, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError, TimeoutError):
        raise StoreError(
            f"the dask scheduler {scheduler} did not answer with a worker within {_CONNECT_SECONDS} s: check its address, start workers"
        ) from None
    threads = max(worker["nthreads"] for worker in client.scheduler_info(n_workers=-1)["workers"].values())
    if threads > 1:
        raise SettingsError(
            f"a dask worker runs {threads} tasks in one process: start workers with --nthreads 1 (and --nworkers N)"
        )
    return client
