"""`wavespark bench WHAT`: the published figures, rerun on this machine."""

import json
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from wavespark.cli.console import emit_json, printable, progress, say
from wavespark.errors import SettingsError

NO_ARGS_IS_HELP = True


class What(StrEnum):
    """The benchmarks that are built."""

    SPARSE = "sparse"
    STEP = "step"
    LOADER = "loader"
    PREPARE = "prepare"
    TRANSFER = "transfer"


def command(
    what: Annotated[
        What,
        typer.Argument(
            help="sparse: convolutions on what is visible against dense ones. step: a training step on visible cells "
            "against the step on everything. loader: crops a second. prepare: workers, memory, dcm2niix beside it. "
            "transfer: pre-trained against random weights, with few labels."
        ),
    ],
    model: Annotated[str, typer.Option(help="Which encoder.")] = "waveformer_small",
    size: Annotated[
        int | None, typer.Option(min=1, help="Voxels along each edge of the crop.  [step: 96, sparse: 48]")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Crops in a step.")] = 1,
    hidden: Annotated[
        list[float] | None, typer.Option(help="Share of cells to hide; may be repeated.  [0.6, 0.75]")
    ] = None,
    decoder: Annotated[
        list[str] | None,
        typer.Option(help="step: also the whole step with this decoder, light or unet; may be repeated."),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Rounds; the figures are medians of the ratios in a round.  [7; loader, prepare: 3]"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="loader: processes.")] = 2,
    crops: Annotated[int, typer.Option(min=1, help="loader: crops in a round.")] = 240,
    recipe: Annotated[str, typer.Option(help="loader: whose step it must keep up with.")] = "tiny-cpu",
    series: Annotated[int, typer.Option(min=2, help="prepare: synthetic series.")] = 32,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the computation.")] = 1,
    seed: Annotated[int, typer.Option(help="Another seed hides other cells.")] = 0,
    preset: Annotated[str, typer.Option(help="transfer: cpu, sized for two cores.")] = "cpu",
    minutes: Annotated[float, typer.Option(min=0.1, help="transfer: about how long it may take.")] = 50.0,
    seeds: Annotated[int, typer.Option(min=1, help="transfer: trainings of every arm and number of labels.")] = 3,
    task: Annotated[
        list[str] | None,
        typer.Option(help="transfer: vessels, tissue or aneurysm; may be repeated.  [all three]"),
    ] = None,
    folder: Annotated[
        Path, typer.Option(help="transfer: heads, run, trainings and report; a stopped benchmark goes on there.")
    ] = Path("bench-transfer"),
    output: Annotated[Path | None, typer.Option(metavar="JSON", help="Also write the result into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure a published figure here, as ratios between forms that take turns in one process."""
    from wavespark.bench import SparseBench, StepBench, in_clean_process
    from wavespark.bench.sparse_page import sparse_lines
    from wavespark.bench.step_page import step_lines

    if output is not None and not output.absolute().parent.is_dir():
        raise SettingsError(f"--output {output}: there is no folder {output.absolute().parent}. Make it first")
    lines: Iterable[str]
    if what is What.TRANSFER:
        document, lines = _transfer(preset, minutes, seeds, seed, task, folder)
    elif what is What.LOADER:
        sizes = {} if size is None else {"size": size}
        document, lines = _loader(rounds=rounds or 3, workers=workers, crops=crops, recipe=recipe, seed=seed, **sizes)
    elif what is What.PREPARE:
        document, lines = _prepare(rounds=rounds or 3, series=series)
    else:
        common: dict[str, Any] = {
            "rounds": rounds or 7,
            "threads": threads,
            "seed": seed,
            "hidden": tuple(hidden) if hidden else (0.6, 0.75),
        }
        if what is What.SPARSE:
            document = in_clean_process(SparseBench(size=size or 48, **common))
            lines = sparse_lines(document)
        else:
            decoders = tuple(decoder or ())
            document = in_clean_process(
                StepBench(model=model, size=size or 96, batch=batch, decoders=decoders, **common)
            )
            lines = step_lines(document)
    if output is not None:
        output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if as_json:
        emit_json(document)
        return
    for line in lines:
        say(line)


def _transfer(
    preset: str, minutes: float, seeds: int, seed: int, tasks: list[str] | None, folder: Path
) -> tuple[dict[str, Any], Iterable[str]]:
    from wavespark.bench.transfer import TASKS, TransferBench, measure_transfer

    if preset != "cpu":
        raise SettingsError(f"there is no preset {printable(preset)!r}: use cpu")
    bench = TransferBench(minutes=minutes, seeds=seeds, seed=seed, tasks=tuple(tasks or TASKS))
    with progress("bench transfer") as tell:
        document = measure_transfer(bench, folder, tell)
    before, after = document["pretraining"]["normalised_loss"]
    lines = [
        document["what"],
        f"pre-training: {document['pretraining']['steps']} steps, normalised loss {before:.3f} to {after:.3f}",
        f"{'task':<10} {'mode':<11} {'labels':>6} {'figure':<12} {'pre-trained':>11} {'random':>8}   gain with 95 % interval",
    ]
    for r in document["results"]:
        figures = [f"{v:.3f}" if v is not None else "-" for v in (r["pretrained"], r["scratch"])]
        gain = r["gain"]
        spread = "-" if gain["low"] is None else f"{gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
        lines.append(
            f"{r['task']:<10} {r['mode']:<11} {r['labels']:>6} {r['figure']:<12} {figures[0]:>11} {figures[1]:>8}   {spread}"
        )
    lines.append(f"{document['target']}: {'met' if document['met'] else 'MISSED'} ({document['minutes']} minutes)")
    lines.append(f"report: {printable(folder)}/transfer.html   again: {document['command']}")
    return document, lines


def _loader(**settings: Any) -> tuple[dict[str, Any], Iterable[str]]:
    from wavespark.bench.loader import LoaderBench, describe_loader, measure_loader

    with progress("bench loader") as tell:
        document = measure_loader(LoaderBench(**settings), tell)
    return document, describe_loader(document)


def _prepare(**settings: Any) -> tuple[dict[str, Any], Iterable[str]]:
    from wavespark.bench.prepare import PrepareBench, describe_prepare, measure_prepare

    with progress("bench prepare") as tell:
        document = measure_prepare(PrepareBench(**settings), tell)
    return document, describe_prepare(document)
