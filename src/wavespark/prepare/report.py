"""Numbers of a preparation."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wavespark.prepare.fit import NAMES
from wavespark.volumes import Refusal

OTHER_FILES = frozenset(
    {
        "no_pixel_data",
        "not_3d",
        "not_a_regular_file",
        "not_an_image_volume",
        "not_dicom",
        "outside_root",
        "too_few_slices",
        "unsafe_archive",
        "unsafe_file",
        "unsupported_dtype",
        "unsupported_format",
    }
)
"""Reason codes of files that are not damaged and no volumes for this package."""

FRACTION_FROM = 20
"""The largest share of refused inputs counts from here on: among a few, one bad file is no sign
that all is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareReport:
    """Result of a preparation."""

    prepared: int
    """Inputs that this run made into volumes."""
    already_there: int
    """Inputs that were prepared before and have not changed."""
    refused: tuple[Refusal, ...]
    """Inputs that were left out, each named once."""
    volumes: int
    """Volumes in the store now."""
    seconds: float
    modality_guessed: int = 0
    """Volumes in the store whose modality is a guess from their values."""
    modalities: Mapping[str, int] = field(default_factory=dict)
    """Volumes in the store by modality."""

    @property
    def inputs(self) -> int:
        """Files and series that were looked at."""
        return self.prepared + self.already_there + len(self.refused)

    @property
    def reasons(self) -> dict[str, int]:
        """Refused inputs by reason, most frequent first."""
        return dict(Counter(r.reason for r in sorted(self.refused, key=lambda r: r.reason)).most_common())

    @property
    def left_out(self) -> tuple[Refusal, ...]:
        """Inputs that can be read and are not fit for pre-training: label maps, other parts of the
        body, duplicates."""
        return tuple(r for r in self.refused if r.reason in NAMES)

    @property
    def other_files(self) -> tuple[Refusal, ...]:
        """Files that are no volumes for this package: links, archives, pictures, other formats and
        kinds."""
        return tuple(r for r in self.refused if r.reason in OTHER_FILES)

    @property
    def damaged(self) -> tuple[Refusal, ...]:
        """Inputs that should be volumes and cannot be used."""
        return tuple(r for r in self.refused if r.reason not in NAMES and r.reason not in OTHER_FILES)

    def verdict(self, *, strict: bool = False, max_bad_fraction: float = 0.05, part: bool = False) -> str | None:
        """Why this run counts as failed, or None.

        It failed if nothing could be used; with `strict`, if anything was refused that is not left
        out on purpose; else, from 20 volumes on, if more than `max_bad_fraction` of them are
        damaged. What is left out and what is no volume does not count. A `part` of the inputs (a
        shard) may be empty.
        """
        refused, damaged = len(self.refused), len(self.damaged)
        if not self.prepared and not self.already_there and (refused or not part):
            return f"none of {refused} input(s) could be used: see the reasons above"
        if strict and (bad := refused - len(self.left_out)):
            return f"{bad} of {self.inputs} input(s) were refused and --strict allows none"
        volumes = self.inputs - len(self.other_files)
        if volumes >= FRACTION_FROM and damaged > max_bad_fraction * volumes:
            allowed = f"more than {100 * max_bad_fraction:g} %: mend them, or raise --max-bad-fraction"
            return f"{damaged} of {volumes} inputs ({100 * damaged / volumes:.1f} %) are damaged, {allowed}"
        return None

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "inputs": self.inputs,
            "prepared": self.prepared,
            "already_there": self.already_there,
            "refused": len(self.refused),
            "left_out": len(self.left_out),
            "damaged": len(self.damaged),
            "modalities": dict(self.modalities),
            "modality_guessed": self.modality_guessed,
            "reasons": self.reasons,
            "volumes": self.volumes,
            "seconds": round(self.seconds, 3),
        }
