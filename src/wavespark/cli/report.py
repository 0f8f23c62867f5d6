"""`wavespark report RUN`: RUN/report.html."""

from pathlib import Path
from typing import Annotated

import typer

from wavespark.cli.checks import require_folder
from wavespark.cli.console import emit_json, progress, say
from wavespark.text import printable

NO_ARGS_IS_HELP = True


def command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Folder that `wavespark pretrain --output` wrote; the run may still be in progress."
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON document: path and main figures.")
    ] = False,
) -> None:
    """Write RUN/report.html, which says whether the run learned.

    It shows the verdict, reconstructions, loss curves, refused inputs and settings, in one file
    that works offline.
    """
    require_folder(run, "folder", "`wavespark pretrain --output`")
    with progress("report", "reading the run"):
        from wavespark.report import headline, read_run, write_report

        path = write_report(run)
        summary = headline(read_run(run))
    if as_json:
        emit_json({"report": str(path), **summary})
        return
    say(f"{summary['verdict']}")
    for sentence in (*summary["warnings"], *summary["missing"]):
        say(printable(sentence))
    say(f"report: {printable(path)}")
