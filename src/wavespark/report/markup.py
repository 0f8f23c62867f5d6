"""HTML in which nothing is markup unless it was made here.

Every other text is escaped, so a hostile name or sentence stays text.
"""

import html
import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_VOID = frozenset({"br", "img", "meta"})


class Html(str):
    """Text that is HTML already. Only `tag` and `join` make it, and `page.py` for the style sheet."""

    __slots__ = ()


def _visible(text: object) -> str:
    return _CONTROL.sub(lambda m: m.group().encode("unicode_escape").decode(), str(text))


def escape(text: object) -> Html:
    r"""The text as HTML shows it; control characters, direction overrides and undecodable bytes become visible escapes.

    >>> escape("<b>\x1b")
    '&lt;b&gt;\\x1b'
    """
    if isinstance(text, Html):
        return text
    return Html(html.escape(_visible(text), quote=True))


def join(*children: object) -> Html:
    """The children one after the other, escaped unless they are `Html`; `None` is nothing."""
    return Html("".join(escape(child) for child in children if child is not None))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element. `class_` is written `class`, `aria_label` is `aria-label`; `None` and `False` leave an attribute out.

    >>> tag("p", "a < b", class_="note")
    '<p class="note">a &lt; b</p>'
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        spelled = key.rstrip("_").replace("_", "-") if key != "viewBox" else key
        words.append(spelled if value is True else f'{spelled}="{html.escape(_visible(value), quote=True)}"')
    opening = f"<{' '.join(words)}>"
    return Html(opening) if name in _VOID else Html(f"{opening}{join(*children)}</{name}>")
