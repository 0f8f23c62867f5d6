"""RUN/report.html: one file, no network, no script but the 3-D viewer's.

The first screen answers whether the run learned; the rest shows why.
"""

import os
import tempfile
from importlib.resources import files
from pathlib import Path

from wavespark import __version__
from wavespark.errors import WavesparkError
from wavespark.report import sections
from wavespark.report.markup import Html, join, tag
from wavespark.report.opening import opening
from wavespark.report.record import RunRecord, read_run
from wavespark.report.tables import data_tables, refusals
from wavespark.report.viewer import script_sources

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Content security policy: whatever a run's files say, the page loads nothing and runs nothing but the viewer, where there is one."""


def write_report(run: Path) -> Path:
    """Writes RUN/report.html from the files of a run, finished or not, and returns its path.

    Raises:
        InputError: if `run` is not the folder of a run.
        WavesparkError: if the page cannot be written.
    """
    run = Path(run)
    page = render(read_run(run))
    target = run / "report.html"
    try:
        _publish(target, page.encode("utf-8"))
    except OSError as error:
        way_out = "Make room or change the permissions, and run `wavespark report` again"
        raise WavesparkError(f"{target}: cannot be written ({error.strerror}). {way_out}") from None
    return target


def _publish(target: Path, content: bytes) -> None:
    """Writes beside the target and renames: a reader sees the old page or the new one, never half of one."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".report-", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _policy(record: RunRecord) -> str:
    if record.examples is None:
        return _POLICY
    # NiiVue fetches its own font from a data address.
    return f"{_POLICY}; script-src {script_sources()}; connect-src data: blob:"


def render(record: RunRecord) -> Html:
    """The page of a run."""
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
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(record)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{record.name}: wavespark pre-training report"),
        tag("style", Html(files("wavespark.report").joinpath("page.css").read_text(encoding="utf-8"))),
    )
    body = tag(
        "body",
        opening(record, tag("nav", *links, aria_label="Parts of this report")),
        tag("main", *parts),
        tag("footer", tag("p", f"Written by wavespark {__version__} from the files of this run.")),
    )
    return join(Html("<!doctype html>\n"), tag("html", head, body, lang="en"), "\n")
