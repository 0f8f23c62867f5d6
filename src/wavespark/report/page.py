"""RUN/report.html: one file, no network, no script but the 3-D viewer's.

The first screen answers whether the run learned; the rest shows why.
"""

from pathlib import Path

from wavespark import __version__
from wavespark.pages.markup import Html, tag
from wavespark.pages.page import POLICY, page, write_page
from wavespark.report import sections
from wavespark.report.opening import opening
from wavespark.report.record import RunRecord, read_run
from wavespark.report.tables import data_tables, refusals
from wavespark.report.viewer import script_sources


def write_report(run: Path) -> Path:
    """Write RUN/report.html from the files of a run, finished or not, and return its path.

    Raises:
        InputError: if `run` is not the folder of a run.
        StoreError: if the page cannot be written.
    """
    run = Path(run)
    return write_page(run / "report.html", render(read_run(run)))


def _policy(record: RunRecord) -> str:
    if record.examples is None:
        return POLICY
    # NiiVue fetches its own font from a data address.
    return f"{POLICY}; script-src {script_sources()}; connect-src data: blob:"


def render(record: RunRecord) -> Html:
    """Build the page of a run."""
    contents = (
        ("reconstructions", "Reconstructions", sections.reconstructions(record)),
        ("curves", "Curves", sections.curves(record)),
        ("refusals", "What was refused", refusals(record.data)),
        ("data", "Data", data_tables(record.data)),
        ("settings", "Settings and environment", sections.settings(record)),
        ("numbers", "How the numbers are defined", sections.definitions()),
        ("limits", "What this does not show", sections.limits(record)),
    )
    links = [tag("a", title, href=f"#{key}") for key, title, _ in contents]
    parts = [
        tag("section", tag("h2", title, id=f"{key}-title"), content, id=key, aria_labelledby=f"{key}-title")
        for key, title, content in contents
    ]
    return page(
        f"{record.name}: wavespark pre-training report",
        opening(record, tag("nav", *links, aria_label="Parts of this report")),
        tag("main", *parts),
        tag("footer", tag("p", f"Written by wavespark {__version__} from the files of this run.")),
        policy=_policy(record),
    )
