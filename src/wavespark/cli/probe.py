"""`wavespark probe ENCODER --store STORE --labels L.csv`: what frozen features know, beside random ones."""

from pathlib import Path
from typing import Annotated, Any

import typer

from wavespark.cli.checks import require_encoder
from wavespark.cli.console import emit_json, note, progress, say
from wavespark.errors import SettingsError
from wavespark.text import printable

NO_ARGS_IS_HELP = True


def command(
    encoder: Annotated[Path, typer.Argument(metavar="ENCODER", help="An export, or a run's folder.")],
    labels: Annotated[
        Path,
        typer.Option(
            help="CSV with a column `source` (relative path or SeriesInstanceUID) or `id`, and a column to predict."
        ),
    ],
    store: Annotated[Path, typer.Option(help="A prepared store.")] = Path("store"),
    column: Annotated[
        list[str] | None, typer.Option(help="Column to predict; may be repeated.  [the only one there is]")
    ] = None,
    level: Annotated[
        list[int] | None, typer.Option(help="Level: 0 is the finest, -1 all side by side; may be repeated.  [all]")
    ] = None,
    tile: Annotated[int, typer.Option(min=8, help="Voxels along each edge of a piece that is encoded at once.")] = 64,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    no_control: Annotated[bool, typer.Option("--no-control", help="Leave the scratch control out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Probe frozen features with k nearest neighbours and a linear model: cross-validated by patient, with 95 % intervals and the scratch control."""
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

        from wavespark.downstream import probe_column
        from wavespark.engine import load_encoder

        network = load_encoder(encoder)
        network.to("cuda" if torch.cuda.is_available() else "cpu")
    remarks(table, network, opened)
    reports = []
    for name in columns:
        with progress(f"probe {printable(name)}") as on_progress:
            reports.append(
                probe_column(
                    network,
                    opened,
                    table,
                    name,
                    levels=level,
                    tile=tile,
                    seed=seed,
                    control=not no_control,
                    on_progress=on_progress,
                )
            )
    if json:
        emit_json({"encoder": str(encoder), "store": str(store), "probes": [r.to_json() for r in reports]})
        return
    for report in reports:
        _say(report)


def remarks(table: Any, encoder: Any, store: Any) -> None:
    """What a person should know of the labels and the preparation, on standard error."""
    if table is not None and table.remark:
        note(printable(table.remark))
    made = encoder.preparation.get("fingerprint")
    if made and made != store.recipe.fingerprint:
        note(
            "the encoder was pre-trained on another preparation than this store's: values and voxel sizes may not be what it expects"
        )


def _say(report: Any) -> None:
    spread = ", ".join(f"{printable(c)} {n}" for c, n in zip(report.classes, report.counts, strict=True))
    say(
        f"{printable(report.column)}: {sum(report.counts)} volumes of {report.patients} patients ({spread}); chance {1 / len(report.classes):.2f}"
    )
    if report.left_out:
        say(f"  {report.left_out} volume(s) left out: the encoder has no stem for them")
    say(f"  {'level':<12} {'probe':<7} {'encoder':<12} {'balanced accuracy':<24} {'AUC':<24} gain over scratch")
    for r in report.rows:
        where = "all levels" if r.level < 0 else f"{r.level} (stride {r.stride})"
        say(
            f"  {where:<12} {r.probe:<7} {r.encoder:<12} {r.accuracy!s:<24} {r.auc!s:<24} {'' if r.gain is None else r.gain}"
        )
