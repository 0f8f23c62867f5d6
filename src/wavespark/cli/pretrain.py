"""`wavespark pretrain CONFIG --store STORE --output RUN`: train, or continue a run."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from wavespark.cli.checks import require_settings
from wavespark.cli.console import emit_json, note, progress, say
from wavespark.cli.list import config_names
from wavespark.cli.list import names_for_help as more_help  # noqa: F401  (shown by `pretrain --help`)
from wavespark.cli.signals import stop_requests
from wavespark.errors import ExitCode, TrainingStopped
from wavespark.text import printable

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
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE ...]", help="Settings to change, e.g. run.steps=1000 data.batch=8."),
    ] = None,
    store: Annotated[Path, typer.Option(help="Store that `wavespark prepare` wrote.")] = Path("store"),
    output: Annotated[Path, typer.Option(help="Folder of the run. An existing run there is resumed.")] = Path("run"),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start a new run; an existing run is renamed, not deleted.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")] = False,
) -> None:
    """Pre-train an encoder on a store.

    You can stop it at any time; the same command resumes from the last checkpoint.

    Example: `wavespark pretrain tiny-cpu --store store --output run run.steps=2000`.

    On several GPUs: `torchrun --nproc-per-node N -m wavespark pretrain ...`. For several machines
    see docs/how-to/slurm.md.
    """
    with stop_requests() as should_stop:  # before the slow imports: a signal must not kill while they last
        from dataclasses import asdict

        from wavespark.config import load_pretraining
        from wavespark.engine.run.folder import check_place, check_same
        from wavespark.prepare import open_store

        require_settings(settings, "run.steps=1000")
        selected, opened = load_pretraining(config, settings or []), open_store(store)
        check_place(output)
        if not fresh:
            check_same(output, selected)
        first = "WORLD_SIZE" not in os.environ or os.environ.get("RANK", "0") == "0"
        try:
            with progress("pretrain", "loading PyTorch", quiet=not first) as on_progress:
                from wavespark.engine import begin_fresh, preflight, pretrain

                if first:
                    for line in preflight(selected, opened, output, fresh=fresh):
                        note(printable(line))
                    if fresh and _is_first_attempt():
                        begin_fresh(output)
                summary = pretrain(
                    selected,
                    opened,
                    output,
                    on_progress=on_progress,
                    log=lambda text: note(printable(text)),
                    should_stop=should_stop,
                )
        except TrainingStopped as stopped:
            if stopped.exit_code != ExitCode.INTERRUPTED or first:
                raise
            raise typer.Exit(ExitCode.INTERRUPTED) from None  # the first process says it
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
    """Return False where torchrun starts again after a failure: it resumes the last attempt, also
    with --fresh."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"


def say_learning(first: dict[str, Any], last: dict[str, Any]) -> None:
    """Print the held-out loss before and after training, beside inpainting."""
    if not any(measure.get("normalised_loss") is not None for measure in (first, last)):
        say(
            "Held-out loss: not measured, because the store has no patient to hold out. "
            "Prepare volumes of at least two patients to see whether the run learns."
        )
        return
    say(
        "Held-out normalised loss (1 = predicting the mean): "
        f"from {_figure(first, 'normalised_loss')} to {_figure(last, 'normalised_loss')}."
    )
    scans = last.get("per_contrast", {})
    if len(scans) > 1:
        say("  " + "; ".join(_one_contrast(kind, measure) for kind, measure in scans.items()))
    say(
        f"In the same units trilinear inpainting scores {_figure(last, 'inpainting')}. Given the true mean of every "
        f"hidden cell, trilinear inpainting scores {_figure(last, 'inpainting_own_mean')} and harmonic inpainting "
        f"{_figure(last, 'harmonic_own_mean')}."
    )


def _one_contrast(kind: str, measure: dict[str, Any]) -> str:
    trilinear, harmonic = _figure(measure, "inpainting"), _figure(measure, "harmonic_own_mean")
    return f"{kind}: {_figure(measure, 'normalised_loss')} (trilinear {trilinear}, harmonic {harmonic})"


def _figure(measure: dict[str, Any], key: str) -> str:
    return f"{measure[key]:.3f}" if measure.get(key) is not None else "not measured"
