"""The memory of this process, its peak counted from here on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wavespark.bench.cost import resident_bytes

_CLEAR = Path("/proc/self/clear_refs")


@contextmanager
def no_more_memory_than(most: int) -> Iterator[None]:
    """Fails where resident memory ever was more than `most` bytes above what it was at the start: the peak of earlier tests is forgotten.

    Linux tells it (`/proc/self/clear_refs`); elsewhere memory is not checked, the rest of the test is.
    """
    try:
        _CLEAR.write_text("5", encoding="ascii")
        before = resident_bytes("VmRSS:")
    except OSError:
        yield
        return
    yield
    used = resident_bytes("VmHWM:") - before
    assert used < most, f"{used >> 20} MiB, more than {most >> 20}"
