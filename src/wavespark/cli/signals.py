"""SIGTERM, SIGINT and SIGUSR1 as a request that training sees after its current step."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from wavespark.progress import ShouldStop


@contextmanager
def stop_requests() -> Iterator[ShouldStop]:
    """Yield a function that returns the name of the signal that asked to stop, or None.

    A second signal changes nothing: saving is under way.

    Example:
        with stop_requests() as should_stop:
            pretrain(..., should_stop=should_stop)
    """
    received: list[str] = []
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {s: signal.signal(s, lambda number, frame: received.append(signal.Signals(number).name)) for s in signals}
    try:
        yield lambda: received[0] if received else None
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
