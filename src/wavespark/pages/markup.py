"""HTML elements with escaping by default.

Only `tag` and `join` create markup; every other text is escaped, so a hostile name or sentence
stays text.
"""

import html
from collections.abc import Iterable, Sequence

from wavespark.text import printable

_VOID = frozenset({"br", "img", "meta"})


class Html(str):
    """Text that is already HTML. `tag` and `join` create it, and `page.py` for the style sheet."""

    __slots__ = ()


def _escaped(text: object) -> str:
    return html.escape(printable(text, keep="\t\n"), quote=True)


def escape(text: object) -> Html:
    r"""Escape text for HTML; control characters, direction overrides and surrogates become visible
    escapes.

    >>> escape("<b>\x1b")
    '&lt;b&gt;\\x1b'
    """
    if isinstance(text, Html):
        return text
    return Html(_escaped(text))


def join(*children: object) -> Html:
    """Concatenate the children, escaped unless they are `Html`; `None` is skipped."""
    return Html("".join(escape(child) for child in children if child is not None))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """Build an element.

    `class_` becomes `class`, `aria_label` becomes `aria-label`; `None` and `False` omit it.

    >>> tag("p", "a < b", class_="note")
    '<p class="note">a &lt; b</p>'
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        spelled = key.rstrip("_").replace("_", "-") if key != "viewBox" else key
        parts.append(spelled if value is True else f'{spelled}="{_escaped(value)}"')
    opening = f"<{' '.join(parts)}>"
    return Html(opening) if name in _VOID else Html(f"{opening}{join(*children)}</{name}>")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str, numeric: bool = False) -> Html:
    """Build a table whose first column heads its rows, inside a box that scrolls on narrow screens.

    Args:
        heads: column headings, the first one above the row headings.
        rows: cells; each is escaped unless it is `Html`.
        caption: what the table shows, also its label for screen readers.
        numeric: align all columns but the first to the right.
    """
    head = tag("tr", *(tag("th", h, scope="col") for h in heads))
    body = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    look = "numeric" if numeric else None
    whole = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body), class_=look)
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def foldable(summary: str, *children: object, open_: bool = False) -> Html:
    """Build a section that opens on a click (and is always open in print)."""
    return tag("details", tag("summary", summary), *children, open=open_)
