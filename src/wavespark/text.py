"""Text for people: the nearest known word, and control characters made visible."""

import difflib
import re
from collections.abc import Iterable

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators, direction overrides, and bytes of file names that are no
text."""


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """`: did you mean 'x'?` for the nearest known word, or nothing.

    Args:
        word: the unknown word.
        known: the possible ones.
        cutoff: least similarity, 0 to 1; with 0 the nearest is named however far it is.

    >>> did_you_mean("waveformer_tny", ["waveformer_tiny"])
    ": did you mean 'waveformer_tiny'?"
    """
    near = difflib.get_close_matches(word, list(known), 1, cutoff)
    return f": did you mean {near[0]!r}?" if near else ""


def printable(text: object, keep: str = "") -> str:
    r"""The text with control characters, direction overrides and undecodable bytes escaped.

    A name can then neither move the cursor nor forge a line.

    Args:
        text: any object, as `str` shows it.
        keep: characters that are left as they are.

    >>> printable("a\nb")
    'a\\nb'
    """
    return _CONTROL.sub(
        lambda m: m.group() if m.group() in keep else m.group().encode("unicode_escape").decode(), str(text)
    )
