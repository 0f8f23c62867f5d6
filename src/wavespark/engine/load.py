"""An encoder out of a run, and back from its export."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wavespark.checkpoints import Export, read_export, write_export
from wavespark.errors import CheckpointError, ModelError
from wavespark.models import WaveFormer, WaveFormerSettings

FORMAT = "wavespark encoder 1"


def load_encoder(path: str | Path) -> WaveFormer:
    """The encoder of an export (or of a run, by its `exports/encoder`), in evaluation mode; `.preparation` is the recipe that its input needs.

    Raises:
        CheckpointError: if there is no export, it is damaged, or a weight does not fit.
    """
    folder = Path(path)
    if (folder / "exports" / "encoder").is_dir():
        folder = folder / "exports" / "encoder"
    export = read_export(folder)
    try:
        settings = WaveFormerSettings(**{k: tuple(v) if isinstance(v, list) else v for k, v in export.config["model"]["settings"].items()})
        encoder = WaveFormer(settings, export.config["stems"])
        preparation = dict(export.config["preparation"])
    except (KeyError, TypeError, ValueError, AttributeError, ModelError):
        raise CheckpointError(f"{folder}: config.json does not describe an encoder of this version") from None
    own, found = encoder.state_dict(), export.weights
    wrong = sorted(set(own) ^ set(found)) + [k for k in own if k in found and own[k].shape != found[k].shape]
    if wrong:
        raise CheckpointError(f"{folder}: {len(wrong)} weight(s) do not fit the model of config.json: {', '.join(wrong[:8])}")
    encoder.load_state_dict(dict(found))
    encoder.preparation = preparation
    return encoder.eval()


def export_run(folder: Path, encoder: WaveFormer, *, name: str, preparation: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    """Writes the encoder with what is needed to use it."""
    config = {
        "format": FORMAT,
        "model": {"name": name, "settings": asdict(encoder.settings)},
        "stems": dict(encoder.stem_channels),
        "strides": list(encoder.strides),
        "channels": list(encoder.channels),
        "cell": list(encoder.cell),
        "preparation": dict(preparation),
        "provenance": dict(provenance),
    }
    write_export(folder, Export(weights=encoder.state_dict(), config=config))
