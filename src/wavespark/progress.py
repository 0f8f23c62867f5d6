"""How long work reports: progress, text, and requests to stop. Every room uses these types."""

from collections.abc import Callable

OnProgress = Callable[[float, float, str], None]
"""Called with (done, total, message) as the work goes on; the unit is the caller's."""

Log = Callable[[str], None]
"""Called with one line of text for the person who started the work."""

ShouldStop = Callable[[], str | None]
"""Asked between two pieces of work; a text (the name of a signal) stops the work after saving, None
goes on."""


def ignore_progress(done: float, total: float, message: str) -> None:
    """Reports nothing."""


def ignore_log(message: str) -> None:
    """Logs nothing."""


def never_stop() -> str | None:
    """Never asks to stop."""
    return None
