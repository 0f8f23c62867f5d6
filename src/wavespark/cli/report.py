"""`wavespark report RUN`: RUN/report.html."""

from pathlib import Path
from typing import Annotated

import typer

from wavespark.cli.console import emit_json, printable, say

NO_ARGS_IS_HELP = True


def command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="The folder that `wavespark pretrain --output` wrote; the run may still be going."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the path and the headline numbers as JSON.")] = False,
) -> None:
    """Write RUN/report.html: did it learn, reconstructions, curves, refusals, settings. One file, works offline."""
    from wavespark.report import headline, read_run, write_report

    path = write_report(run)
    told = headline(read_run(run))
    if as_json:
        emit_json({"report": str(path), **told})
        return
    say(f"{told['verdict']}")
    for sentence in (*told["warnings"], *told["missing"]):
        say(printable(sentence))
    say(f"report: {printable(path)}")
