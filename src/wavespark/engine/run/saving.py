"""Writing of checkpoints beside the training: a snapshot, then a thread."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from wavespark.checkpoints import Checkpoint, prune, write_checkpoint

EXTRA = "objective."
"""Start of the names of what the objective keeps beside the model."""


class Saver:
    """Writes checkpoints, one at a time, and removes those that are no longer kept.

    Args:
        checkpoints: their folder.
        keep: the newest ones that are kept.
        keep_every: those of steps that are a multiple of it are kept for good; 0 = none.
        background: write in a thread, from a copy of the tensors; else the caller waits.
    """

    def __init__(self, checkpoints: Path, keep: int, keep_every: int, background: bool) -> None:
        self.checkpoints, self.keep, self.keep_every, self.background = checkpoints, keep, keep_every, background
        self.waited = 0.0
        """Seconds that training waited for checkpoints."""
        self._thread: threading.Thread | None = None
        self._failed: list[BaseException] = []

    def save(self, checkpoint: Checkpoint, before: Callable[[], None]) -> None:
        """Saves; `before` is called first by whoever writes, and must make the lines of all steps
        so far safe.

        Raises:
            StoreError: if the disk is full: this time, or the last time.
        """
        started = time.perf_counter()
        self._join()
        if self.background:
            snapshot = replace(checkpoint, model=_copied(checkpoint.model), optimizer=_copied(checkpoint.optimizer))
            self._thread = threading.Thread(target=self._attempt, args=(snapshot, before), name="checkpoint")
            self._thread.start()
        else:
            self._write(checkpoint, before)
        self.waited += time.perf_counter() - started

    def wait(self) -> None:
        """Wait until the last checkpoint is published.

        Raises:
            StoreError: if it could not be.
        """
        started = time.perf_counter()
        self._join()
        self.waited += time.perf_counter() - started

    def close(self) -> None:
        """Waits, too, but leaves the word to the error that is under way."""
        if self._thread is not None:
            self._thread.join()

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failed:
            raise self._failed.pop()

    def _attempt(self, checkpoint: Checkpoint, before: Callable[[], None]) -> None:
        try:
            self._write(checkpoint, before)
        except BaseException as error:  # is raised where the run waits for it
            self._failed.append(error)

    def _write(self, checkpoint: Checkpoint, before: Callable[[], None]) -> None:
        before()
        write_checkpoint(self.checkpoints, checkpoint)
        prune(self.checkpoints, self.keep, checkpoint.step, self.keep_every)


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}
