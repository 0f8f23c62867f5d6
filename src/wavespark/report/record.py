"""Record of a RUN folder, read defensively: the run may be going on, may have been killed, or may
come from elsewhere.

Nothing here raises for what is inside a file: what is missing or damaged becomes a sentence in
`RunRecord.missing`.
"""

import json
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wavespark.errors import InputError
from wavespark.report.examples import Examples, load_examples
from wavespark.report.values import finite, mapping
from wavespark.report.whole import Whole, load_whole

COLUMNS = (
    "loss",
    "normalised_loss",
    "reconstruction",
    "visible_share",
    "hidden_share",
    "learning_rate",
    "gradient_norm",
    "seconds",
)
_KNOWN = (
    "config.toml",
    "environment.json",
    "metrics.jsonl",
    "validation.jsonl",
    "data.json",
    "summary.json",
    "examples",
)
_LARGEST_DOCUMENT = 64 * 2**20
_LONGEST_LINE = 2**20


@dataclass(frozen=True, eq=False)
class Metrics:
    """Training, one entry a step, in the order of the steps; NaN where a step did not record a
    column."""

    steps: npt.NDArray[np.int64]
    columns: dict[str, npt.NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, column: str) -> npt.NDArray[np.float64]:
        return self.columns[column]


@dataclass(frozen=True, eq=False)
class RunRecord:
    """Everything that the report is made of."""

    name: str
    settings: dict[str, Any]
    environment: dict[str, Any]
    metrics: Metrics
    validations: list[dict[str, Any]]
    """In the order of their `step`."""
    data: dict[str, Any]
    summary: dict[str, Any]
    examples: Examples | None
    """Crops to show; `None` if there are none."""
    whole: Whole | None = None
    """Whole slices to show; `None` if there are none."""
    missing: list[str] = field(default_factory=list)
    """Sentences that say what could not be read."""

    @property
    def first(self) -> dict[str, Any]:
        """The first validation, before training."""
        return self.validations[0] if self.validations else mapping(self.summary, "first")

    @property
    def last(self) -> dict[str, Any]:
        """The newest validation."""
        return self.validations[-1] if self.validations else mapping(self.summary, "last")

    @property
    def step(self) -> int:
        """Steps done, as far as the files tell."""
        known = [finite(self.summary, "steps"), finite(self.last, "step")]
        known += [float(self.metrics.steps[-1])] if len(self.metrics) else []
        return int(max((k for k in known if k is not None), default=0))

    @property
    def finished(self) -> bool:
        """True if the run recorded its end."""
        return self.summary.get("finished") is True

    @property
    def seconds_per_step(self) -> float | None:
        """From the summary, or the median over the steps."""
        told = finite(self.summary, "seconds_per_step")
        if told is not None or not len(self.metrics):
            return told
        seconds = self.metrics["seconds"]
        seconds = seconds[np.isfinite(seconds)]
        return float(np.median(seconds)) if len(seconds) else None


def read_run(run: Path) -> RunRecord:
    """Reads a RUN folder.

    Raises:
        InputError: `not_found` if there is no such folder, `not_a_run` if it holds none of a run's
            files.
    """
    run = Path(run)
    if not run.is_dir():
        raise InputError(
            "not_found", f"{run}: there is no such folder. Give the folder that `wavespark pretrain --output` wrote"
        )
    if not any((run / name).exists() for name in _KNOWN):
        raise InputError(
            "not_a_run",
            f"{run}: holds none of {', '.join(_KNOWN)}. Give the folder that `wavespark pretrain --output` wrote",
        )
    missing: list[str] = []
    rows = {int(row["step"]): row for row in _rows(run / "metrics.jsonl", "training steps", missing)}
    steps = np.array(sorted(rows), dtype=np.int64)
    columns = {c: np.array([_or_nan(finite(rows[int(s)], c)) for s in steps], dtype=np.float64) for c in COLUMNS}
    validations = {int(row["step"]): row for row in _rows(run / "validation.jsonl", "held-out measurements", missing)}
    return RunRecord(
        name=run.resolve().name,
        settings=_document(run / "config.toml", "settings", missing),
        environment=_document(run / "environment.json", "environment", missing),
        metrics=Metrics(steps, columns),
        validations=[validations[s] for s in sorted(validations)],
        data=_document(run / "data.json", "data", missing),
        summary=_document(run / "summary.json", "summary", missing),
        examples=load_examples(run / "examples", missing),
        whole=load_whole(run / "examples", missing),
        missing=missing,
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _document(path: Path, what: str, missing: list[str]) -> dict[str, Any]:
    """A JSON or TOML file whose top is a mapping; else an empty one and a sentence."""
    try:
        if path.stat().st_size > _LARGEST_DOCUMENT:
            raise ValueError
        text = path.read_text(encoding="utf-8")
        value = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except FileNotFoundError:
        missing.append(f"{path.name} ({what}): not there yet.")
    except (OSError, ValueError, RecursionError):
        missing.append(f"{path.name} ({what}): cannot be read, so it is left out here.")
    else:
        if isinstance(value, dict):
            return value
        missing.append(f"{path.name} ({what}): is not what wavespark writes, so it is left out here.")
    return {}


def _rows(path: Path, what: str, missing: list[str]) -> Sequence[dict[str, Any]]:
    """The JSON objects of a file, one a line.

    A last line that a kill cut off is normal; other unreadable lines are counted.
    """
    rows: list[dict[str, Any]] = []
    bad = 0
    try:
        with path.open("rb") as file:
            for line in file:
                row = _row(line)
                if row is not None:
                    rows.append(row)
                elif line.endswith(b"\n") and line.strip():
                    bad += 1
    except FileNotFoundError:
        missing.append(f"{path.name} ({what}): not there yet.")
    except OSError:
        missing.append(f"{path.name} ({what}): cannot be read, so it is left out here.")
    else:
        if not rows:
            missing.append(f"{path.name} ({what}): has no entry yet.")
        if bad:
            missing.append(f"{path.name} ({what}): {bad} line(s) cannot be read and are left out.")
    return rows


def _row(line: bytes) -> dict[str, Any] | None:
    if len(line) > _LONGEST_LINE:
        return None
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = finite(row, "step") if isinstance(row, dict) else None
    return row if step is not None and 0 <= step < 2**53 else None
