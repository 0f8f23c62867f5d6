"""The folder of a run: one process at a time, and always the same settings."""

import secrets
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from wavespark.checkpoints import checkpoint_folders
from wavespark.config import PretrainSettings, to_toml
from wavespark.errors import CheckpointError, SettingsError, StoreError
from wavespark.files import locks, remove_unfinished, write_file, writing

CHECKPOINTS, CONFIG, METRICS, VALIDATION, EXAMPLES = (
    "checkpoints",
    "config.toml",
    "metrics.jsonl",
    "validation.jsonl",
    "examples",
)


def hold(run: Path) -> AbstractContextManager[None]:
    """Holds the run's folder.

    Raises:
        CheckpointError: if another process does, with its process id and host.
    """
    return locks.hold(
        run / ".lock",
        lambda holder: CheckpointError(f"{run} is being trained by {holder}: wait, or use another --output"),
    )


def make(run: Path) -> None:
    """Makes the folder, if it is not there.

    Raises:
        StoreError: if that is not possible.
    """
    try:
        with writing(run / CONFIG):
            run.mkdir(parents=True, exist_ok=True)
    except StoreError:
        if any(p.exists() and not p.is_dir() for p in (run, *run.parents)):
            raise StoreError(f"{run} cannot be made, because a file is in its place: use another --output") from None
        raise


def begin_fresh(run: Path) -> None:
    """Moves what an earlier run left aside, to `RUN.before-XXXX`; nothing is deleted.

    Raises:
        CheckpointError: if another process trains there.
        StoreError: if the folder cannot be moved.
    """
    make(run)
    with hold(run), writing(run):
        if any(p.name != ".lock" for p in run.iterdir()):
            place = run.resolve()
            place.rename(place.with_name(f"{place.name}.before-{secrets.token_hex(2)}"))
            place.mkdir()


def check_same(run: Path, settings: PretrainSettings) -> None:
    """Checks that the settings are those with which the run began; `run.workers`-like settings that do not change the result may differ.

    Raises:
        SettingsError: naming every difference, if there are checkpoints of other settings.
    """
    document = settings.model_dump()
    if checkpoint_folders(run / CHECKPOINTS):
        try:
            before = tomllib.loads((run / CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            before = document
        changed = [
            f"{key} was {old!r}, now {new!r}" for key, old, new in _differences(before, document) if key not in _FREE
        ]
        if changed:
            raise SettingsError(
                f"{run} was begun with other settings: {'; '.join(changed)}. Use the same, another --output, or --fresh"
            )


def settle(run: Path, settings: PretrainSettings) -> None:
    """Writes the settings of a run that begins, or goes on with the same.

    Raises:
        SettingsError: as `check_same`.
    """
    check_same(run, settings)
    for part in (run, run / EXAMPLES):
        remove_unfinished(part)
    write_file(run / CONFIG, to_toml(settings.model_dump()).encode())


_FREE = {
    "data.workers",
    "model.init",
    "model.init_partial",
    "run.threads",
    "run.accumulate",
    "run.parallel",
    "run.deterministic",
    "run.compile",
    "run.channels_last",
    "run.gradient_checkpointing",
    "run.checkpoint_every",
    "run.save_in_background",
    "run.keep",
    "run.keep_every",
    "run.validate_every",
    "run.tensorboard",
    "run.wandb",
    "run.mlflow",
    "run.device",
    "health.collapse",
    "health.not_learning",
    "health.patience",
    "health.non_finite",
    "health.probe",
    "health.probe_volumes",
}
"""What may change while a run goes on: it decides how, how fast or how often, and the result by rounding at most; `run.accumulate` by a
little more, because parts of a batch are weighted alike and not by their scored voxels."""


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for table, values in now.items():
        for key, value in values.items():
            old = before.get(table, {}).get(key, value)
            if _plain(old) != _plain(value):
                yield f"{table}.{key}", old, value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
