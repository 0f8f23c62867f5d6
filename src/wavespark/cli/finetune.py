"""`wavespark finetune segment|classify|detect ENCODER`: on few labels, beside a scratch control."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from wavespark.cli.console import emit_json, note, progress, say
from wavespark.cli.probe import remarks
from wavespark.cli.signals import stop_requests
from wavespark.errors import SettingsError
from wavespark.text import printable

NO_ARGS_IS_HELP = True


class What(StrEnum):
    """The tasks that are built."""

    SEGMENT = "segment"
    CLASSIFY = "classify"
    DETECT = "detect"


def command(
    what: Annotated[
        What,
        typer.Argument(help="segment: a class for every voxel. classify: labels of a volume. detect: points."),
    ],
    encoder: Annotated[Path, typer.Argument(metavar="ENCODER", help="An export, or a run's folder.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE ...]", help="Changes, e.g. run.steps=500 data.crop=[96,96,96]."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV with `source` (relative path or SeriesInstanceUID) or `id`; and `label` (a segmentation's path), the columns to learn, or x, y, z "
            "(RAS mm). A column `split` says train or test.  [what the store itself knows, e.g. of RSNA 2025]"
        ),
    ] = None,
    store: Annotated[Path, typer.Option(help="A prepared store.")] = Path("store"),
    output: Annotated[
        Path, typer.Option(help="Folder for model, figures and report; a stopped comparison goes on there.")
    ] = Path("finetuned"),
    column: Annotated[
        list[str] | None,
        typer.Option(help="segment: the column with the segmentations. classify: a column to learn, may be repeated."),
    ] = None,
    points: Annotated[
        Path | None, typer.Option(help="classify: a CSV of points (x, y, z in RAS mm) that helps to learn.")
    ] = None,
    vessels: Annotated[
        Path | None, typer.Option(help="classify: a CSV of segmentations (`label`) that helps to learn.")
    ] = None,
    frozen: Annotated[
        bool, typer.Option("--frozen", help="Train the head only; of segmentation, a linear one.")
    ] = False,
    labels_per_run: Annotated[
        str, typer.Option(help="Numbers of labelled volumes, e.g. 1,2,4,8,all: draws the curve.")
    ] = "all",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of every arm and number of labels.")] = 1,
    no_control: Annotated[bool, typer.Option("--no-control", help="Leave the scratch control out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Fine-tune a pre-trained encoder, and the same network from scratch with the same steps, windows and head; test both on other patients."""
    with stop_requests() as should_stop:
        from wavespark.config.downstream import finetune_settings
        from wavespark.downstream import Plan, read_labels, run_study
        from wavespark.downstream.items import split_labelled
        from wavespark.downstream.page import study_page, verdict
        from wavespark.downstream.study import labels_per_run as numbers
        from wavespark.engine import load_encoder
        from wavespark.files import write_file
        from wavespark.prepare import open_store

        defaults: dict[str, Any] = {"frozen": True, "decoder": "linear"} if frozen else {}
        chosen = finetune_settings(settings or [], **defaults)
        network, opened = load_encoder(encoder), open_store(store)
        table = read_labels(labels, opened) if labels else None
        remarks(table, network, opened)
        items, task_of = _task(what, table, opened, chosen, column or [], points, vessels)
        train, test = split_labelled(items, table, chosen.data.held_out_fraction, chosen.run.seed)
        task = task_of(train)
        plan = Plan(labels=numbers(labels_per_run, len(train)), seeds=seeds, control=not no_control)
        trainings = len(plan.counts(len(train))) * seeds * len(plan.arms)
        note(
            f"{len(train)} labelled volume(s) to train on, {len(test)} of other patients to test on; {trainings} training(s)"
        )
        with progress(f"finetune {what.value}") as on_progress:
            results = run_study(
                task, network, train, test, plan, output, on_progress=on_progress, should_stop=should_stop
            )
        write_file(output / "report.html", study_page(results).encode())
    if json:
        emit_json(results | {"run": str(output)})
        return
    say_results(results)
    say(verdict(results))
    say(f"The model is in {printable(output)}/model, the report in {printable(output)}/report.html.")
    say(f"Apply it: wavespark predict {printable(output)} FOLDER --output predictions")


def _task(
    what: What, table: Any, store: Any, settings: Any, columns: list[str], points: Path | None, vessels: Path | None
) -> tuple[list[Any], Any]:
    """Labelled volumes, and (training volumes) -> task. Without a table, from what the store knows."""
    from wavespark.downstream import Detect, Segment, read_labels
    from wavespark.downstream.classify import joined, of_items, with_targets
    from wavespark.downstream.items import with_maps, with_points
    from wavespark.downstream.stored import store_maps, store_points, store_targets, target_names
    from wavespark.rsna_labels import LABELS

    if what is not What.CLASSIFY and (points or vessels):
        raise SettingsError("--points and --vessels help `finetune classify` only")
    if what is What.SEGMENT:
        if len(columns) > 1:
            raise SettingsError(f"finetune segment takes one --column, got {len(columns)}")
        name = columns[0] if columns else None
        items = with_maps(table, store, name or "label") if table else store_maps(store, name)
        return items, lambda train: Segment.of(items, settings)
    if what is What.DETECT:
        items = with_points(table, store) if table else store_points(store)
        return items, lambda train: Detect(settings=settings)
    known = table.columns if table else target_names(store)
    if not columns:
        columns = list(LABELS) if set(LABELS) <= set(known) else [c for c in known if c != "split"]
    items, names, exclusive = with_targets(table, store, columns) if table else store_targets(store, columns)
    marked, mapped = [], []
    if points or any(v.marks for v in store):
        marked = with_points(read_labels(points, store), store) if points else store_points(store)
    if vessels or any(v.labels() for v in store):
        mapped = (
            with_maps(read_labels(vessels, store), store, "label") if vessels else store_maps(store, whichever=True)
        )
    items = joined(items, marked, mapped)
    return items, lambda train: of_items(train, names, exclusive, settings)


def say_results(results: dict[str, Any]) -> None:
    """The table of a comparison."""
    names = list(dict.fromkeys(n for row in results["table"] for n in row["figures"]))
    names = [results["main"], *(n for n in names if n != results["main"])][:5]
    say(
        f"{results['test_volumes']} test volume(s) of {results['test_patients']} patient(s); {results['steps']} steps each; 95 % intervals over patients"
    )
    say(f"  {'arm':<12} {'labels':>6}  " + "  ".join(f"{n:<24}" for n in names))
    rows = [*results["table"], *({"arm": "difference", **g} for g in results["gains"])]
    for row in rows:
        say(
            f"  {row['arm']:<12} {row['labels']:>6}  "
            + "  ".join(f"{figure(row['figures'].get(n)):<24}" for n in names)
        )


def figure(found: dict[str, Any] | None) -> str:
    """`0.812 [0.790, 0.830]`."""
    if found is None or found["value"] is None:
        return "-"
    if found["low"] is None:
        return f"{found['value']:.3f} (no interval)"
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
