"""Faults on request, for tests: the environment variable `WAVESPARK_FAULTS`, e.g.

`nan@step:12,oom@step:5`. Off unless it is set.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from wavespark.errors import SettingsError

_FAULT = re.compile(r"(nan|oom|crash)@(step|item):(.+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """Steps at which a run is made to fail."""

    nan: frozenset[int] = frozenset()
    """The loss is not a number."""
    oom: frozenset[int] = frozenset()
    """Memory runs out."""

    @classmethod
    def asked_for(cls, environment: Mapping[str, str] = os.environ) -> "Faults":
        """Those that the environment names; faults of items are those of `prepare`.

        Raises:
            SettingsError: if it cannot be read.
        """
        steps: dict[str, set[int]] = {"nan": set(), "oom": set()}
        for word in filter(None, environment.get("WAVESPARK_FAULTS", "").split(",")):
            match = _FAULT.fullmatch(word.strip())
            if match and match[2] == "item":
                continue
            if not match or match[1] not in steps or not match[3].isdecimal():
                raise SettingsError(
                    f"WAVESPARK_FAULTS holds {word!r}: write nan@step:12, oom@step:5 or crash@item:NAME, several with commas"
                )
            steps[match[1]].add(int(match[3]))
        return cls(nan=frozenset(steps["nan"]), oom=frozenset(steps["oom"]))
