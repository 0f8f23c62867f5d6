"""Result of one examination."""

from dataclasses import dataclass
from typing import Literal

State = Literal["works", "not installed", "warning", "fails"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One line of the doctor's table."""

    name: str
    expected: str
    found: str
    ok: bool
    """True if wavespark can work with it, also with a warning."""
    remedy: str = ""
    """Command or advice for a failure or a warning."""
    warning: bool = False
    absent: bool = False
    """Optional, and not installed."""
    component: str = "environment"
    """The line of the closing summary that it belongs to."""
    seconds: float = 0.0

    @property
    def state(self) -> State:
        """The result in a word."""
        if not self.ok:
            return "fails"
        if self.warning:
            return "warning"
        return "not installed" if self.absent else "works"


def version_number(text: str) -> tuple[int, ...]:
    """The release of a version as numbers, to compare: (2, 13, 0) of `2.13.0+cpu`.

    >>> version_number("2.13.0+cpu") > version_number("2.9")
    True
    """
    numbers: list[int] = []
    for word in text.split("+", maxsplit=1)[0].split("."):
        digits = word[: len(word) - len(word.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != word:  # 2rc1: what follows is a pre-release
            break
    return tuple(numbers)
