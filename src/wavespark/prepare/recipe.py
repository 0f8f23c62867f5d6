"""A recipe: how a volume becomes a stored volume.

Its fingerprint travels with everything that is made from it.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from wavespark.errors import SettingsError
from wavespark.settings import Settings, build, override
from wavespark.text import did_you_mean
from wavespark.volumes import AssumedGeometry, ReadingSettings

Positive = Annotated[float, Field(gt=0)]


DatasetName = Literal["auto", "plain", "rsna-2025", "openmind", "deeplesion", "bids"]
"""Data sets whose folder layout is known."""


class Window(Settings):
    """A range of HU that one channel shows, mapped linearly to -1..1 and clipped: the same bounds
    for every volume."""

    width: Positive
    """HU from the lower to the upper bound."""
    level: float
    """HU in the middle."""

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest HU of the window."""
        return self.level - self.width / 2, self.level + self.width / 2


BRAIN, BLOOD, BONE = Window(width=80, level=40), Window(width=200, level=80), Window(width=2800, level=600)


class CTValues(Settings):
    """Stored values of CT."""

    values: Literal["windows", "raw"] = "windows"
    """`windows`: one channel a window. `raw`: HU, one channel."""
    windows: tuple[Window, ...] = (BRAIN, BLOOD, BONE)
    """One channel each; by default brain, blood and bone."""
    step_hu: Positive = 0.25
    """HU are rounded to this step inside windows, so that they fit 16 bits."""

    @field_validator("windows")
    @classmethod
    def _at_least_one(cls, windows: tuple[Window, ...]) -> tuple[Window, ...]:
        if not windows:
            raise ValueError("give at least one window")
        return windows


class MRValues(Settings):
    """Stored values of MR."""

    values: Literal["z-score", "raw"] = "z-score"
    """`z-score`: clipped to percentiles of the foreground, then its mean 0 and deviation 1.

    `raw`: as read.
    """
    percentiles: tuple[Annotated[float, Field(ge=0, le=100)], Annotated[float, Field(ge=0, le=100)]] = (0.5, 99.5)
    """Percentiles of the foreground to which values are clipped."""
    levels: Annotated[int, Field(ge=256, le=65536)] = 4096
    """Steps between the two percentiles."""

    @field_validator("percentiles")
    @classmethod
    def _in_order(cls, percentiles: tuple[float, float]) -> tuple[float, float]:
        if percentiles[0] >= percentiles[1]:
            raise ValueError(f"the lower percentile {percentiles[0]} must be below the upper {percentiles[1]}")
        return percentiles


class ForegroundBox(Settings):
    """Box around the head to which volumes are cut."""

    crop: bool = True
    """Keep only the box around the foreground."""
    margin_mm: Annotated[float, Field(ge=0)] = 5.0
    """Left around that box."""


class Recipe(Settings):
    """How a volume becomes a stored volume.

    >>> load_recipe("head-1mm").spacing_mm
    1.0
    """

    name: str = "custom"
    """For people; no part of the fingerprint."""
    spacing_mm: Positive | Literal["own"] = 1.0
    """Voxel size; `own` keeps the volume's own grid."""
    slice_spacing_mm: Positive | Literal["same"] = "same"
    """Voxel size along the axis with the thickest slices (S where all are alike); `same` means
    `spacing_mm`."""
    interpolation: Literal["cubic", "linear"] = "cubic"
    """How values between voxels are found: cubic B-spline, or linear."""
    ct: CTValues = CTValues()
    """Stored values of CT."""
    mr: MRValues = MRValues()
    """Stored values of MR."""
    foreground: ForegroundBox = ForegroundBox()
    """Box around the head to which volumes are cut."""
    dataset: DatasetName = "auto"
    """Whose folders the sources are, which tells what belongs together; `auto` recognises them,
    `plain` takes every file by itself."""
    only_heads: bool = False
    """Leave out CT without a skull: for data sets of the whole body."""
    leave_out: tuple[str, ...] = ()
    """Notes that keep a volume out of the store, for example `few_distinct_values` (label maps,
    masks)."""
    reading: dict[str, Any] = Field(default_factory=dict)
    """Opt-in repairs of `wavespark.volumes.ReadingSettings`, for example
    `reading.allow_gaps=true`."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides what is stored, as plain JSON values."""
        untouched = {key for key in ("dataset", "only_heads") if getattr(self, key) == Recipe.model_fields[key].default}
        return self.model_dump(
            mode="json", exclude={"name"} | untouched
        )  # stores that know nothing of these stay valid

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over `settings` as canonical JSON."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @classmethod
    def from_settings(cls, document: Mapping[str, Any], origin: str = "recipe") -> "Recipe":
        """The recipe that a JSON or TOML document describes.

        Raises:
            SettingsError: if a key is unknown or a value impossible.
        """
        return build(cls, document, origin)

    def differences(self, other: "Recipe") -> list[str]:
        """Settings that differ from those of another recipe, one sentence each."""
        mine, theirs = _flat(self.settings), _flat(other.settings)
        return [
            f"{key} is {theirs.get(key)!r} there, {mine.get(key)!r} now"
            for key in sorted(mine | theirs)
            if mine.get(key) != theirs.get(key)
        ]


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def recipe_names() -> list[str]:
    """Return the names of the preparation recipes that come with the package."""
    return sorted(f.name.removesuffix(".toml") for f in _packaged().iterdir() if f.name.endswith(".toml"))


def _packaged() -> Any:
    return resources.files("wavespark") / "recipes"


def load_recipe(name_or_path: str | Path = "head-1mm", overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of that name or file, with `key=value` words laid over it.

    >>> load_recipe("head-1mm", ["foreground.margin_mm=2"]).foreground.margin_mm
    2.0

    Raises:
        SettingsError: if there is no such recipe, a key is unknown or a value impossible.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml":
        try:
            document = tomllib.loads(path.read_text("utf-8"))
        except OSError:
            raise SettingsError(f"{path}: there is no such recipe file") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            where = (
                str(error) if isinstance(error, tomllib.TOMLDecodeError) else "it is not UTF-8 text, or nested too deep"
            )
            raise SettingsError(f"{path} is not TOML: {where}") from None
        document = {"name": path.stem} | document
    else:
        names = recipe_names()
        if str(name_or_path) not in names:
            raise SettingsError(
                f"there is no recipe {str(name_or_path)!r}: choose {', '.join(names)}, or give a .toml file"
            )
        document = {"name": str(name_or_path)} | tomllib.loads(
            (_packaged() / f"{name_or_path}.toml").read_text("utf-8")
        )
    return Recipe.from_settings(override(document, overrides), str(name_or_path))


def reading_settings(document: Mapping[str, Any]) -> ReadingSettings:
    """The reader's settings that a recipe's `reading` table gives.

    Raises:
        SettingsError: if a key is unknown or a value impossible.
    """
    known = [f.name for f in fields(ReadingSettings)]
    values = dict(document)
    for key in values:
        if key not in known:
            near = did_you_mean(f"reading.{key}", [f"reading.{name}" for name in known], cutoff=0.0)
            raise SettingsError(f"unknown setting 'reading.{key}'{near}")
    if isinstance(values.get("assume_geometry"), Mapping):
        try:
            values["assume_geometry"] = AssumedGeometry(**values["assume_geometry"])
        except TypeError:
            raise SettingsError("reading.assume_geometry needs spacing = [mm, mm, mm] and axes = 'LPS'") from None
    try:
        return ReadingSettings(**values)
    except TypeError:
        raise SettingsError(f"reading: a value has the wrong kind; known settings are {', '.join(known)}") from None
