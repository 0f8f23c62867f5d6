"""`wavespark pretrain RECIPE --store STORE --output RUN`: trains, and continues by itself."""

import os
from pathlib import Path
from typing import Annotated

import typer

from wavespark.cli.console import emit_json, note, printable, progress, say
from wavespark.cli.signals import stop_requests
from wavespark.errors import TrainingStopped

NO_ARGS_IS_HELP = True
STOPPED_BY_SIGNAL = 75


def command(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE", help="A TOML file, or a recipe that comes with the package, e.g. tiny-cpu."),
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE ...]", help="Changes, e.g. run.steps=1000 data.batch=8.")
    ] = None,
    store: Annotated[Path, typer.Option(help="A prepared store.")] = Path("store"),
    output: Annotated[
        Path, typer.Option(help="The run's folder; with a checkpoint in it, the run goes on from there.")
    ] = Path("run"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Start again; what is there is moved aside.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Pre-train an encoder on a store. Killed at any moment, the same command goes on from the last checkpoint.

    On several devices: torchrun --nproc-per-node N -m wavespark pretrain ... (see docs/how-to/slurm.md for several machines).
    """
    with stop_requests() as stop:  # before the slow imports, so that no moment is left in which a signal just kills
        from dataclasses import asdict

        from wavespark.config import load_pretraining
        from wavespark.engine import begin_fresh, preflight, pretrain, ranks_of
        from wavespark.prepare import open_store

        first = ranks_of().writes
        chosen = load_pretraining(recipe, settings or [])
        opened = open_store(store)
        if first:
            for line in preflight(chosen, opened, output, fresh=fresh):
                note(printable(line))
            if fresh and _is_first_attempt():
                begin_fresh(output)
        try:
            with progress("pretrain", quiet=not first) as tell:
                summary = pretrain(chosen, opened, output, tell=tell, say=lambda text: note(printable(text)), stop=stop)
        except TrainingStopped as stopped:
            if stopped.exit_code != STOPPED_BY_SIGNAL or first:
                raise
            raise typer.Exit(STOPPED_BY_SIGNAL) from None  # the first process says it
    if not first:
        return
    if json:
        emit_json(asdict(summary) | {"run": str(output)})
        return
    say_learning(summary.first, summary.last)
    say(f"{summary.steps} steps, {summary.seconds_per_step:.2f} s each; {summary.parameters / 1e6:.2f} M parameters.")
    say(
        f"The encoder is in {printable(output)}/exports/encoder. See what it learned: wavespark report {printable(output)}"
    )


def _is_first_attempt() -> bool:
    """Not one that torchrun makes after a failure: it goes on where the last one was, also with --fresh."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"


def say_learning(first: dict, last: dict) -> None:
    """From where to where the held-out measure went, beside inpainting."""

    def figure(measure: dict, key: str) -> str:
        return f"{measure[key]:.3f}" if measure.get(key) is not None else "not measured"

    say(
        f"Held-out normalised loss (1 = predicting the mean): from {figure(first, 'normalised_loss')} to {figure(last, 'normalised_loss')}."
    )
    scans = last.get("per_contrast", {})
    if len(scans) > 1:
        say(
            "  "
            + "; ".join(
                f"{kind}: {figure(m, 'normalised_loss')} (trilinear {figure(m, 'inpainting')}, harmonic {figure(m, 'harmonic_own_mean')})"
                for kind, m in scans.items()
            )
        )
    say(
        f"In the same units trilinear inpainting scores {figure(last, 'inpainting')}; told the true mean of every cell, "
        f"trilinear {figure(last, 'inpainting_own_mean')} and harmonic inpainting {figure(last, 'harmonic_own_mean')}."
    )
