"""Checkpoints that can be resumed, and exports that stand alone: safetensors and JSON, published whole, every file with its SHA-256."""

from typing import TYPE_CHECKING

from wavespark.lazy import lazy_exports

if TYPE_CHECKING:
    from wavespark.checkpoints.export import Export, read_export, write_export
    from wavespark.checkpoints.format import (
        Checkpoint,
        checkpoint_folders,
        newest_checkpoint,
        prune,
        read_checkpoint,
        write_checkpoint,
    )

__all__ = [
    "Checkpoint",
    "Export",
    "checkpoint_folders",
    "newest_checkpoint",
    "prune",
    "read_checkpoint",
    "read_export",
    "write_checkpoint",
    "write_export",
]

__getattr__, __dir__ = lazy_exports(__name__)
