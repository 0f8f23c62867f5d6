"""A folder in the form of a MONAI bundle: `configs/metadata.json`, `configs/inference.json`,
`models/model.pt`, `docs/README.md`. Written without MONAI."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from wavespark import __version__
from wavespark.checkpoints.pickled import write_tensors
from wavespark.errors import CheckpointError
from wavespark.files import write_file, writing

_NAMES = {"configs", "models", "docs"}


def write_bundle(
    folder: Path,
    *,
    network: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    window: tuple[int, int, int],
    metadata: Mapping[str, Any],
    card: str,
) -> None:
    """Write the bundle.

    Args:
        folder: a new folder, or an earlier bundle.
        network: `_target_` and arguments with which `configs/inference.json` builds the network.
        weights: its state.
        window: voxels of a sliding window.
        metadata: `task`, `network_data_format` and what else tells what it is for.
        card: text of `docs/README.md`.

    Raises:
        CheckpointError: if the folder holds anything else.
        StoreError: if the disk is full or cannot be written.
    """
    if folder.exists() and not (folder.is_dir() and {p.name for p in folder.iterdir()} <= _NAMES):
        raise CheckpointError(f"{folder} is there and is no bundle: give a folder that is not there yet")
    with writing(folder):
        for name in sorted(_NAMES):
            (folder / name).mkdir(parents=True, exist_ok=True)
    inference = {
        "imports": ["$import torch", "$import wavespark"],
        "bundle_root": ".",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": dict(network),
        "network": "$@network_def.to(@device)",
        "checkpoint": "$@bundle_root + '/models/model.pt'",
        "load": "$@network.load_state_dict(torch.load(@checkpoint, map_location=@device, weights_only=True))",
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(window),
            "sw_batch_size": 1,
            "overlap": 0.5,
            "mode": "gaussian",
        },
    }
    about = {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
        "version": __version__,
        "changelog": {__version__: "exported by wavespark"},
        "monai_version": "1.6.0",
        "required_packages_version": {"wavespark": __version__},
        "copyright": "see the licences of the data that it was trained on",
        **metadata,
    }
    write_file(folder / "configs" / "inference.json", json.dumps(inference, indent=2).encode())
    write_file(folder / "configs" / "metadata.json", json.dumps(about, indent=2).encode())
    write_file(folder / "docs" / "README.md", card.encode())
    write_tensors(folder / "models" / "model.pt", {name: t.detach().cpu().contiguous() for name, t in weights.items()})
