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

from wavespark.cli.checks import require_file, require_new_store, require_paths
from wavespark.cli.console import emit_json, fail, note, progress, say, split_settings
from wavespark.errors import ExitCode, SettingsError, TrainingStopped
from wavespark.text import printable

NO_ARGS_IS_HELP = True

MOST_TILES = 1000
"""Volumes on the page beside the store, at about 20 kB each; evenly picked where there are more."""


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
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Folders or files with CT or MR volumes. KEY=VALUE words change the recipe, e.g. spacing_mm=0.8 "
            "or reading.allow_gaps=true.",
        ),
    ],
    output: Annotated[
        Path, typer.Option(metavar="STORE", help="Folder of the store: a new one, or an existing store to add to.")
    ],
    recipe: Annotated[
        str,
        typer.Option(
            help="Preparation recipe: head-1mm, head-05mm, native, rsna-2025, openmind, deeplesion, bids, or the path of "
            "a TOML file."
        ),
    ] = "head-1mm",
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if any input is refused; inputs left out on purpose do not count.")
    ] = False,
    max_bad_fraction: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Fail if more than this share of the inputs is damaged; checked from 20 inputs on."
        ),
    ] = 0.05,
    keep_everything: Annotated[
        bool,
        typer.Option(
            "--keep-everything",
            help="Also keep label maps, computed maps (e.g. ADC), other parts of the body and duplicates.",
        ),
    ] = False,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="CSV that overrides what the files say about single inputs: a column path, and any of modality (MR or CT), "
            "contrast, patient, session.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of worker processes.  [default: one per core]")
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="local: processes on this machine; dask: a dask cluster with a shared disk.")
    ] = Engine.LOCAL,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="With --engine dask: the scheduler's address (tcp://HOST:PORT) or the path of its scheduler file.  "
            "[default: a new cluster on this machine]"
        ),
    ] = None,
    time_limit: Annotated[float, typer.Option(min=1, help="Largest time per input, in seconds.")] = 600,
    memory_mb: Annotated[int, typer.Option(min=256, help="Largest memory per worker, in MB.")] = 4096,
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N", help="Work on part I of N of the inputs, e.g. 1/8; for job arrays that fill one store."
        ),
    ] = "1/1",
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")] = False,
) -> None:
    """Convert DICOM, NIfTI and other volumes into a store.

    A store is a folder of resampled, normalised volumes for training and testing. Run the same
    command again to resume after a stop or to add new files.

    Inputs that are not images of a head are left out and counted. STORE.mosaic.html shows a slice
    of the volumes, for a quick check by eye.

    Example: `wavespark prepare MY_FOLDER --output store spacing_mm=0.8`.
    """
    from wavespark.prepare import load_recipe

    roots, settings = split_settings(source)
    if not roots:
        raise SettingsError("give at least one SOURCE, a folder or a file")
    part, loaded = _shard(shard), load_recipe(recipe, settings)
    require_paths(roots)
    require_new_store(output)
    if table is not None:
        require_file(table, "--table")
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
            table=table,
            for_pretraining=not keep_everything,
            on_progress=on_progress,
        )
    verdict = report.verdict(strict=strict, max_bad_fraction=max_bad_fraction, part=part[1] > 1)
    page = _mosaic(output) if report.volumes else None
    if json:
        emit_json(report.to_json() | {"store": str(output), "mosaic": page and str(page), "failed": verdict})
    else:
        _summary(report, output, page)
    if verdict:
        fail(verdict, ExitCode.FAILED)


def _mosaic(output: Path) -> Path:
    """Write the page with a slice of every volume beside the store."""
    from wavespark.pages.page import write_page
    from wavespark.prepare import open_store
    from wavespark.prepare.overview import mosaic_page

    store = output.absolute()
    page = store.with_name(f"{store.name}.mosaic.html")
    write_page(page, mosaic_page(open_store(output), at_most=MOST_TILES))
    return page if output.name in ("", "..") else output.with_name(page.name)  # as the call named the store


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


def _summary(report: Any, output: Path, page: Path | None) -> None:
    refused = len(report.refused) - len(report.left_out)
    counts = f"{report.prepared} input(s) prepared, {report.already_there} already there, {refused} refused"
    say(f"{counts}, {len(report.left_out)} left out.")
    say_refusals(report.refused)
    name = printable(output)
    if report.modality_guessed:
        say(
            f"  modality guessed from values: {report.modality_guessed} volume(s). `wavespark inspect {name} --guessed` "
            "lists them; --table FILE.csv with the columns path and modality decides"
        )
    kinds = "".join(f", {count} {modality}" for modality, count in sorted(report.modalities.items()))
    say(f"{name} holds {report.volumes} volume(s){kinds}, after {report.seconds:.1f} s.")
    say(f"Look at it: wavespark inspect {name}")
    if page is not None:
        say(f"A slice of each volume: {printable(page)}")


def say_refusals(refused: Any, at_most: int = 10) -> None:
    """Write refused inputs by reason: a line with a sentence, and the ids where there are few."""
    from wavespark.prepare.fit import NAMES

    for reason, count in Counter(r.reason for r in refused).most_common():
        named = [r for r in refused if r.reason == reason]
        sentence = f"{named[0].sentence[:1].upper()}{named[0].sentence[1:]}"
        if reason in NAMES:
            say(f"  left out, {reason}: {count} {NAMES[reason]}. First: {sentence}")
        else:
            say(f"  refused, {reason}: {count}. {sentence}")
        if count <= at_most:
            say(f"    {' '.join(r.source_id for r in named)}")
    if refused:
        note("wavespark inspect STORE --reveal ID shows which file an id is.")
