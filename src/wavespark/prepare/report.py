"""What a preparation did, in numbers."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from wavespark.volumes import Refusal

FRACTION_FROM = 20
"""The largest share of refused inputs counts from here on: among a few, one bad file is no sign that all is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareReport:
    """What a preparation did."""

    prepared: int
    """Inputs that this run made into volumes."""
    already_there: int
    """Inputs that were prepared before and have not changed."""
    refused: tuple[Refusal, ...]
    """Inputs that were left out, each named once."""
    volumes: int
    """Volumes in the store now."""
    seconds: float

    @property
    def inputs(self) -> int:
        """Files and series that were looked at."""
        return self.prepared + self.already_there + len(self.refused)

    @property
    def reasons(self) -> dict[str, int]:
        """Refused inputs by reason, most frequent first."""
        return dict(Counter(r.reason for r in sorted(self.refused, key=lambda r: r.reason)).most_common())

    def verdict(self, *, strict: bool = False, max_bad_fraction: float = 0.05, part: bool = False) -> str | None:
        """Why this run counts as failed, or None.

        It failed if nothing could be used; with `strict`, if anything was refused; else, from 20 inputs on, if more
        than `max_bad_fraction` of them were. A `part` of the inputs (a shard) may be empty.
        """
        bad = len(self.refused)
        if not self.prepared and not self.already_there and (bad or not part):
            return f"none of {bad} input(s) could be used: see the reasons above"
        if strict and bad:
            return f"{bad} of {self.inputs} input(s) were refused and --strict allows none"
        if self.inputs >= FRACTION_FROM and bad > max_bad_fraction * self.inputs:
            allowed = f"more than {100 * max_bad_fraction:g} %: mend them, or raise --max-bad-fraction"
            return f"{bad} of {self.inputs} inputs ({100 * bad / self.inputs:.1f} %) were refused, {allowed}"
        return None

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "inputs": self.inputs,
            "prepared": self.prepared,
            "already_there": self.already_there,
            "refused": len(self.refused),
            "reasons": self.reasons,
            "volumes": self.volumes,
            "seconds": round(self.seconds, 3),
        }
