"""`wavespark bench WHAT`: the published figures, rerun on this machine."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from wavespark.cli.console import emit_json, printable, progress, say
from wavespark.errors import SettingsError

NO_ARGS_IS_HELP = True


class What(StrEnum):
    """The benchmarks that are built."""

    STEP = "step"
    TRANSFER = "transfer"


def command(
    what: Annotated[
        What,
        typer.Argument(
            help="step: a training step on visible cells against the step on everything. transfer: pre-trained against random weights, with few labels."
        ),
    ],
    model: Annotated[str, typer.Option(help="Which encoder.")] = "waveformer_small",
    size: Annotated[int, typer.Option(min=1, help="Voxels along each edge of the crop.")] = 96,
    batch: Annotated[int, typer.Option(min=1, help="Crops in a step.")] = 1,
    hidden: Annotated[
        list[float] | None, typer.Option(help="Share of cells to hide; may be repeated.  [0.6, 0.75]")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the figures are medians of the ratios in a round.")] = 7,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the computation.")] = 1,
    seed: Annotated[int, typer.Option(help="Another seed hides other cells.")] = 0,
    preset: Annotated[str, typer.Option(help="transfer: cpu, sized for two cores.")] = "cpu",
    minutes: Annotated[float, typer.Option(min=0.1, help="transfer: about how long it may take.")] = 50.0,
    seeds: Annotated[int, typer.Option(min=1, help="transfer: trainings of every arm and number of labels.")] = 3,
    folder: Annotated[
        Path, typer.Option(help="transfer: heads, run, trainings and report; a stopped benchmark goes on there.")
    ] = Path("bench-transfer"),
    output: Annotated[Path | None, typer.Option(metavar="JSON", help="Also write the result into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure a published figure here, as ratios between forms that take turns in one process."""
    from wavespark.bench import StepBench, in_clean_process

    if output is not None and not output.absolute().parent.is_dir():
        raise SettingsError(f"--output {output}: there is no folder {output.absolute().parent}. Make it first")
    if what is What.TRANSFER:
        _transfer(preset, minutes, seeds, seed, folder, output, as_json)
        return
    shares = {"hidden": tuple(hidden)} if hidden else {}
    bench = StepBench(model=model, size=size, batch=batch, rounds=rounds, threads=threads, seed=seed, **shares)
    document = in_clean_process(bench)
    if output is not None:
        import json

        output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if as_json:
        emit_json(document)
    else:
        _say_step(document)


def _say_step(document: dict[str, Any]) -> None:
    say(document["what"])
    environment = document["environment"]
    say(f"torch {environment['torch']}, {environment['threads']} thread(s), {environment['processor']}")
    say()
    say(f"{'form':<20} {'user CPU s':>10} {'wall s':>8} {'page faults':>12}   medians of {document['rounds']} rounds")
    for form, cost in document["forms"].items():
        say(f"{form:<20} {cost['user_seconds']:>10.3f} {cost['wall_seconds']:>8.3f} {cost['minor_faults']:>12.0f}")
    say()
    say(
        f"{'form':<20} {'visible':>7} {'user ratio':>10} {'/ share':>8} {'wall ratio':>10} {'/ share':>8}   against the faster of both"
    )
    for r in document["results"]:
        verdict = "met" if r["met"] else "MISSED"
        say(
            f"{r['form']:<20} {r['visible_share']:>7.3f} {r['user_ratio']:>10.3f} {r['user_ratio_over_share']:>8.3f} {r['wall_ratio']:>10.3f} "
            f"{r['wall_ratio_over_share']:>8.3f}   {r['faster_dense_form']}: {verdict}"
        )
    say()
    say(
        f"target: user ratio <= {document['target']} x visible share. Dense copy and encoder differ by {document['dense_copy_differs_by']:.1e}."
    )
    say(f"again: {document['command']}")


def _transfer(
    preset: str, minutes: float, seeds: int, seed: int, folder: Path, output: Path | None, as_json: bool
) -> None:
    import json

    from wavespark.bench.transfer import TransferBench, measure_transfer

    if preset != "cpu":
        raise SettingsError(f"there is no preset {printable(preset)!r}: use cpu")
    with progress("bench transfer") as tell:
        document = measure_transfer(TransferBench(minutes=minutes, seeds=seeds, seed=seed), folder, tell)
    if output is not None:
        output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if as_json:
        emit_json(document)
        return
    before, after = document["pretraining"]["normalised_loss"]
    say(document["what"])
    say(f"pre-training: {document['pretraining']['steps']} steps, normalised loss {before:.3f} to {after:.3f}")
    say(
        f"{'task':<10} {'mode':<11} {'labels':>6} {'figure':<12} {'pre-trained':>11} {'random':>8}   gain with 95 % interval"
    )
    for r in document["results"]:
        figures = [f"{v:.3f}" if v is not None else "-" for v in (r["pretrained"], r["scratch"])]
        gain = r["gain"]
        spread = "-" if gain["low"] is None else f"{gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
        say(
            f"{r['task']:<10} {r['mode']:<11} {r['labels']:>6} {r['figure']:<12} {figures[0]:>11} {figures[1]:>8}   {spread}"
        )
    say(f"{document['target']}: {'met' if document['met'] else 'MISSED'} ({document['minutes']} minutes)")
    say(f"report: {printable(folder)}/transfer.html   again: {document['command']}")
