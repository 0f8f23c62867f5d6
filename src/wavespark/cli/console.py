"""Output of the command line: text, one JSON document, progress, one-line errors."""

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import typer

from wavespark.errors import ExitCode
from wavespark.progress import OnProgress, ignore_progress
from wavespark.text import printable

_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*=")


def say(text: str = "") -> None:
    """Write a line on standard output."""
    typer.echo(text)


def note(text: str) -> None:
    """Write a line on standard error: for people, beside a JSON document or a progress bar."""
    typer.echo(text, err=True)


def emit_json(document: Any) -> None:
    """Write the JSON document of `--json` on standard output."""
    typer.echo(json.dumps(document, indent=2, allow_nan=False))


def fail(sentence: str, exit_code: ExitCode | int) -> NoReturn:
    """Write `error: ...` on standard error, in one line, and exit."""
    note("error: " + printable(sentence))
    sys.exit(exit_code)


def split_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split words into (others, `key=value` settings); the name of an existing file is never a
    setting."""
    settings = [w for w in words if _SETTING.match(w) and not Path(w).exists()]
    return [w for w in words if w not in settings], settings


QUIET_SECONDS = 4.0
"""Longest time without a line while a command works, in its first minutes.

Users took longer silence for a hang.
"""
PATIENT_SECONDS, PATIENT_AFTER = 30.0, 600.0
"""Seconds between lines, and the age of the work in seconds from which that holds: logs of long
jobs stay readable."""


def duration(seconds: float) -> str:
    """Return minutes and seconds, with hours where there are some.

    >>> duration(75), duration(3700)
    ('1:15', '1:01:40')
    """
    seconds = round(seconds)
    hours, minutes = seconds // 3600, seconds // 60
    return f"{hours}:{minutes % 60:02d}:{seconds % 60:02d}" if hours else f"{minutes}:{seconds % 60:02d}"


class ProgressLines:
    """Progress as lines, for output that is not a terminal.

    A line is written at the first call, at the end, and whenever the last one is older than
    `QUIET_SECONDS` (`PATIENT_SECONDS` once the work is `PATIENT_AFTER` old), also while the work
    makes no call: see `beat`.

    Args:
        title: start of each line.
        write: receives a line.
        clock: seconds that only grow.
    """

    def __init__(
        self, title: str, write: Callable[[str], None] = note, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.title, self.write, self.clock = title, write, clock
        self.start = self.last = clock()
        self.done, self.total, self.text = 0.0, 1.0, ""
        self.calls = 0
        self.lock = threading.Lock()

    def __call__(self, done: float, total: float, message: str) -> None:
        with self.lock:
            first, ended = self.calls == 0, done >= total
            changed_at_start = self.done <= 0 and done <= 0 and message != self.text
            self.done, self.total, self.text = done, max(total, 1e-9), message
            self.calls += 1
            if first or ended or changed_at_start or self._is_due():
                self._line()

    def beat(self) -> None:
        """Write a line if the last one is too old; called every second, whatever the work does."""
        with self.lock:
            if self._is_due():
                self._line()

    def _is_due(self) -> bool:
        now = self.clock()
        patient = now - self.start >= PATIENT_AFTER
        return now - self.last >= (PATIENT_SECONDS if patient else QUIET_SECONDS)

    def _line(self) -> None:
        now = self.clock()
        elapsed = now - self.start
        parts = [f"{100 * self.done / self.total:.0f} %"] if self.done > 0 else []
        parts += [printable(self.text)] if self.text else []
        line = f"{self.title}: {' · '.join(parts) or 'working'}"
        if 0 < self.done < self.total and elapsed >= 1:
            line += f", about {duration(elapsed * (self.total - self.done) / self.done)} left"
        elif elapsed >= 1:
            line += f", {duration(elapsed)} so far"
        self.write(line)
        self.last = now


@contextmanager
def progress(title: str, text: str = "", quiet: bool = False) -> Iterator[OnProgress]:
    """Show that work goes on, on standard error: a bar with the time left on a terminal, else lines
    (`ProgressLines`).

    Enter it before slow imports: it shows life while the work itself cannot.

    Args:
        title: the work, in a word or two.
        text: shown until the first call; as a line only where that takes seconds.
        quiet: show nothing.

    Example:
        with progress("prepare") as on_progress:
            on_progress(3, 10, "3 of 10 volumes")
    """
    if quiet:
        yield ignore_progress
    elif sys.stderr.isatty():
        with _bar(title, text) as on_progress:
            yield on_progress
    else:
        lines = ProgressLines(title)
        lines.text = text  # shown by the first beat: a refusal within seconds stays one line
        ended = threading.Event()
        beats = threading.Thread(target=_keep_beating, args=(lines, ended), daemon=True)
        beats.start()
        try:
            yield lines
        finally:
            ended.set()
            beats.join()


def _keep_beating(lines: ProgressLines, ended: threading.Event) -> None:
    while not ended.wait(1.0):
        lines.beat()


@contextmanager
def _bar(title: str, text: str) -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=1, text=printable(text))
        yield lambda done, total, message: bar.update(
            task, completed=done, total=max(total, 1e-9), text=printable(message)
        )
