"""SIGTERM, SIGINT and SIGUSR1 as a request that the loop sees after its step."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_requests() -> Iterator[Callable[[], str | None]]:
    """Gives a function that names the signal that asked to stop, or None. A second signal changes nothing: saving is under way.

    Example:
        with stop_requests() as stop:
            pretrain(..., stop=stop)
    """
    asked: list[str] = []
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {s: signal.signal(s, lambda number, frame: asked.append(signal.Signals(number).name)) for s in signals}
    try:
        yield lambda: asked[0] if asked else None
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
