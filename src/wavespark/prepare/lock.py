"""One preparation at a time on the same part of a store; a second one is refused and told who holds it.

`fcntl.lockf` and not `flock`: a lock of `flock` is inherited by forked workers and outlives the run. This lock belongs
to the process and ends with it, however it ends; it ends too when the process closes any handle of the file, so that
is opened here and nowhere else.
"""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wavespark.errors import StoreError

PARTS = 2**40
"""A store is `PARTS` long and a shard holds its share of that: shards of two divisions exclude each other rightly."""


@contextmanager
def hold(private: Path, start: int = 0, stop: int = PARTS) -> Iterator[None]:
    """Holds the part `start..stop` of a store, from 0 to `PARTS`.

    Raises:
        StoreError: if another process holds some of it, with its process id and host.
    """
    handle = os.open(private / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    me = private / f"holder-{start}-{stop}.json"
    try:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, stop - start, start)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                code = errno.errorcode.get(error.errno or 0)
                way_out = "put the store on a disk that has file locks"
                raise StoreError(f"{private.parent} cannot be locked ({code}): {way_out}") from None
            who = _holder(private, start, stop)
            raise StoreError(f"{private.parent} is being prepared by {who}: wait, or use another --output") from None
        me.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield
        me.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _holder(private: Path, start: int, stop: int) -> str:
    for _ in range(20):  # the holder writes its name just after it has the lock
        for path in sorted(private.glob("holder-*.json"), key=lambda p: -p.stat().st_mtime if p.exists() else 0):
            try:
                low, high = (int(n) for n in path.stem.split("-")[1:])
                who = json.loads(path.read_text())
                if low < stop and start < high:
                    return f"process {int(who['pid'])} on {who['host']}"
            except (OSError, ValueError, KeyError, TypeError):
                continue
        time.sleep(0.05)
    return "another process"


@contextmanager
def briefly(private: Path) -> Iterator[None]:
    """Waits for, then holds, the lists that all shards of a store write."""
    handle = os.open(private / "lists.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
