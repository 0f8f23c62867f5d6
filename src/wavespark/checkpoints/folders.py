"""Folders of the checkpoints of a run, found without loading torch."""

import re
from pathlib import Path

_NAME = re.compile(r"step_(\d{8})")


def checkpoint_folders(checkpoints: Path) -> list[Path]:
    """Return the folders of complete checkpoints, newest first."""
    if not checkpoints.is_dir():
        return []
    return sorted(
        (p for p in checkpoints.iterdir() if _NAME.fullmatch(p.name) and p.is_dir()), key=lambda p: p.name, reverse=True
    )
