"""`wavespark finetune segment|classify|regress|detect ENCODER`: fine-tuning on few labels, beside a
scratch control and a plain U-Net."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from wavespark.cli.checks import require_encoder, require_file, require_settings
from wavespark.cli.console import emit_json, note, progress, say
from wavespark.cli.figures import explanations, figure_lines, width
from wavespark.cli.probe import remarks
from wavespark.cli.signals import stop_requests
from wavespark.errors import SettingsError
from wavespark.text import printable

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help="Fine-tune a pre-trained encoder on a few labels. "
    "For comparison it also trains the same network from random weights (scratch) and a plain U-Net, on the same crops and "
    "for as many steps. All three are tested on patients whose labels are not used for training.",
)

_SCAN = "CSV with `source` (path of the scan below the prepared folder, or SeriesInstanceUID) or `id` (of the store)"
_SPLIT = "Optional column `split`: train or test."

EncoderPath = Annotated[
    Path, typer.Argument(metavar="ENCODER", help="Folder or file that `export` wrote, or the folder of a run.")
]
SettingWords = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE ...]", help="Settings to change, e.g. run.steps=500 data.crop=[96,96,96]."),
]
StorePath = Annotated[Path, typer.Option(help="Store that `wavespark prepare` wrote.")]
OutputPath = Annotated[
    Path, typer.Option(help="Folder for model, figures and report. Run the same command again to resume.")
]
Frozen = Annotated[
    bool,
    typer.Option("--frozen", help="Keep the encoder fixed and train only the head (the layers added for the task)."),
]
LabelsPerRun = Annotated[
    str,
    typer.Option(
        help="Numbers of labelled volumes to train on, e.g. 1,2,4,8,all; every network is trained for each. The report plots the curve."
    ),
]
Seeds = Annotated[int, typer.Option(min=1, help="Number of random seeds, i.e. repeats of every training.")]
NoControl = Annotated[
    bool, typer.Option("--no-control", help="Omit the same network trained from random weights (scratch).")
]
NoPlain = Annotated[bool, typer.Option("--no-plain", help="Omit the plain U-Net.")]
Tune = Annotated[
    bool,
    typer.Option(
        "--tune",
        help="Choose each learning rate by cross-validation on the training volumes; takes four to seven times as many trainings.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]

_STORE, _OUTPUT = Path("store"), Path("finetuned")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    """Options that all tasks share."""

    kind: str
    encoder: Path
    words: Sequence[str]
    labels: Path | None
    store: Path
    output: Path
    frozen: bool
    labels_per_run: str
    seeds: int
    control: bool
    plain: bool
    tune: bool
    json: bool
    columns: Sequence[str] = ()
    """Columns that the labels must have."""


@app.command("segment", no_args_is_help=True)
def segment(
    encoder: EncoderPath,
    settings: SettingWords = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help=f"{_SCAN}, and `label`: path of a segmentation. {_SPLIT}  "
            "[default: label maps in the store, e.g. from RSNA 2025]"
        ),
    ] = None,
    store: StorePath = _STORE,
    output: OutputPath = _OUTPUT,
    column: Annotated[
        str | None, typer.Option(help="Column with the paths of the segmentations.  [default: label]")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help='Names of the classes, e.g. "1=CSF,2=grey matter".  [default: column `classes`]')
    ] = None,
    frozen: Frozen = False,
    labels_per_run: LabelsPerRun = "all",
    seeds: Seeds = 1,
    no_control: NoControl = False,
    no_plain: NoPlain = False,
    tune: Tune = False,
    json: AsJson = False,
) -> None:
    """Learn a class for every voxel (segmentation).

    Example: `wavespark finetune segment encoder --labels labels.csv run.steps=500`.
    """
    names = class_names(classes) if classes else None
    request = _Request(
        kind="segment",
        encoder=encoder,
        words=settings or (),
        labels=labels,
        store=store,
        output=output,
        frozen=frozen,
        labels_per_run=labels_per_run,
        seeds=seeds,
        control=not no_control,
        plain=not no_plain,
        tune=tune,
        json=json,
        columns=(column or "label",),
    )

    def volumes(table: Any, opened: Any, options: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
        from wavespark.downstream import Segment
        from wavespark.downstream.items import with_maps
        from wavespark.downstream.stored import store_maps

        items = with_maps(table, opened, column or "label") if table else store_maps(opened, column)
        called = names or names_in(table)
        return items, lambda train: Segment.of(items, options, called)

    _compare(request, volumes)


@app.command("classify", no_args_is_help=True)
def classify(
    encoder: EncoderPath,
    settings: SettingWords = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help=f"{_SCAN}, and columns of 0 and 1, or one column of words. {_SPLIT}  "
            "[default: labels in the store, e.g. from RSNA 2025]"
        ),
    ] = None,
    store: StorePath = _STORE,
    output: OutputPath = _OUTPUT,
    column: Annotated[
        list[str] | None, typer.Option(help="Column to learn; may be repeated.  [default: all columns]")
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(help="CSV of points (`source` or `id`, and x, y, z in RAS mm) as additional training targets."),
    ] = None,
    vessels: Annotated[
        Path | None,
        typer.Option(help="CSV of segmentations (`source` or `id`, and `label`) as additional training targets."),
    ] = None,
    frozen: Frozen = False,
    labels_per_run: LabelsPerRun = "all",
    seeds: Seeds = 1,
    no_control: NoControl = False,
    no_plain: NoPlain = False,
    tune: Tune = False,
    json: AsJson = False,
) -> None:
    """Learn labels of a whole volume (classification).

    Columns of 0 and 1 are independent labels (multi-label). One column of words holds classes that
    exclude each other (multi-class).

    Example: `wavespark finetune classify encoder --labels labels.csv --column diagnosis`.
    """
    request = _Request(
        kind="classify",
        encoder=encoder,
        words=settings or (),
        labels=labels,
        store=store,
        output=output,
        frozen=frozen,
        labels_per_run=labels_per_run,
        seeds=seeds,
        control=not no_control,
        plain=not no_plain,
        tune=tune,
        json=json,
        columns=column or (),
    )

    def volumes(table: Any, opened: Any, options: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
        from wavespark.downstream import read_labels
        from wavespark.downstream.classify import joined, of_items, with_targets
        from wavespark.downstream.items import with_maps, with_points
        from wavespark.downstream.stored import store_maps, store_points, store_targets, target_names
        from wavespark.rsna_labels import LABELS

        known = table.columns if table else target_names(opened)
        columns = list(column or ())
        if not columns:
            columns = list(LABELS) if set(LABELS) <= set(known) else [c for c in known if c != "split"]
        items, names, exclusive = with_targets(table, opened, columns) if table else store_targets(opened, columns)
        marked, mapped = [], []
        if points or any(v.marks for v in opened):
            marked = with_points(read_labels(points, opened), opened) if points else store_points(opened)
        if vessels:
            mapped = with_maps(read_labels(vessels, opened), opened, "label")
        elif any(v.labels() for v in opened):
            mapped = store_maps(opened, whichever=True)
        items = joined(items, marked, mapped)
        return items, lambda train: of_items(train, names, exclusive, options)

    _compare(request, volumes)


@app.command("regress", no_args_is_help=True)
def regress(
    encoder: EncoderPath,
    labels: Annotated[Path, typer.Option(help=f"{_SCAN}, and a column of numbers. {_SPLIT}")],
    column: Annotated[str, typer.Option(help="Column with the number to learn, e.g. age.")],
    settings: SettingWords = None,
    store: StorePath = _STORE,
    output: OutputPath = _OUTPUT,
    frozen: Frozen = False,
    labels_per_run: LabelsPerRun = "all",
    seeds: Seeds = 1,
    no_control: NoControl = False,
    no_plain: NoPlain = False,
    tune: Tune = False,
    json: AsJson = False,
) -> None:
    """Learn a number for a whole volume, such as an age.

    Reports mean absolute error and R2, and for comparison the error of always predicting the mean.

    Example: `wavespark finetune regress encoder --labels labels.csv --column age`.
    """
    request = _Request(
        kind="regress",
        encoder=encoder,
        words=settings or (),
        labels=labels,
        store=store,
        output=output,
        frozen=frozen,
        labels_per_run=labels_per_run,
        seeds=seeds,
        control=not no_control,
        plain=not no_plain,
        tune=tune,
        json=json,
        columns=(column,),
    )

    def volumes(table: Any, opened: Any, options: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
        from wavespark.downstream.regress import regression_of, with_values

        return with_values(table, opened, column), lambda train: regression_of(train, column, options)

    _compare(request, volumes)


@app.command("detect", no_args_is_help=True)
def detect(
    encoder: EncoderPath,
    settings: SettingWords = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help=f"{_SCAN}, and x, y, z (RAS mm): one row per point; for a scan without points, one row with x, y, z empty. {_SPLIT}  "
            "[default: points in the store, e.g. from RSNA 2025]"
        ),
    ] = None,
    store: StorePath = _STORE,
    output: OutputPath = _OUTPUT,
    frozen: Frozen = False,
    labels_per_run: LabelsPerRun = "all",
    seeds: Seeds = 1,
    no_control: NoControl = False,
    no_plain: NoPlain = False,
    tune: Tune = False,
    json: AsJson = False,
) -> None:
    """Learn to find points, such as aneurysms (detection).

    Reports the sensitivity at 0.5 false positives per scan.

    Example: `wavespark finetune detect encoder --labels points.csv`.
    """
    request = _Request(
        kind="detect",
        encoder=encoder,
        words=settings or (),
        labels=labels,
        store=store,
        output=output,
        frozen=frozen,
        labels_per_run=labels_per_run,
        seeds=seeds,
        control=not no_control,
        plain=not no_plain,
        tune=tune,
        json=json,
        columns=("x", "y", "z"),
    )

    def volumes(table: Any, opened: Any, options: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
        from wavespark.downstream import Detect
        from wavespark.downstream.items import with_points
        from wavespark.downstream.stored import store_points

        items = with_points(table, opened) if table else store_points(opened)
        return items, lambda train: Detect(settings=options)

    _compare(request, volumes)


Volumes = Callable[[Any, Any, Any], tuple[list[Any], Callable[[list[Any]], Any]]]
"""(table or None, store, settings) -> labelled volumes, and a function from training volumes to the
task."""


def _labels(request: _Request, opened: Any) -> Any:
    """Read the labels and check their columns, before torch is imported; None without labels."""
    from wavespark.downstream import read_labels

    if request.labels is None:
        return None
    table = read_labels(request.labels, opened)
    table.require(*request.columns)
    return table


def _compare(request: _Request, volumes: Volumes) -> None:
    """Run the comparison of one task and show its results."""
    from wavespark.config.downstream import finetune_settings
    from wavespark.prepare import open_store

    require_settings(request.words, "run.steps=500")
    finetune_settings(request.words)
    require_encoder(request.encoder)
    if request.labels:
        require_file(request.labels, "--labels")
    opened = open_store(request.store)
    table = _labels(request, opened)
    with stop_requests() as stop:
        with progress(f"finetune {request.kind}", "loading PyTorch"):
            from wavespark.downstream import Plan, run_study
            from wavespark.downstream.arms import default_settings
            from wavespark.downstream.items import split_labelled
            from wavespark.downstream.page import study_page
            from wavespark.downstream.study import labels_per_run
            from wavespark.downstream.verdict import verdict
            from wavespark.engine import load_encoder
            from wavespark.engine.machine.device import set_threads
            from wavespark.files import write_file

            network = load_encoder(request.encoder)
            options = finetune_settings(request.words, **default_settings(network, request.frozen))
            set_threads(options.run.threads)
            items, task_of = volumes(table, opened, options)
            train, test = split_labelled(items, table, options.data.held_out_fraction, options.run.seed)
            task = task_of(train)
        remarks(table, network, opened)
        plan = Plan(
            labels=labels_per_run(request.labels_per_run, len(train)),
            seeds=request.seeds,
            control=request.control,
            plain=request.plain,
            tune=request.tune,
        )
        note(
            f"{len(train)} labelled volume(s) to train on, {len(test)} of other patients to test on; "
            f"{plan.trainings(len(train))} training(s)"
        )
        with progress(f"finetune {request.kind}") as on_progress:
            results = run_study(
                task, network, train, test, plan, request.output, on_progress=on_progress, log=note, should_stop=stop
            )
        write_file(request.output / "report.html", study_page(results, request.output).encode())
    if request.json:
        emit_json(results | {"run": str(request.output)})
        return
    say_results(results)
    say(verdict(results))
    where = printable(request.output)
    say(f"The model is in {where}/model, the report in {where}/report.html.")
    say(f"Apply it: wavespark predict {where} FOLDER --output predictions")


def class_names(text: str, origin: str = "--classes") -> dict[int, str]:
    """Read the names of classes.

    >>> class_names("1=CSF, 2=grey matter")
    {1: 'CSF', 2: 'grey matter'}

    Args:
        text: NUMBER=NAME, separated by commas.
        origin: option or column that holds the text, for messages.

    Raises:
        SettingsError: if a part is not NUMBER=NAME, or a number or name stands twice.
    """
    names: dict[int, str] = {}
    for part in text.split(","):
        number, equals, name = (word.strip() for word in part.partition("="))
        if not equals or not number.isdecimal() or not 0 < int(number) < 65536 or not name:
            raise SettingsError(
                f'{origin} {printable(part.strip())!r} is not NUMBER=NAME: write for example "1=CSF,2=grey matter"'
            )
        if int(number) in names or name in names.values():
            raise SettingsError(f"{origin} names {printable(part.strip())!r} twice")
        names[int(number)] = name
    return names


def names_in(table: Any) -> dict[int, str] | None:
    """Names of classes from the column `classes` of the labels, which holds the same text in every
    row that has one.

    Raises:
        SettingsError: if two rows disagree.
    """
    if table is None or "classes" not in table.columns:
        return None
    texts = list(dict.fromkeys(row.values["classes"] for row in table.rows if row.values["classes"]))
    if len(texts) > 1:
        raise SettingsError(f"{printable(table.name)}: column 'classes' holds {len(texts)} different texts; write one")
    if not texts:
        return None
    return class_names(texts[0].replace(";", ","), f"{printable(table.name)}: column 'classes':")


def say_results(results: Mapping[str, Any]) -> None:
    """Print the table of a comparison."""
    names = list(dict.fromkeys(n for row in results["table"] for n in row["figures"]))
    called = results.get("figure_names", {})
    # First the main figure and the classes that have names.
    names = sorted(names, key=lambda name: (name != results["main"], name not in called))
    say(
        f"{results['test_volumes']} test volume(s) of {results['test_patients']} patient(s); {results['steps']} steps each;"
    )
    say("95 % intervals over patients")
    rows = [
        *results["table"],
        *({"arm": "minus scratch", **g} for g in results["gains"]),
        *({"arm": "minus plain", **g} for g in results.get("plain_gains", ())),
    ]
    lines = figure_lines(rows, names, called, width())
    for line in [*lines, *explanations(lines)]:
        say(line)
