"""Checkpoints that can be resumed, and exports that stand alone: safetensors and JSON, published
whole, every file with its SHA-256."""

from typing import TYPE_CHECKING

from wavespark.lazy import lazy_exports

if TYPE_CHECKING:
    from wavespark.checkpoints.export import Export, read_export, write_export
    from wavespark.checkpoints.folders import checkpoint_folders
    from wavespark.checkpoints.format import (
        Checkpoint,
        newest_checkpoint,
        prune,
        read_checkpoint,
        write_checkpoint,
    )

__all__ = [
    "FORMATS",
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

FORMATS = {
    "wavespark": "a folder that `ws.load_encoder` reads",
    "safetensors": "one file of weights, the settings in its header",
    "huggingface": "a folder for `AutoModel.from_pretrained(..., trust_remote_code=True)`",
    "nnunet": "ResEnc: a .pth that nnU-Net fine-tunes; others: a folder with a trainer plug-in",
    "monai": "a bundle folder; its network gives the features of every level",
    "onnx": "one file, for crops of one size",
}
"""Forms in which an encoder is exported: name -> what is written."""

__getattr__, __dir__ = lazy_exports(__name__)
