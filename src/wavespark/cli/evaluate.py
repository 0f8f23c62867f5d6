"""`wavespark evaluate PREDICTIONS --store STORE --labels L.csv`: figures with confidence
intervals."""

from pathlib import Path
from typing import Annotated

import typer

from wavespark.cli.console import emit_json, note, progress, say
from wavespark.cli.figures import explanations, figure_lines, width
from wavespark.errors import SettingsError
from wavespark.text import printable

NO_ARGS_IS_HELP = True


def command(
    predictions: Annotated[Path, typer.Argument(metavar="PREDICTIONS", help="Folder that `wavespark predict` wrote.")],
    labels: Annotated[
        Path, typer.Option(help="CSV in the format of `wavespark finetune` (see wavespark finetune segment --help).")
    ],
    store: Annotated[
        Path | None, typer.Option(help="Store of the predicted volumes.  [default: PREDICTIONS/store]")
    ] = None,
    column: Annotated[
        str, typer.Option(help="Segmentation only: column with the paths of the segmentations.")
    ] = "label",
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")] = False,
) -> None:
    """Score predictions against labels, with 95 % intervals.

    Segmentation: Dice, HD95 (95th percentile of the surface distance) and surface Dice at 1 mm.
    Classification: AUC, and the weighted AUC of RSNA 2025. Detection: sensitivity at 0.5 false
    positives per scan. The intervals are over patients.

    Example: `wavespark evaluate predictions --labels labels.csv`.
    """
    from wavespark.downstream import read_labels
    from wavespark.prepare import open_store

    require_predictions(predictions, store)
    opened = open_store(store or predictions / "store")
    table = read_labels(labels, opened)
    if table.remark:
        note(printable(table.remark))
    with progress("evaluate", "loading") as on_progress:
        from wavespark.downstream.evaluation import evaluate

        found = evaluate(predictions, opened, table, column, on_progress=on_progress)
    if json:
        emit_json(found)
        return
    say(f"{found['volumes']} volume(s) of {found['patients']} patient(s); 95 % intervals over patients")
    if found["not_predicted"]:
        say(f"{found['not_predicted']} labelled volume(s) were not predicted")
    rows = [{"arm": "model", "labels": "", "figures": found["figures"]}]
    lines = figure_lines(rows, list(found["figures"]), found["figure_names"], width())
    for line in [*lines, *explanations(lines)]:
        say(line)


def require_predictions(folder: Path, store: Path | None) -> None:
    """Refuse a folder without predictions, or whose store lies elsewhere, with the command that
    helps.

    Raises:
        SettingsError: naming what the folder is.
    """
    name = printable(folder)
    if not (folder / "predictions.json").is_file():
        if (folder / "model" / "config.json").is_file():
            raise SettingsError(
                f"{name} is a fine-tuning and holds no predictions: make them with "
                f"`wavespark predict {name} SOURCE --output predictions`, then `wavespark evaluate predictions ...`"
            )
        raise SettingsError(f"{name} holds no predictions: give the folder that `wavespark predict --output` wrote")
    if store is None and not (folder / "store").is_dir():
        raise SettingsError(f"{name} was predicted from a store that lies elsewhere: repeat its --store here")
