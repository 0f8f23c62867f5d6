"""Left and right of labels: a mirrored head has its left artery on the right (the 2025-10 system
forgot this)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wavespark.errors import SettingsError

_SIDE = re.compile(r"(?<![A-Za-z])(left|right|lh|rh)(?![A-Za-z])", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left", "lh": "rh", "rh": "lh"}


def mirrored_name(name: str) -> str:
    """The name of the same structure on the other side.

    >>> mirrored_name("Left Middle Cerebral Artery"), mirrored_name("ctx-rh-insula"), mirrored_name("Basilar Tip")
    ('Right Middle Cerebral Artery', 'ctx-lh-insula', 'Basilar Tip')
    """

    def other(found: re.Match[str]) -> str:
        word = found[0]
        swapped = _OTHER[word.lower()]
        return swapped.upper() if word.isupper() else swapped.capitalize() if word[0].isupper() else swapped

    return _SIDE.sub(other, name)


@dataclass(frozen=True, slots=True)
class Sides:
    """Label values that change places when a head is mirrored."""

    pairs: tuple[tuple[int, int], ...] = ()
    """(value on the left, value on the right)."""

    def __post_init__(self) -> None:
        values = [value for pair in self.pairs for value in pair]
        if len(set(values)) < len(values) or any(len(pair) != 2 for pair in self.pairs):
            raise SettingsError(f"lateral pairs must be pairs of values, each value once, got {self.pairs}")

    @classmethod
    def of_names(cls, names: Mapping[int, str]) -> "Sides":
        """The pairs that names tell: `{3: "left thalamus", 7: "right thalamus"}` gives (3, 7).

        Raises:
            SettingsError: if a name has a side and its counterpart is missing: a mirrored label
                would then be wrong.
        """
        value_of = {name: value for value, name in names.items()}
        pairs = set()
        for value, name in names.items():
            other = mirrored_name(name)
            if other == name:
                continue
            if other not in value_of:
                raise SettingsError(
                    f"label {name!r} has a side, but there is no {other!r}: name both, or turn flips off"
                )
            pairs.add((min(value, value_of[other]), max(value, value_of[other])))
        return cls(tuple(sorted(pairs)))

    def labels(self, values: np.ndarray) -> np.ndarray:
        """A label map with the values of each pair exchanged (voxels stay where they are)."""
        out = values
        for left, right in self.pairs:
            is_left, is_right = values == left, values == right
            if out is values and (is_left.any() or is_right.any()):
                out = values.copy()
            out[is_left] = right
            out[is_right] = left
        return out

    @staticmethod
    def columns(names: Sequence[str]) -> np.ndarray:
        """Where each class of a mirrored head is found: `targets[..., Sides.columns(names)]` are
        its labels.

        A side without counterpart stays where it is.

        >>> Sides.columns(["Left MCA", "Right MCA", "Basilar Tip"]).tolist()
        [1, 0, 2]
        """
        place = {name: index for index, name in enumerate(names)}
        return np.array([place.get(mirrored_name(name), index) for index, name in enumerate(names)], np.int64)


NO_SIDES = Sides()
"""No label has a side."""
