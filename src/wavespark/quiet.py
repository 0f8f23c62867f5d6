"""Silence for other libraries: their warnings, log records and native output can quote names and
tag values of patients.

wavespark shows its own sentences only. `quiet` silences a block of Python; `quiet_process` silences
a whole command, with what native code (ITK, GDCM, OpenJPEG) and child processes write to the
terminal.
"""

import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TextIO


class _Silence:
    """Log records of all libraries, disabled while any thread is inside `quiet`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = logging.NOTSET

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = logging.root.manager.disable
                logging.disable(logging.CRITICAL)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                logging.disable(self._before)


_SILENCE = _Silence()
"""One, because `logging.disable` is one for the whole process."""


@contextmanager
def quiet() -> Iterator[None]:
    """Drop warnings and log records of all libraries inside the block.

    Example:
        >>> with quiet():
        ...     warnings.warn("The string 'Doe^Jane' is no name")
    """
    with _SILENCE, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.showwarning = _drop  # a library that resets the filters still shows nothing
        yield


@contextmanager
def quiet_process() -> Iterator[None]:
    """Silence everything but what this process itself writes to `sys.stdout` and `sys.stderr`.

    Besides `quiet`, the file descriptors 1 and 2 lead nowhere inside the block, so that native code
    and child processes cannot reach the terminal; the two Python streams write to copies of them.
    Exceptions that Python cannot raise (in destructors, in threads) are not printed.
    """
    hooks = sys.unraisablehook, threading.excepthook
    with ExitStack() as stack:
        stack.enter_context(quiet())
        sys.unraisablehook = threading.excepthook = _drop
        try:
            for name, descriptor in (("stdout", 1), ("stderr", 2)):
                stack.enter_context(_own_stream(name, descriptor))
            yield
        finally:
            sys.unraisablehook, threading.excepthook = hooks


def _drop(*arguments: Any, **more: Any) -> None:
    """Show nothing."""


@contextmanager
def _own_stream(name: str, descriptor: int) -> Iterator[None]:
    """Lead a descriptor nowhere; a Python stream on it moves to a copy."""
    stream: TextIO = getattr(sys, name)
    try:
        copy = os.dup(descriptor)
    except OSError:  # closed from the start
        yield
        return
    moved = _replaced(stream, descriptor, copy)
    _redirect(descriptor)
    if moved is not None:
        setattr(sys, name, moved)
    try:
        yield
    finally:
        if moved is not None:
            if getattr(sys, name) is moved:
                setattr(sys, name, stream)
            _flush(moved)
        os.dup2(copy, descriptor)
        os.close(copy)


def _redirect(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _replaced(stream: TextIO, descriptor: int, copy: int) -> TextIO | None:
    """The stream on the copy; None if it does not write to the descriptor."""
    try:
        if stream.fileno() != descriptor:
            return None
    except (AttributeError, OSError, ValueError):
        return None
    _flush(stream)
    return open(copy, "w", buffering=1, encoding=stream.encoding, errors=stream.errors, closefd=False)


def _flush(stream: TextIO) -> None:
    with suppress(OSError, ValueError):  # nobody reads it any more
        stream.flush()
