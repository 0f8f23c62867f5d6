"""The memory of this process, its peak counted from here on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wavespark.bench.cost import resident_bytes

_CLEAR = Path("/proc/self/clear_refs")


@contextmanager
def no_more_memory_than(most: int) -> Iterator[None]:
    """Fails where resident memory ever was more than `most` bytes above what it was at the start: the peak of earlier tests is forgotten.

    Linux only (`/proc/self/clear_refs`); elsewhere nothing is checked and the test is skipped at its end.
    """
    try:
        _CLEAR.write_text("5", encoding="ascii")
        before = resident_bytes("VmRSS:")
    except OSError:
        before = None
    yield
    if before is None:
        pytest.skip("this system does not tell the peak memory of a process from here on")
    used = resident_bytes("VmHWM:") - before
    assert used < most, f"{used >> 20} MiB, more than {most >> 20}"
