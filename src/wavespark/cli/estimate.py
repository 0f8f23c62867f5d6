"""`wavespark estimate RECIPE`: what a run will take, measured by a few of its steps."""

from pathlib import Path
from typing import Annotated

import typer

from wavespark.cli.console import emit_json, say

NO_ARGS_IS_HELP = True


def command(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE", help="A TOML file, or a recipe that comes with the package, e.g. tiny-cpu."),
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE ...]", help="Changes, e.g. data.batch=8.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="A prepared store; without one the steps are done on noise of one channel.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps to measure, after one that warms up.")] = 3,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Measure a few steps here: parameters, memory, time and disk of the whole run, and the largest batch that fits."""
    from dataclasses import asdict

    from wavespark.config import load_pretraining
    from wavespark.engine import estimate
    from wavespark.prepare import open_store

    chosen = load_pretraining(recipe, settings or [])
    found = estimate(chosen, open_store(store) if store else None, steps)
    if json:
        emit_json(asdict(found))
        return
    crop = " x ".join(map(str, chosen.data.crop))
    most = f"{found.largest_crops_at_once}{' or more' if found.more_may_fit else ''}"
    say(
        f"model     {found.model}: {found.encoder_parameters / 1e6:.2f} M parameters, {found.parameters / 1e6:.2f} M with its decoder"
    )
    say(f"device    {found.device}, {found.precision}, {_gib(found.memory_bytes)} GiB")
    say(
        f"step      {found.seconds_per_step:.2f} s for {chosen.data.batch} crop(s) of {crop}: {found.crops_per_second:.2f} crops/s; "
        f"reading them takes {found.seconds_per_load:.2f} s"
    )
    say(f"memory    {_gib(found.peak_bytes)} GiB with {found.crops_at_once} crop(s) at once; {most} fit")
    say(f"whole     {chosen.run.steps} steps: {_hours(found.hours)} in one process, and the held-out measures")
    say(f"disk      {_gib(found.disk_bytes)} GiB for checkpoints of {found.checkpoint_bytes / 2**20:.0f} MiB")
    if found.advice:
        say(f"It does not fit. {found.advice}")


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f}"


def _hours(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"
