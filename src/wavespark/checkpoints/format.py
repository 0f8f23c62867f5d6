"""A checkpoint is a folder `step_00001234` with `model.safetensors`, `optimizer.safetensors`,
`state.json` and `manifest.json`.

It is written beside, synced and renamed: it is there whole or not at all. The manifest holds the
SHA-256 of every file; one flipped bit is noticed.
"""

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from wavespark.checkpoints.folders import checkpoint_folders
from wavespark.errors import CheckpointError
from wavespark.files import UNFINISHED, remove_unfinished, sync_folder, write_folder, writing

FORMAT = 1
MODEL, OPTIMIZER, STATE, MANIFEST = "model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Checkpoint:
    """State from which a run continues as if it had never stopped."""

    step: int
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    """Moments by parameter name."""
    state: Mapping[str, Any]
    """Numbers and settings, as JSON."""


def write_checkpoint(checkpoints: Path, checkpoint: Checkpoint) -> Path:
    """Write the checkpoint in one piece and return its folder.

    Raises:
        StoreError: if the disk is full; nothing half-written stays.
    """
    with writing(checkpoints):
        checkpoints.mkdir(parents=True, exist_ok=True)
    remove_unfinished(checkpoints)
    files = {
        MODEL: save(_contiguous(checkpoint.model)),
        OPTIMIZER: save(_contiguous(checkpoint.optimizer)),
        STATE: json.dumps({"step": checkpoint.step, **checkpoint.state}, indent=1, sort_keys=True).encode(),
    }
    files[MANIFEST] = manifest(files)
    folder = checkpoints / f"step_{checkpoint.step:08d}"
    write_folder(folder, files)
    return folder


def manifest(files: Mapping[str, bytes]) -> bytes:
    """JSON with the size and SHA-256 of every file."""
    sums = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in files.items()
    }
    return json.dumps({"format": FORMAT, "files": sums}, indent=1).encode()


def read_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint, every file checked.

    Raises:
        CheckpointError: if a file is missing or is not as it was written.
    """
    files = read_checked(folder, (MODEL, OPTIMIZER, STATE))
    try:
        state = json.loads(files[STATE])
        return Checkpoint(
            step=int(state.pop("step")), model=load(files[MODEL]), optimizer=load(files[OPTIMIZER]), state=state
        )
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise CheckpointError(f"{folder} was not written by this version of wavespark") from None


def read_checked(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """The content of files that the folder's manifest lists, checked.

    Raises:
        CheckpointError: naming the file that is missing or damaged.
    """
    try:
        listed = json.loads((folder / MANIFEST).read_bytes())["files"]
        sums = {name: str(listed[name]["sha256"]) for name in names}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{folder / MANIFEST} is missing or damaged") from None
    files = {}
    for name in names:
        try:
            files[name] = (folder / name).read_bytes()
        except OSError:
            raise CheckpointError(f"{folder / name} is missing or cannot be read") from None
        if hashlib.sha256(files[name]).hexdigest() != sums[name]:
            raise CheckpointError(
                f"{folder / name} is damaged or was changed: its SHA-256 is not the one in {MANIFEST}"
            )
    return files


def newest_checkpoint(checkpoints: Path, damaged: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; None if there has never been one.

    Args:
        checkpoints: the folder of a run.
        damaged: called with a sentence about each damaged checkpoint that is skipped.

    Raises:
        CheckpointError: if there are checkpoints and all are damaged: never a silent fresh start.
    """
    folders = checkpoint_folders(checkpoints)
    for folder in folders:
        try:
            return read_checkpoint(folder)
        except CheckpointError as error:
            damaged(str(error))
    if folders:
        raise CheckpointError(
            f"all {len(folders)} checkpoint(s) in {checkpoints} are damaged. Restore one from a backup, or start again with --fresh"
        )
    return None


def prune(checkpoints: Path, keep: int, step: int, keep_every: int = 0) -> None:
    """Remove all but the newest `keep` of those up to `step`; newer ones are damaged, or the run
    would have gone on from them.

    Those of steps that are a multiple of `keep_every` stay, unless it is 0.
    They are renamed first, so that a half-deleted folder is never taken for a checkpoint.
    """
    upto = [(int(f.name.removeprefix("step_")), f) for f in checkpoint_folders(checkpoints)]
    for number, folder in [(n, f) for n, f in upto if n <= step][keep:]:
        if keep_every and number % keep_every == 0:
            continue
        gone = folder.with_name(f"{UNFINISHED}{folder.name}-{secrets.token_hex(4)}")
        with writing(checkpoints):
            folder.rename(gone)
            sync_folder(checkpoints)
        shutil.rmtree(gone, ignore_errors=True)


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
