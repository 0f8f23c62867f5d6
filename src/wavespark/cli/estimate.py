"""`wavespark estimate CONFIG`: cost of a run, measured by a few of its steps."""

from pathlib import Path
from typing import Annotated

import typer

from wavespark.cli.checks import require_settings
from wavespark.cli.console import emit_json, progress, say
from wavespark.cli.list import config_names
from wavespark.cli.list import names_for_help as more_help  # noqa: F401  (shown by `estimate --help`)

NO_ARGS_IS_HELP = True


def command(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="Training config: a name from the list below, e.g. tiny-cpu, or the path of a TOML file.",
            autocompletion=config_names,
        ),
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE ...]", help="Settings to change, e.g. data.batch=8.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="Store that `wavespark prepare` wrote. Without it, the steps run on one-channel noise."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Number of steps to measure, after one warm-up step.")] = 3,
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")] = False,
) -> None:
    """Measure what a training run costs on this machine.

    Runs a few steps, and prints the parameters, memory, time and disk space of the whole run and
    the largest number of crops that fits at once.
    """
    from dataclasses import asdict

    from wavespark.config import load_pretraining
    from wavespark.prepare import open_store

    require_settings(settings, "data.batch=8")
    selected, opened = load_pretraining(config, settings or []), open_store(store) if store else None
    with progress("estimate", f"loading PyTorch, then {steps + 1} steps in a process of its own") as on_progress:
        from wavespark.engine import estimate

        cost = estimate(selected, opened, steps, on_progress)
    if json:
        emit_json(asdict(cost))
        return
    crop = " x ".join(map(str, selected.data.crop))
    most = f"{cost.largest_crops_at_once}{' or more' if cost.more_may_fit else ''}"
    say(
        f"model     {cost.model}: {cost.encoder_parameters / 1e6:.2f} M parameters, {cost.parameters / 1e6:.2f} M with its decoder"
    )
    say(f"device    {cost.device}, {cost.precision}, {_gib(cost.memory_bytes)} GiB")
    say(
        f"step      {cost.seconds_per_step:.2f} s for {selected.data.batch} crop(s) of {crop}: {cost.crops_per_second:.2f} crops/s; "
        f"reading them takes {cost.seconds_per_load:.2f} s"
    )
    say(f"memory    {_gib(cost.peak_bytes)} GiB with {cost.crops_at_once} crop(s) at once; {most} fit")
    say(f"whole     {selected.run.steps} steps: {_hours(cost.hours)} in one process, and the held-out measures")
    say(f"disk      {_gib(cost.disk_bytes)} GiB for checkpoints of {cost.checkpoint_bytes / 2**20:.0f} MiB")
    if cost.advice:
        say(f"It does not fit. {cost.advice}")


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f}"


def _hours(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"
