"""Locks between processes. A process that is refused learns which process holds the lock.

`fcntl.lockf` and not `flock`: a lock of `flock` is inherited by forked workers and outlives the
run. This lock belongs to the process and ends with it, however it ends. It also ends when the
process closes any handle of the lock file, so that file is opened here and nowhere else.
"""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wavespark.errors import StoreError, WavesparkError
from wavespark.files.publish import writing

WHOLE = 2**40
"""Length of the range that a lock covers; a shard holds its share of it, so that shards of two
divisions exclude each
other rightly."""

_TRIES, _SECONDS = 20, 0.05
"""A holder writes its name just after it has the lock: a refused process looks again for up to one
second."""
_TAIL = 1 << 20
"""Bytes at the end of a lock file in which the names of its holders are looked for."""


@contextmanager
def hold(path: Path, refusal: Callable[[str], WavesparkError], *, start: int = 0, stop: int = WHOLE) -> Iterator[None]:
    """Holds the range `start..stop` of a lock file, by default all of it.

    Args:
        path: the lock file; made if it is not there, readable by its owner only.
        refusal: makes the error from the holder, for example `process 12 on node7`.
        start: begin of the range, from 0.
        stop: end of the range, up to `WHOLE`.

    Raises:
        WavesparkError: the one that `refusal` made, if another process holds some of the range.
        StoreError: if the disk has no file locks.
    """
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, stop - start, start)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                code = errno.errorcode.get(error.errno or 0)
                way_out = "choose a folder on a disk that has file locks"
                raise StoreError(f"{path.parent} cannot be locked ({code}): {way_out}") from None
            raise refusal(_holder(handle, start, stop)) from None
        with writing(path):
            _note(handle, start, stop, os.getpid())
        try:
            yield
        finally:
            with suppress(OSError):  # a full disk: the name stays, and the lock ends all the same
                _note(handle, start, stop, None)
    finally:
        os.close(handle)


@contextmanager
def wait_for(path: Path) -> Iterator[None]:
    """Waits until no other process holds a lock file, then holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _note(handle: int, start: int, stop: int, pid: int | None) -> None:
    """Writes who holds a range from now on; None releases it."""
    if stop - start == WHOLE:
        os.ftruncate(handle, 0)
    if pid is not None or stop - start < WHOLE:
        line = {"start": start, "stop": stop, "pid": pid, "host": socket.gethostname()}
        os.write(handle, json.dumps(line).encode() + b"\n")


def _holder(handle: int, start: int, stop: int) -> str:
    for _ in range(_TRIES):
        holders: dict[tuple[int, int], str | None] = {}
        for line in os.pread(handle, _TAIL, max(0, os.fstat(handle).st_size - _TAIL)).split(b"\n"):
            try:
                who = json.loads(line)
                holders[int(who["start"]), int(who["stop"])] = (
                    None if who["pid"] is None else f"process {int(who['pid'])} on {who['host']}"
                )
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        overlapping = [name for (low, high), name in holders.items() if name and low < stop and start < high]
        if overlapping:
            return overlapping[-1]
        time.sleep(_SECONDS)
    return "another process"
