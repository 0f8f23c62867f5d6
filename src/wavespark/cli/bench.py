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
    help="Measure the published figures on this machine. "
    "Speed and memory are compared between variants that run alternately on this machine; transfer compares accuracies.",
)

Rounds = Annotated[int, typer.Option(min=1, help="Number of rounds; figures are medians over the rounds.")]
Hidden = Annotated[
    list[float] | None,
    typer.Option(help="Share of the cells to hide, between 0 and 1; may be repeated.  [default: 0.6, 0.75]"),
]
Threads = Annotated[int, typer.Option(min=1, help="Number of CPU threads.")]
Seed = Annotated[int, typer.Option(help="Random seed.")]
Output = Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the result to this JSON file.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]


@app.command()
def sparse(
    size: Annotated[int, typer.Option(min=1, help="Edge of the crop in voxels.")] = 48,
    hidden: Hidden = None,
    rounds: Rounds = 7,
    threads: Threads = 1,
    seed: Seed = 0,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Compare sparse with dense convolutions.

    Measures time and memory of convolutions on visible cells and on all cells.
    """
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
    model: Annotated[
        str, typer.Option(help="Encoder (names: wavespark list).", autocompletion=model_names)
    ] = "waveformer_small",
    size: Annotated[int, typer.Option(min=1, help="Edge of the crop in voxels.")] = 96,
    batch: Annotated[int, typer.Option(min=1, help="Crops per step.")] = 1,
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
    """Compare a training step on visible and on all cells."""
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
            help="Training config whose step time the loader must match (--recipe is an alias).",
            autocompletion=config_names,
        ),
    ] = "tiny-cpu",
    size: Annotated[int | None, typer.Option(min=1, help="Edge of the crop in voxels.  [default: 96]")] = None,
    crops: Annotated[int, typer.Option(min=1, help="Crops per round.")] = 240,
    workers: Annotated[int, typer.Option(min=1, help="Number of data-loader workers.")] = 2,
    rounds: Rounds = 3,
    seed: Seed = 0,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Compare the data loader with what training needs.

    Both are measured in crops per second.
    """
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
    series: Annotated[int, typer.Option(min=2, help="Number of synthetic DICOM series to prepare.")] = 32,
    rounds: Rounds = 3,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Measure preparation with one and with several workers.

    Reports time and memory, and compares with dcm2niix if it is installed.
    """
    require_folder_of(output, "--output")
    with progress("bench prepare", "loading") as on_progress:
        from wavespark.bench.prepare import PrepareBench, describe_prepare, measure_prepare

        document = measure_prepare(PrepareBench(rounds=rounds, series=series), on_progress)
    _show(document, describe_prepare(document), output, as_json)


@app.command()
def transfer(
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Approximate total time in minutes.  [default: 50; 90 with --people]")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="vessels|tissue|aneurysm", help="Task to measure; may be repeated.  [default: all three]"),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of random seeds, i.e. repeats of every training.  [default: 3; 1 with --people]"
        ),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Folder for all results. Run the same command again to resume.")] = Path(
        "bench-transfer"
    ),
    preset: Annotated[
        str, typer.Option(metavar="cpu", help="Size of model and data; cpu, for two cores, is the only preset.")
    ] = "cpu",
    people: Annotated[
        Path | None,
        typer.Option(
            help="Folder with real heads instead of synthetic ones: ds002748/, ds000011/ and slabs/ (see docs/how-to/probe.md)."
        ),
    ] = None,
    encoder: Annotated[
        Path | None, typer.Option(help="With --people: evaluate this exported encoder instead of pre-training one.")
    ] = None,
    pretraining_seeds: Annotated[
        int,
        typer.Option(
            min=1, help="With --people: number of pre-training runs, each with its own seed; gives intervals over them."
        ),
    ] = 1,
    tune: Annotated[
        bool, typer.Option("--tune", help="With --people: choose each learning rate by cross-validation.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="With --people: test run of a few steps; its figures are meaningless.")
    ] = False,
    seed: Seed = 0,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Compare pre-trained with random weights on few labels.

    The tasks are vessels, tissue and aneurysms, on synthetic heads and the MNI152 brain. With
    --people they are tissue, sex, age, diagnosis and contrast, on real heads.
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
