"""`wavespark probe ENCODER --store STORE --labels L.csv`: probe frozen features, beside random
weights and intensities."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from wavespark.cli.checks import require_encoder
from wavespark.cli.console import emit_json, note, progress, say
from wavespark.errors import SettingsError
from wavespark.text import printable

NO_ARGS_IS_HELP = True


class TaskChoice(StrEnum):
    """How a column is read."""

    AUTO = "auto"
    CLASSIFICATION = "classification"
    REGRESSION = "regression"


def command(
    encoder: Annotated[
        Path, typer.Argument(metavar="ENCODER", help="Folder or file that `export` wrote, or the folder of a run.")
    ],
    labels: Annotated[
        Path,
        typer.Option(
            help="CSV with a column `source` (path of the scan below the prepared folder, or SeriesInstanceUID) or `id` (of "
            "the store), and a column to predict."
        ),
    ],
    store: Annotated[Path, typer.Option(help="Store that `wavespark prepare` wrote.")] = Path("store"),
    column: Annotated[
        list[str] | None, typer.Option(help="Column to predict; may be repeated.  [default: the only candidate]")
    ] = None,
    task: Annotated[
        TaskChoice,
        typer.Option(
            help="How to treat the column. auto: regression if it holds numbers with more than 10 different values, or with "
            "more different values than half its rows; else classification."
        ),
    ] = TaskChoice.AUTO,
    level: Annotated[
        list[int] | None,
        typer.Option(
            help="Feature level to use: 0 is the finest, -1 all levels concatenated; may be repeated.  [default: each level, and -1]"
        ),
    ] = None,
    pool: Annotated[
        list[str] | None,
        typer.Option(
            help="How features are pooled over the head: mean, deviation (standard deviation), quantiles, max, regions (means of "
            "the head's eight octants), volume (of the head); may be repeated.  [default: mean and deviation]"
        ),
    ] = None,
    tile: Annotated[
        int,
        typer.Option(min=8, help="Edge of the block that is encoded at once, in voxels; smaller needs less memory."),
    ] = 128,
    folds: Annotated[int, typer.Option(min=2, help="Number of cross-validation folds, split by patient.")] = 6,
    repeats: Annotated[
        int | None,
        typer.Option(min=1, help="Repeats of the cross-validation.  [default: 20; fewer with more than 50 volumes]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of folds, random weights and intervals.")] = 0,
    no_control: Annotated[bool, typer.Option("--no-control", help="Omit the network with random weights.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")] = False,
) -> None:
    """Test what the frozen features of an encoder predict.

    Fits nearest neighbours and a linear model, without training the encoder; cross-validated by
    patient, with 95 % intervals. A column of words is classified (balanced accuracy, AUC). A column
    of numbers is predicted by ridge regression (mean absolute error, R2).

    Controls: the same network with random weights; the intensity histogram with the head's volume;
    the volume alone; a constant.

    Example: `wavespark probe encoder --store store --labels labels.csv --column sex`.
    """
    from wavespark.downstream import read_labels
    from wavespark.prepare import open_store

    require_encoder(encoder)
    opened = open_store(store)
    table = read_labels(labels, opened)
    columns = column or [c for c in table.columns if c not in ("split", "x", "y", "z", "diameter", "label")]
    if not column and len(columns) != 1:
        raise SettingsError(
            f"say which column to predict with --column: {printable(table.name)} has {', '.join(map(printable, table.columns))}"
        )
    table.require(*columns)
    with progress("probe", "loading PyTorch"):
        import torch

        from wavespark.downstream import ProbePlan, probe_column
        from wavespark.downstream.features import DEFAULT_POOLS
        from wavespark.engine import load_encoder

        plan = ProbePlan(
            task=task.value,
            levels=tuple(level) if level else None,
            pools=tuple(pool or DEFAULT_POOLS),
            tile=tile,
            folds=folds,
            repeats=repeats,
            seed=seed,
            control=not no_control,
        )
        network = load_encoder(encoder)
        network.to("cuda" if torch.cuda.is_available() else "cpu")
    remarks(table, network, opened)
    reports = []
    for name in columns:
        with progress(f"probe {printable(name)}") as on_progress:
            reports.append(probe_column(network, opened, table, name, plan=plan, on_progress=on_progress))
    if json:
        emit_json({"encoder": str(encoder), "store": str(store), "probes": [r.to_json() for r in reports]})
        return
    for report in reports:
        for line in probe_lines(report):
            say(line)


def remarks(table: Any, encoder: Any, store: Any) -> None:
    """Print on standard error what a person should know of the labels and the preparation."""
    if table is not None and table.remark:
        note(printable(table.remark))
    fingerprint = encoder.preparation.get("fingerprint")
    if fingerprint and fingerprint != store.recipe.fingerprint:
        note(
            "the encoder was pre-trained on another preparation than this store's: values and voxel sizes may not be what it expects"
        )


_FIGURES = {"balanced_accuracy": "balanced accuracy", "auc": "AUC", "mae": "mean absolute error", "r2": "R2"}
_ARMS = {
    "scratch": "random weights",
    "intensities": "histogram + volume",
    "volume": "volume alone",
    "constant": "no features",
}


def probe_lines(report: Any) -> list[str]:
    """Lines of the table that people read."""
    question = report.question
    if question.numeric:
        spread = f"mean {question.targets.mean():.2f}, standard deviation {question.targets.std():.2f}"
    else:
        spread = ", ".join(f"{printable(c)} {n}" for c, n in report.counts.items())
        spread += f"); chance {1 / len(question.classes):.2f}"
    head = f"{printable(report.column)}: {len(question.volumes)} volumes of {report.patients} patients ({spread}"
    lines = [head + (")" if question.numeric else "")]
    if report.left_out:
        lines.append(f"  {report.left_out} volume(s) left out: the encoder has no stem for them")
    names = list(report.rows[0].figures)
    titles = "".join(f" {_FIGURES[name]:<24}" for name in names)
    lines.append(f"  {'features':<19} {'level':<12} {'probe':<9}{titles}")
    for r in report.rows:
        where = "-" if r.level is None else "all levels" if r.level < 0 else f"{r.level} (stride {r.stride})"
        cells = "".join(f" {r.figures[name]!s:<24}" for name in names)
        lines.append(f"  {_ARMS.get(r.encoder, r.encoder):<19} {where:<12} {r.probe:<9}{cells}".rstrip())
    lines += ["", f"  Pre-trained is better by, in {_FIGURES[names[0]]} (same patients, 95 % interval):"]
    for r in report.rows:
        if r.gains:
            where = "all levels" if r.level < 0 else f"level {r.level}"
            over = "; ".join(f"{_ARMS[arm]} {each[names[0]]}" for arm, each in r.gains.items())
            lines.append(f"  {where}, {r.probe}: {over}")
    return lines
