"""The one place that writes a pickle: peers read `.pth` and `.pt` files of tensors, with
`torch.load(weights_only=True)`."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from wavespark.files import write_file, writing


def write_tensors(path: Path, document: Mapping[str, Any]) -> None:
    """Write tensors, numbers, words and lists of them as a file that
    `torch.load(weights_only=True)` accepts.

    Raises:
        StoreError: if the disk is full or cannot be written.
    """
    content = io.BytesIO()
    torch.save(dict(document), content)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, content.getvalue())
