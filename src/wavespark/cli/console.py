"""What every verb says and how: text, one JSON document, progress with ETA, one-line errors."""

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, Protocol

import typer

_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*=")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: object) -> str:
    r"""The text with control characters and undecodable bytes escaped, so that a name cannot move the cursor or forge a line.

    >>> printable("a\nb")
    'a\\nb'
    """
    return _CONTROL.sub(lambda m: m.group().encode("unicode_escape").decode(), str(text))


def say(text: str = "") -> None:
    """A line on standard output."""
    typer.echo(text)


def note(text: str) -> None:
    """A line on standard error: for people, beside a JSON document or a progress bar."""
    typer.echo(text, err=True)


def emit_json(document: Any) -> None:
    """The one JSON document of `--json`."""
    typer.echo(json.dumps(document, indent=2, allow_nan=False))


def fail(sentence: str, exit_code: int) -> NoReturn:
    """`error: ...` on standard error, in one line, and the exit code."""
    note("error: " + printable(sentence))
    sys.exit(exit_code)


def split_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates `key=value` words from the others; a word that names an existing file or folder is never a setting."""
    settings = [w for w in words if _SETTING.match(w) and not Path(w).exists()]
    return [w for w in words if w not in settings], settings


class Progress(Protocol):
    """What long work is given to tell how far it is."""

    def __call__(self, done: float, total: float, text: str = "") -> None: ...


def _duration(seconds: float) -> str:
    seconds = round(seconds)
    hours, minutes = seconds // 3600, seconds // 60
    return f"{hours}:{minutes % 60:02d}:{seconds % 60:02d}" if hours else f"{minutes}:{seconds % 60:02d}"


@contextmanager
def progress(title: str, quiet: bool = False) -> Iterator[Progress]:
    """A progress bar with ETA on a terminal; elsewhere a line at the start, every 30 s and at the end. All on standard error.

    Example:
        with progress("prepare") as tell:
            tell(3, 10, "3 of 10 volumes")
    """
    if quiet:
        yield lambda done, total, text="": None
    elif sys.stderr.isatty():
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
            task = bar.add_task(title, total=1, text="")
            yield lambda done, total, text="": bar.update(
                task, completed=done, total=max(total, 1e-9), text=printable(text)
            )
    else:
        start = last = time.monotonic()
        first = True

        def tell(done: float, total: float, text: str = "") -> None:
            nonlocal last, first
            now = time.monotonic()
            if first or done >= total or now - last >= 30:
                left = (
                    f", about {_duration((now - start) * (total - done) / done)} left"
                    if 0 < done < total and not first
                    else ""
                )
                note(f"{title}: {100 * done / max(total, 1e-9):.0f} %{' · ' + printable(text) if text else ''}{left}")
                last, first = now, False

        yield tell
