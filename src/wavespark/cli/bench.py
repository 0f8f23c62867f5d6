"""`wavespark bench NAME`: the published figures, measured again on this machine."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from wavespark.cli.checks import require_choice, require_encoder, require_folder_of
from wavespark.cli.console import emit_json, progress, say
from wavespark.cli.list import config_names, model_names
from wavespark.errors import SettingsError
from wavespark.text import printable

app = typer.Typer(
    no_args_is_help=True,
    help="Measure a published figure on this machine, as ratios between forms that take turns in one process.",
)

Rounds = Annotated[int, typer.Option(min=1, help="Rounds. Figures are medians over the rounds.")]
Hidden = Annotated[
    list[float] | None, typer.Option(help="Share of cells to hide; may be repeated.  [default: 0.6, 0.75]")
]
Threads = Annotated[int, typer.Option(min=1, help="Threads of the computation.")]
Seed = Annotated[int, typer.Option(help="Random seed.")]
Output = Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the JSON document into this file.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def sparse(
    size: Annotated[int, typer.Option(min=1, help="Voxels along each edge of the crop.")] = 48,
    hidden: Hidden = None,
    rounds: Rounds = 7,
    threads: Threads = 1,
    seed: Seed = 0,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Convolutions on visible cells beside dense convolutions: time and memory."""
    require_folder_of(output, "--output")
    with progress("bench sparse", "loading PyTorch"):
        from wavespark.bench import SparseBench, in_clean_process
        from wavespark.bench.lines import sparse_lines

        bench = SparseBench(
            size=size, rounds=rounds, threads=threads, seed=seed, hidden=tuple(hidden) if hidden else (0.6, 0.75)
        )
        document = in_clean_process(bench)
    _show(document, sparse_lines(document), output, as_json)


@app.command()
def step(
    model: Annotated[str, typer.Option(help="Encoder.", autocompletion=model_names)] = "waveformer_small",
    size: Annotated[int, typer.Option(min=1, help="Voxels along each edge of the crop.")] = 96,
    batch: Annotated[int, typer.Option(min=1, help="Crops in a step.")] = 1,
    hidden: Hidden = None,
    decoder: Annotated[
        list[str] | None,
        typer.Option(metavar="light|unet", help="Also measure the step with this decoder; may be repeated."),
    ] = None,
    rounds: Rounds = 7,
    threads: Threads = 1,
    seed: Seed = 0,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """A training step on visible cells beside the same step on all cells."""
    from wavespark.models import model_settings

    require_folder_of(output, "--output")
    model_settings(model)
    for kind in decoder or ():
        require_choice(kind, ("light", "unet"), "--decoder")
    with progress("bench step", "loading PyTorch"):
        from wavespark.bench import StepBench, in_clean_process
        from wavespark.bench.lines import step_lines

        bench = StepBench(
            model=model,
            size=size,
            batch=batch,
            decoders=tuple(decoder or ()),
            rounds=rounds,
            threads=threads,
            seed=seed,
            hidden=tuple(hidden) if hidden else (0.6, 0.75),
        )
        document = in_clean_process(bench)
    _show(document, step_lines(document), output, as_json)


@app.command()
def loader(
    config: Annotated[
        str,
        typer.Option(
            "--config",
            "--recipe",
            help="Training config whose step time sets the target.",
            autocompletion=config_names,
        ),
    ] = "tiny-cpu",
    size: Annotated[
        int | None, typer.Option(min=1, help="Voxels along each edge of the crop.  [default: of the benchmark]")
    ] = None,
    crops: Annotated[int, typer.Option(min=1, help="Crops in a round.")] = 240,
    workers: Annotated[int, typer.Option(min=1, help="Data-loader workers.")] = 2,
    rounds: Rounds = 3,
    seed: Seed = 0,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Crops per second of the data loader beside the crops per second that training needs."""
    from wavespark.config import load_pretraining

    require_folder_of(output, "--output")
    load_pretraining(config)
    with progress("bench loader", "loading PyTorch") as on_progress:
        from wavespark.bench.loader import LoaderBench, describe_loader, measure_loader

        sizes = {} if size is None else {"size": size}
        bench = LoaderBench(rounds=rounds, workers=workers, crops=crops, recipe=config, seed=seed, **sizes)
        document = measure_loader(bench, on_progress)
    _show(document, describe_loader(document), output, as_json)


@app.command()
def prepare(
    series: Annotated[int, typer.Option(min=2, help="Synthetic DICOM series to prepare.")] = 32,
    rounds: Rounds = 3,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Preparation with one and with several workers, its memory, and dcm2niix beside it where
    installed."""
    require_folder_of(output, "--output")
    with progress("bench prepare", "loading") as on_progress:
        from wavespark.bench.prepare import PrepareBench, describe_prepare, measure_prepare

        document = measure_prepare(PrepareBench(rounds=rounds, series=series), on_progress)
    _show(document, describe_prepare(document), output, as_json)


@app.command()
def transfer(
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Time budget, about.  [default: 50; with --people 90]")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="vessels|tissue|aneurysm", help="Task; may be repeated.  [default: all three]"),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Trainings of each arm and number of labels.  [default: 3; with --people 1]"),
    ] = None,
    folder: Annotated[
        Path, typer.Option(help="Folder of heads, run, trainings and report. A stopped benchmark continues there.")
    ] = Path("bench-transfer"),
    preset: Annotated[str, typer.Option(metavar="cpu", help="Sizes of model and data: cpu suits two cores.")] = "cpu",
    people: Annotated[
        Path | None,
        typer.Option(help="Folder of real people (ds002748, ds000011, slabs): tissue, sex, age, diagnosis, contrast."),
    ] = None,
    encoder: Annotated[
        Path | None, typer.Option(help="With --people: evaluate this export instead of pre-training one.")
    ] = None,
    pretraining_seeds: Annotated[
        int, typer.Option(min=1, help="With --people: pre-trainings, for intervals over them.")
    ] = 1,
    tune: Annotated[
        bool, typer.Option("--tune", help="With --people: choose each arm's learning rate by cross-validation.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="With --people: smoke run of a few steps; its figures mean nothing.")
    ] = False,
    seed: Seed = 0,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Few-label tasks from pre-trained weights beside the same tasks from random weights; with
    --people on real heads.

    The defaults of --minutes and --seeds with --people are 90 and 1.
    """
    require_folder_of(output, "--output")
    if people is not None:
        _transfer_people(
            people, encoder, minutes, seeds, pretraining_seeds, seed, folder, (tune, quick), output, as_json
        )
        return
    for option, given in (
        ("--encoder", encoder),
        ("--quick", quick),
        ("--tune", tune),
        ("--pretraining-seeds", pretraining_seeds > 1),
    ):
        if given:
            raise SettingsError(f"{option} belongs to the benchmark on real people: add --people FOLDER")
    minutes, seeds = minutes or 50.0, seeds or 3
    require_choice(preset, ("cpu",), "--preset")
    for name in task or ():
        require_choice(name, ("vessels", "tissue", "aneurysm"), "--task")
    with progress("bench transfer", "loading PyTorch") as on_progress:
        from wavespark.bench.transfer import TASKS, TransferBench, measure_transfer

        bench = TransferBench(minutes=minutes, seeds=seeds, seed=seed, tasks=tuple(task or TASKS))
        document = measure_transfer(bench, folder, on_progress)
    _show(document, _transfer_lines(document, folder), output, as_json)


def _transfer_people(
    people: Path,
    encoder: Path | None,
    minutes: float | None,
    seeds: int | None,
    pretraining_seeds: int,
    seed: int,
    folder: Path,
    switches: tuple[bool, bool],
    output: Path | None,
    as_json: bool,
) -> None:
    tune, quick = switches
    if encoder is not None:
        require_encoder(encoder)
    with progress("bench transfer", "loading PyTorch") as on_progress:
        from wavespark.bench.transfer_people import PeopleBench, measure_people
        from wavespark.bench.transfer_people_page import people_lines

        bench = PeopleBench(
            people=people,
            encoder=encoder,
            minutes=minutes or 90.0,
            seeds=seeds or 1,
            pretraining_seeds=pretraining_seeds,
            seed=seed,
            tune=tune,
            quick=quick,
        )
        document = measure_people(bench, folder, on_progress)
    lines = [*people_lines(document), f"report: {printable(folder)}/people.html"]
    _show(document, lines, output, as_json)


def _show(document: dict[str, Any], lines: Iterable[str], output: Path | None, as_json: bool) -> None:
    if output is not None:
        output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if as_json:
        emit_json(document)
        return
    for line in lines:
        say(line)


def _transfer_lines(document: dict[str, Any], folder: Path) -> list[str]:
    before, after = document["pretraining"]["normalised_loss"]
    lines = [
        document["what"],
        f"pre-training: {document['pretraining']['steps']} steps, normalised loss {before:.3f} to {after:.3f}",
        f"{'task':<10} {'mode':<11} {'labels':>6} {'figure':<12} {'pre-trained':>11} {'random':>8}   "
        "gain with 95 % interval",
    ]
    for r in document["results"]:
        figures = [f"{v:.3f}" if v is not None else "-" for v in (r["pretrained"], r["scratch"])]
        gain = r["gain"]
        spread = "-" if gain["low"] is None else f"{gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
        lines.append(
            f"{r['task']:<10} {r['mode']:<11} {r['labels']:>6} {r['figure']:<12} {figures[0]:>11} {figures[1]:>8}   "
            f"{spread}"
        )
    lines.append(f"{document['target']}: {'met' if document['met'] else 'MISSED'} ({document['minutes']} minutes)")
    lines.append(f"report: {printable(folder)}/transfer.html   again: {document['command']}")
    return lines
