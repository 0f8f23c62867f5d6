"""`wavespark prepare SOURCE... --output STORE`: files and folders to a store."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from wavespark.cli.checks import require_paths
from wavespark.cli.console import emit_json, fail, note, progress, say, split_settings
from wavespark.errors import ExitCode, SettingsError, TrainingStopped
from wavespark.text import printable

NO_ARGS_IS_HELP = True


class Engine(StrEnum):
    """Where the work is done."""

    LOCAL = "local"
    DASK = "dask"


def _shard(text: str) -> tuple[int, int]:
    part, slash, of = text.partition("/")
    if not (slash and part.isdigit() and of.isdigit()):
        raise SettingsError(f"--shard {printable(text)} is not possible: write i/n, for example 1/8")
    return int(part), int(of)


def command(
    source: Annotated[
        list[str], typer.Argument(metavar="SOURCE... [KEY=VALUE ...]", help="Folders or files with CT or MR volumes.")
    ],
    output: Annotated[Path, typer.Option(help="The store: a new folder, or one to complete.")],
    recipe: Annotated[
        str,
        typer.Option(help="How: head-1mm, head-05mm, native, rsna-2025, openmind, deeplesion, bids, or a TOML file."),
    ] = "head-1mm",
    strict: Annotated[bool, typer.Option("--strict", help="Fail if any input was refused.")] = False,
    max_bad_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Fail above this share of refused inputs (counts from 20 inputs on).")
    ] = 0.05,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a core if not given.")] = None,
    engine: Annotated[
        Engine, typer.Option(help="Processes of this machine, or a dask cluster that shares its disk.")
    ] = Engine.LOCAL,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Of dask: tcp://HOST:PORT or a scheduler file; a cluster on this machine if not given."),
    ] = None,
    time_limit: Annotated[float, typer.Option(min=1, help="Seconds that one input may take.")] = 600,
    memory_mb: Annotated[int, typer.Option(min=256, help="Megabytes that one worker may use.")] = 4096,
    shard: Annotated[str, typer.Option(help="Work on the i-th of n parts, for job arrays on one store.")] = "1/1",
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Prepare DICOM, NIfTI and other volumes into a store. Run it again after a stop: it goes on where it was.

    KEY=VALUE words change the recipe, for example `spacing_mm=0.8` or `reading.allow_gaps=true`.
    """
    from wavespark.prepare import load_recipe

    roots, settings = split_settings(source)
    if not roots:
        raise SettingsError("give at least one SOURCE, a folder or a file")
    part, loaded = _shard(shard), load_recipe(recipe, settings)
    require_paths(roots)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with _stoppable(), progress("prepare", "looking for volumes") as on_progress:
        from wavespark.prepare import Limits, prepare

        report = prepare(
            roots,
            output,
            loaded,
            workers=workers or cores,
            engine=engine.value,
            scheduler=scheduler,
            shard=part,
            limits=Limits(seconds=time_limit, megabytes=memory_mb),
            on_progress=on_progress,
        )
    verdict = report.verdict(strict=strict, max_bad_fraction=max_bad_fraction, part=part[1] > 1)
    if json:
        emit_json(report.to_json() | {"store": str(output), "failed": verdict})
    else:
        _summary(report, output)
    if verdict:
        fail(verdict, 1)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Turns the signals of schedulers and Ctrl-C into an orderly end with exit code 75."""
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def stop(number: int, frame: object) -> NoReturn:
        for s in signals:  # a second one must not disturb the way out
            signal.signal(s, signal.SIG_IGN)
        raise TrainingStopped(
            f"stopped by {signal.Signals(number).name}: run the same command again to go on", ExitCode.INTERRUPTED
        )

    before = {s: signal.signal(s, stop) for s in signals}
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def _summary(report: Any, output: Path) -> None:
    say(f"{report.prepared} input(s) prepared, {report.already_there} already there, {len(report.refused)} refused.")
    say_refusals(report.refused)
    name = printable(output)
    say(f"{name} holds {report.volumes} volume(s), after {report.seconds:.1f} s. Look at it: wavespark inspect {name}")


def say_refusals(refused: Any, at_most: int = 10) -> None:
    """Refused inputs by reason, with a sentence and the ids of the first ones."""
    for reason, count in Counter(r.reason for r in refused).most_common():
        named = [r for r in refused if r.reason == reason]
        say(f"  refused, {reason}: {count}. {named[0].sentence[:1].upper()}{named[0].sentence[1:]}")
        more = f" and {count - at_most} more" if count > at_most else ""
        say(f"    {' '.join(r.source_id for r in named[:at_most])}{more}")
    if refused:
        note("wavespark inspect STORE --reveal ID shows which file an id is.")
