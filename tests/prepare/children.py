"""What tests run in other processes: those import this module, which a test module would not allow."""

import os
import signal
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Try:
    """A task's text is what happens to it; how often is told by the length of a file."""

    folder: str

    def __call__(self, task):
        kind, name = task.split()
        with open(os.path.join(self.folder, name), "a") as file:
            file.write("x")
        tries = os.path.getsize(os.path.join(self.folder, name))
        if kind == "die" or (kind == "die-once" and tries == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hang":
            time.sleep(1000)
        if kind == "eat":
            try:
                return str(len(bytearray(1 << 30)))
            except MemoryError:
                return "no memory"
        return f"{name} {os.getpid()}"


class CannotStart:
    """Fails when a worker takes it in."""

    def __call__(self, task):
        return task

    def __reduce__(self):
        return _raise, ()


def _raise():
    os._exit(3)


def total(store, volume, queue):
    """Sums of the voxels, through the store and through the volume."""
    queue.put((float(store[volume.id].read().sum()), float(volume.read().sum())))
