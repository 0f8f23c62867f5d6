"""Complete HTML documents: one style sheet, nothing loaded from elsewhere, written to disk in one
piece."""

from importlib.resources import files
from pathlib import Path

from wavespark.files import write_file
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


def write_page(path: Path, document: Html) -> Path:
    """Write a document; readers see the old page or the new one, never half of one.

    Args:
        path: the file; an existing one is replaced.
        document: from `page`.

    Returns:
        `path`.

    Raises:
        StoreError: if the page cannot be written.
    """
    write_file(path, document.encode("utf-8"))
    return path
