"""Complete HTML documents: one style sheet, nothing loaded from elsewhere, written to disk in one piece."""

import os
import tempfile
from importlib.resources import files
from pathlib import Path

from wavespark.errors import WavesparkError
from wavespark.pages.markup import Html, join, tag

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Content security policy: the page loads nothing and runs nothing, whatever text it shows."""


def page(title: str, *body: object, policy: str = POLICY) -> Html:
    """Build a self-contained document in the look of all wavespark pages.

    Args:
        title: of the browser's tab.
        body: what the page shows; escaped unless it is `Html`.
        policy: content security policy.

    Returns:
        The document; `write_page` puts it on disk.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Html(files("wavespark.pages").joinpath("page.css").read_text(encoding="utf-8"))),
    )
    return join(Html("<!doctype html>\n"), tag("html", head, tag("body", *body), lang="en"), "\n")


def write_page(path: Path, document: Html, again: str) -> Path:
    """Write a document; readers see the old page or the new one, never half of one.

    Args:
        path: the file; an existing one is replaced.
        document: from `page`.
        again: command to repeat after making room, for the message of a failure.

    Returns:
        `path`.

    Raises:
        WavesparkError: if the page cannot be written.
    """
    path = Path(path)
    try:
        _publish(path, document.encode("utf-8"))
    except OSError as error:
        way_out = f"Make room or change the permissions, and run `{again}` again"
        raise WavesparkError(f"{path}: cannot be written ({error.strerror}). {way_out}") from None
    return path


def _publish(target: Path, content: bytes) -> None:
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
