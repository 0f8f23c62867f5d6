"""The folder of a run: one process at a time, and always the same settings."""

import secrets
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from wavespark.checkpoints import checkpoint_folders
from wavespark.config import PretrainSettings, to_toml
from wavespark.config.pretrain import renamed
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


def check_place(run: Path) -> None:
    """Check that a folder can lie at this path.

    Raises:
        StoreError: if the path, or what should be a folder above it, is a file.
    """
    if any(p.exists() and not p.is_dir() for p in (run, *run.parents)):
        raise StoreError(f"{run} cannot be made, because a file is in its place: use another --output")


def make(run: Path) -> None:
    """Makes the folder, if it is not there.

    Raises:
        StoreError: if that is not possible.
    """
    check_place(run)
    with writing(run / CONFIG):
        run.mkdir(parents=True, exist_ok=True)


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
    """Check that a run with checkpoints goes on with the settings with which it began.

    Settings that decide how fast or how often, and not the result, may change. `run.steps` may
    grow: the learning rate of the steps that are left is then that of the schedule of the longer
    run.

    Raises:
        SettingsError: naming every other difference.
    """
    document = settings.model_dump()
    if not checkpoint_folders(run / CHECKPOINTS):
        return
    before = _settings_of(run, document)
    changed = [
        f"{key} was {old!r}, now {new!r}{' (it may only grow)' if key == GROWS else ''}"
        for key, old, new in _differences(before, document)
        if key not in _FREE and not (key == GROWS and isinstance(old, int) and old < new)
    ]
    if changed:
        raise SettingsError(
            f"{run} was begun with other settings: {'; '.join(changed)}. Use the same, another --output, or --fresh"
        )


def _settings_of(run: Path, fallback: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings with which the run began, in the names of this version; the fallback if
    they cannot be read."""
    try:
        document = tomllib.loads((run / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return fallback
    return renamed(document)


def settle(run: Path, settings: PretrainSettings) -> None:
    """Writes the settings of a run that begins, or goes on with the same.

    Raises:
        SettingsError: as `check_same`.
    """
    check_same(run, settings)
    for part in (run, run / EXAMPLES):
        remove_unfinished(part)
    write_file(run / CONFIG, to_toml(settings.model_dump()).encode())


GROWS = "run.steps"
"""The setting of a run that may grow and not shrink."""
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
"""Settings that may change while a run goes on: they decide how fast or how often, and the result
by rounding at most;
`run.accumulate` by a little more, because parts of a batch are weighted alike and not by their
scored voxels."""


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted key, old value, new value) of settings that differ; one that the old file lacks
    counts as the same."""
    for key, value in now.items():
        old = before.get(key, value)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and prefix + key not in _MAPS:
            yield from _differences(old, value, f"{prefix}{key}.")
        elif _plain(old) != _plain(value):
            yield prefix + key, old, value


_MAPS = {"data.modality_weights", "model.settings"}
"""Settings that are mappings themselves, compared as a whole."""


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
