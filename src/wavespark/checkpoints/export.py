"""An export: the encoder alone, self-describing.

`model.safetensors`, `config.json` (model, stems, preparation recipe, provenance), a card.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from wavespark import __version__
from wavespark.checkpoints.format import MANIFEST, manifest, read_checked
from wavespark.errors import CheckpointError
from wavespark.files import write_folder, writing

FORMAT = "wavespark encoder 1"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
_NAMES = {WEIGHTS, CONFIG, CARD, MANIFEST}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Export:
    """Weights and description of an encoder."""

    weights: Mapping[str, Tensor]
    config: Mapping[str, Any]


def write_export(folder: Path, export: Export) -> None:
    """Write the folder in one piece; an earlier export there is replaced.

    Raises:
        CheckpointError: if the folder holds anything else: it is never deleted.
        StoreError: if the disk is full or cannot be written.
    """
    folder = folder.resolve()
    if folder.exists() and not (folder.is_dir() and {p.name for p in folder.iterdir()} <= _NAMES):
        raise CheckpointError(
            f"{folder} is there and is no export, so it is not replaced: give a folder that is not there yet"
        )
    files = {
        WEIGHTS: save(
            {name: t.detach().cpu().contiguous() for name, t in export.weights.items()}, metadata={"format": "pt"}
        ),
        CONFIG: json.dumps(export.config, indent=2).encode(),
        CARD: card(export.config).encode(),
    }
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    write_folder(folder, files | {MANIFEST: manifest(files)})


def read_export(folder: Path) -> Export:
    """Read an export and check it; a single safetensors file with its description in the header has
    no checksum.

    Raises:
        CheckpointError: if there is none or a file is damaged.
    """
    if folder.is_file() and folder.suffix == ".safetensors":
        return _read_single(folder)
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is not an export: give the folder that `wavespark export` or a run (RUN/exports/encoder) wrote"
        )
    check_format(folder, FORMAT)
    files = read_checked(folder, (WEIGHTS, CONFIG))
    try:
        config = json.loads(files[CONFIG])
        if not isinstance(config, dict):
            raise ValueError
        return Export(weights=load(files[WEIGHTS]), config=config)
    except (SafetensorError, ValueError, RecursionError):
        raise CheckpointError(f"{folder} was not written by this version of wavespark") from None


def check_format(folder: Path, expected: str) -> None:
    """Refuse a folder whose config.json names another format, before its checksums are looked at.

    Raises:
        CheckpointError: naming both formats; a file that is damaged or names none is left to
            `read_checked`.
    """
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        name, version = config.get("format"), config.get("wavespark")
    except (OSError, ValueError, AttributeError, RecursionError):
        return
    if isinstance(name, str) and name != expected:
        writer = f", written by wavespark {str(version)[:40]!r}" if version else ""
        raise CheckpointError(
            f"{folder / CONFIG} is of the format {name[:80]!r}{writer}; wavespark {__version__} reads {expected!r}. "
            "Read it with the version that wrote it, or export it again"
        )


def card(config: Mapping[str, Any]) -> str:
    """Return the text of an export's README.md."""
    run = config["provenance"]
    what = "An encoder for 3-D head CT and MR, pre-trained by masked reconstruction on visible cells only."
    if run.get("imported"):
        what = "An encoder for 3-D volumes."
        origin = "imported from weights that another program made; how they were trained and on which preparation is not known here"
    else:
        origin = (
            f"trained for {run['steps']} steps on {run['volumes']} volume(s); normalised loss on held-out crops {run['normalised_loss']} "
            "(1 = predicting the mean)"
        )
    stems = ", ".join(f"{name} ({count} channel(s))" for name, count in config["stems"].items())
    return f"""# {config["model"]["name"]}, {"for" if run.get("imported") else "pre-trained with"} wavespark

{what}

```python
import wavespark as ws
encoder = ws.load_encoder("PATH of this folder")
levels = encoder(crop)          # crop: float32 [B, C, D, H, W], prepared by the recipe in config.json; list of [B, C, D, H, W], finest first
```

- stems: {stems}; strides {config["strides"]}, channels {config["channels"]}, cell {config["cell"]}
- {origin}
- preparation: recipe fingerprint `{config["preparation"]["fingerprint"]}`, settings in config.json

What this does not show: nothing was tested on a clinical task. Not for diagnosis. The licence of the data that it was trained on may restrict its use.
"""


def _read_single(file: Path) -> Export:
    try:
        with safe_open(file, "pt") as tensors:
            config = json.loads((tensors.metadata() or {})["wavespark"])
            weights = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
        if not isinstance(config, dict):
            raise ValueError
    except (SafetensorError, OSError, ValueError, KeyError, RecursionError):
        raise CheckpointError(
            f"{file} is no encoder of wavespark: give what `wavespark export --format safetensors` wrote, or bring weights in with `wavespark import`"
        ) from None
    return Export(weights=weights, config=config)
