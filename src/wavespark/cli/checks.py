"""Checks of arguments that need neither torch nor a reader of volumes, so that a mistake is
answered at once."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from wavespark.errors import CheckpointError, InputError, SettingsError, StoreError
from wavespark.text import printable


def require_settings(words: Sequence[str] | None, example: str) -> None:
    """Check that every extra word is a setting `KEY=VALUE`.

    Raises:
        SettingsError: naming the first that is none, and the option that takes a folder.
    """
    for word in words or ():
        if "=" not in word:
            raise SettingsError(
                f"{printable(word)!r} is not a setting: write KEY=VALUE, for example {example}. "
                f"A store is named with --store {printable(word)}"
            )


def require_choice(value: str, known: Iterable[str], option: str) -> None:
    """Check that an option has one of its known values.

    Raises:
        SettingsError: naming the known values.
    """
    known = list(known)
    if value not in known:
        raise SettingsError(f"{option} {printable(value)} is not possible: use one of {', '.join(known)}")


def require_file(path: Path, option: str) -> None:
    """Check that a file exists.

    Raises:
        SettingsError: naming the path.
    """
    if not path.is_file():
        raise SettingsError(f"{option}: there is no file {printable(path)}")


def require_folder_of(path: Path | None, option: str) -> None:
    """Check that the folder in which a file will be written exists.

    Raises:
        SettingsError: naming the folder.
    """
    if path is not None and not path.absolute().parent.is_dir():
        raise SettingsError(
            f"{option} {printable(path)}: there is no folder {printable(path.absolute().parent)}. Make it first"
        )


def require_encoder(path: Path) -> None:
    """Check that a path may hold an encoder: an export, a run with an export, or a safetensors
    file.

    Raises:
        CheckpointError: saying what is there instead.
    """
    if path.is_file() or (path / "exports" / "encoder").is_dir() or (path / "config.json").is_file():
        return
    what = "there is nothing there" if not path.exists() else "it holds no export"
    raise CheckpointError(
        f"no encoder in {printable(path)}: {what}. Give a run that `wavespark pretrain` finished, or an export of it"
    )


def require_run(path: Path) -> None:
    """Check that a path may hold a run with a checkpoint.

    Raises:
        CheckpointError: if it does not.
    """
    if not any((path / "checkpoints").glob("step_*")):
        raise CheckpointError(f"{printable(path)} has no checkpoint: give a folder that `wavespark pretrain` wrote")


def require_new_store(path: Path) -> None:
    """Check that a folder is a store, holds an unfinished one, or can become one.

    Raises:
        StoreError: if it holds something else.
    """
    if not path.is_dir() or (path / "store.json").exists():
        return
    others = {p.name for p in path.iterdir()} - {"items", "private"}
    if any(not name.startswith(".unfinished-") for name in others):
        raise StoreError(f"{printable(path)} is not empty and holds no store: give a new folder as --output")


def require_stem(run: Path, modality: str | None, *, one_input: bool) -> None:
    """Check the modality of an export against the inputs of a run's encoder, where its description
    is there.

    Args:
        run: folder of a run.
        modality: named by the user.
        one_input: whether the form has one input, so that one of several must be named.

    Raises:
        SettingsError: naming the inputs that the encoder has.
    """
    try:
        stems = list(json.loads((run / "exports" / "encoder" / "config.json").read_bytes())["stems"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # a run that is not finished: its checkpoint tells later
    if modality is not None and modality not in stems:
        raise SettingsError(f"the encoder has no stem {printable(modality)!r}, it has {', '.join(stems)}")
    if modality is None and one_input and len(stems) > 1:
        raise SettingsError(
            f"this form has one input and the encoder has {', '.join(stems)}: say which with --modality"
        )


def require_fine_tuned(path: Path) -> None:
    """Check that a path may hold a fine-tuned model.

    Raises:
        CheckpointError: if it does not.
    """
    if not any((folder / "config.json").is_file() for folder in (path / "model", path)):
        raise CheckpointError(
            f"{printable(path)} holds no fine-tuned model: give the folder that `wavespark finetune` wrote"
        )


def require_paths(paths: Sequence[str | Path] | None) -> None:
    """Check that each path exists.

    Raises:
        InputError: naming the first that does not.
    """
    for path in paths or ():
        if not Path(path).exists():
            raise InputError("not_found", f"there is nothing at {printable(path)}: check its spelling")


def require_folder(path: Path, argument: str, writer: str) -> None:
    """Check that a folder exists.

    Raises:
        InputError: naming the path and the command that writes such a folder.
    """
    if not path.is_dir():
        raise InputError(
            "not_found", f"{printable(path)}: there is no such folder. Give the {argument} that {writer} wrote"
        )
