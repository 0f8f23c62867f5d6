"""Worker processes that may crash, hang or be killed: the task of a lost worker is known, and only
it is tried again.

`multiprocessing.Pool` never returns when a worker is killed, and `concurrent.futures` forgets which
task it had. Here every worker has its own pipe and holds one task at a time.
"""

import multiprocessing
import resource
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Literal, TypeVar

from wavespark.errors import StoreError

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of one task."""

    seconds: float = 600.0
    megabytes: int = 4096
    tries: int = 3
    """A task whose worker dies this often is given up."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A task that gave no result."""

    reason: Literal["worker_crashed", "time_limit"]


@dataclass(slots=True)
class _Worker(Generic[T]):
    process: Any
    pipe: Connection
    ready: bool = False
    task: T | None = None
    tries: int = 0
    deadline: float = float("inf")


def work_through(
    tasks: Iterable[T], work: Callable[[T], R], workers: int, limits: Limits
) -> Iterator[tuple[T, R | Lost]]:
    """Each task with its result, in the order in which they end.

    Args:
        tasks: picklable values.
        work: picklable; called in a worker process, which must be able to import it.
        workers: how many processes.
        limits: time, memory and tries of one task.

    Raises:
        StoreError: if a worker cannot even start.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["wavespark.prepare.work"])  # imported once, not once a worker
    waiting = deque((task, 0) for task in tasks)
    crew: list[_Worker[T]] = []
    try:
        while waiting or any(w.task is not None for w in crew):
            for _ in range(min(workers, len(waiting)) - len(crew)):
                crew.append(_start(context, work, limits))
            for worker in crew:
                if worker.ready and worker.task is None and waiting:
                    _give(worker, *waiting.popleft(), limits)
            for worker in _with_news(crew):
                task, tries = worker.task, worker.tries
                late = not worker.pipe.poll()
                try:
                    result = None if late else worker.pipe.recv()
                except (EOFError, OSError):
                    result = None
                if result is _READY:
                    worker.ready = True
                elif result is not None:
                    worker.task, worker.deadline = None, float("inf")
                    yield task, result  # type: ignore[misc]
                else:
                    crew.remove(worker)
                    _stop(worker, kill=True)
                    if not worker.ready:
                        raise StoreError(_NO_START)
                    if late or tries >= limits.tries:
                        yield task, Lost("time_limit" if late else "worker_crashed")  # type: ignore[misc]
                    else:
                        waiting.appendleft((task, tries))  # type: ignore[arg-type]
    finally:
        for worker in crew:
            _stop(worker, kill=worker.task is not None or not worker.ready)


_READY = True
_NO_START = (
    "a worker process could not start. In a script, keep what starts it under `if __name__ == '__main__':`, because "
    "workers import the script again; or use workers=0"
)


def _with_news(crew: list[_Worker[T]]) -> list[_Worker[T]]:
    """Waits for the next message, end or deadline of a worker that starts or works."""
    watched = [w for w in crew if w.task is not None or not w.ready]
    left = min((w.deadline for w in watched), default=0.0) - time.monotonic()
    ready = wait([w.pipe for w in watched], None if left == float("inf") else max(0.0, left))
    return [w for w in watched if w.pipe in ready or time.monotonic() > w.deadline]


def _start(context: Any, work: Callable[[T], Any], limits: Limits) -> _Worker[T]:
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work, limits.megabytes), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _give(worker: _Worker[T], task: T, tries: int, limits: Limits) -> None:
    worker.task, worker.tries, worker.deadline = task, tries + 1, time.monotonic() + limits.seconds
    with suppress(OSError):  # it died while it was idle: seen as a closed pipe in the next round
        worker.pipe.send(task)


def _stop(worker: _Worker[Any], *, kill: bool) -> None:
    if kill:
        worker.process.kill()
    else:
        try:
            worker.pipe.send(None)
        except OSError:
            worker.process.kill()
    worker.pipe.close()
    worker.process.join()
    worker.process.close()


def limit_memory(megabytes: int) -> tuple[int, int]:
    """Limits what this process may allocate; returns the limits before, for
    `resource.setrlimit`."""
    limit = megabytes << 20
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    return soft, hard


def _serve(pipe: Connection, work: Callable[[T], Any], megabytes: int) -> None:
    """A worker's life: until None comes or the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends us
    limit_memory(megabytes)
    try:
        pipe.send(_READY)
        while (task := pipe.recv()) is not None:
            pipe.send(work(task))
    except (EOFError, OSError):
        pass
