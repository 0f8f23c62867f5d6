"""An encoder out of a run, and back from its export."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from wavespark import __version__
from wavespark.checkpoints import Export, newest_checkpoint, read_export, write_export
from wavespark.checkpoints.export import FORMAT
from wavespark.config import PretrainSettings
from wavespark.errors import CheckpointError, ModelError
from wavespark.files import write_file, writing
from wavespark.models import Encoder, describe, from_description
from wavespark.progress import Log, ignore_log

DECODER = "decoder."
"""Start of the names of a segmentation decoder that was pre-trained with the encoder, in an
export."""


def load_encoder(path: str | Path) -> Encoder:
    """Load the encoder of an export.

    Args:
        path: folder of an export, safetensors file, or folder of a run (its `exports/encoder` is
            taken).

    Returns:
        The encoder, in evaluation mode. `encoder.preparation` holds the fingerprint and settings of
        the preparation that its input needs.

    Example:
        encoder = ws.load_encoder("run")
        levels = encoder(crop_BCDHW, modality="MR")  # list of [B, C, D, H, W], finest first

    Raises:
        CheckpointError: if there is no export, it is damaged, or a weight does not fit.
    """
    folder = Path(path)
    if (folder / "exports" / "encoder").is_dir():
        folder = folder / "exports" / "encoder"
    export = read_export(folder)
    try:
        described, stems = export.config["model"], export.config["stems"]
        # No memory until the weights are seen to fit: the description may come from anyone.
        encoder = from_description({**described, "stems": stems}, device="meta")
        preparation = dict(export.config["preparation"])
    except (KeyError, TypeError, ValueError) as error:
        why = f": {error}" if isinstance(error, ModelError) else ""
        raise CheckpointError(f"{folder}: config.json does not describe an encoder of this version{why}") from None
    own, found = encoder.state_dict(), dict(export.weights)
    if export.config.get("decoder") == "unet":
        names = [name for name in found if name.startswith(DECODER)]
        encoder.pretrained_decoder = {name.removeprefix(DECODER): found.pop(name) for name in names}
    wrong = sorted(set(own) ^ set(found))
    wrong += [k for k in own if k in found and (own[k].shape, own[k].dtype) != (found[k].shape, found[k].dtype)]
    if wrong:
        raise CheckpointError(
            f"{folder}: {len(wrong)} weight(s) do not fit the model of config.json: {', '.join(wrong[:8])}"
        )
    encoder.load_state_dict(found, assign=True)
    encoder.preparation = preparation
    return encoder.eval()


def export_run(
    folder: Path, encoder: Encoder, *, name: str, preparation: Mapping[str, Any], provenance: Mapping[str, Any]
) -> None:
    """Writes the encoder with what is needed to use it."""
    write_export(
        folder, Export(weights=_weights(encoder), config=describe_encoder(encoder, name, preparation, provenance))
    )


def export_checkpoint(run: Path, output: Path, format: str, log: Log = ignore_log) -> int:
    """Writes the encoder of a run's newest checkpoint and returns its step.

    Args:
        run: the run's folder; it may still be going.
        output: a folder for `wavespark`, a file for `safetensors`.
        format: `wavespark`, or `safetensors` (one file, the description as JSON in its header under
            `wavespark`).
        log: called with the names of damaged checkpoints that were passed over.

    Raises:
        CheckpointError: if there is no checkpoint, or all are damaged.
    """
    _, export, step = newest_encoder(run, log)
    if format == "safetensors":
        with writing(output):
            output.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: t.contiguous() for name, t in export.weights.items()}
        write_file(output, save(tensors, metadata={"wavespark": json.dumps(export.config)}))
    else:
        write_export(output, export)
    return step


def newest_encoder(run: Path, log: Log = ignore_log) -> tuple[Encoder, Export, int]:
    """The encoder of a run's newest checkpoint, what is exported of it, and its step; arguments and
    errors as `export_checkpoint`."""
    checkpoint = newest_checkpoint(run / "checkpoints", damaged=lambda text: log(f"passed over: {text}"))
    if checkpoint is None:
        raise CheckpointError(f"{run} has no checkpoint: give a folder that `wavespark pretrain` wrote")
    try:
        settings = PretrainSettings.model_validate(checkpoint.state["settings"])
        encoder = settings.encoder(dict(checkpoint.state["stems"]))
        encoder.load_state_dict(
            {name.removeprefix("encoder."): t for name, t in checkpoint.model.items() if name.startswith("encoder.")}
        )
        if settings.decoder.kind == "unet":
            prefix = "decoder.decoder."
            encoder.pretrained_decoder = {
                name.removeprefix(prefix): t for name, t in checkpoint.model.items() if name.startswith(prefix)
            }
        preparation = {"fingerprint": checkpoint.state["store"], "settings": checkpoint.state["preparation"]}
        provenance = {
            "steps": checkpoint.step,
            "volumes": checkpoint.state["volumes"],
            "normalised_loss": checkpoint.state["held_out"],
            "crop": list(settings.data.crop),
            "hidden_ratio": settings.mask.ratio,
        }
    except (KeyError, RuntimeError, TypeError, ValueError):
        raise CheckpointError(f"{run}: the checkpoint of step {checkpoint.step} is not of this version") from None
    encoder.preparation = preparation
    config = describe_encoder(encoder, settings.model.name, preparation, provenance)
    return encoder.eval(), Export(weights=_weights(encoder), config=config), checkpoint.step


def _weights(encoder: Encoder) -> dict[str, Tensor]:
    """Those of the encoder, and of the segmentation decoder if it was pre-trained with it."""
    decoder = {DECODER + name: t for name, t in encoder.pretrained_decoder.items()}
    return {**encoder.state_dict(), **decoder}


def describe_encoder(
    encoder: Encoder, name: str, preparation: Mapping[str, Any], provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Describe an encoder for an export."""
    described = describe(encoder)
    return {
        "format": FORMAT,
        "wavespark": __version__,
        "model": {"name": name, "kind": described["kind"], "settings": described["settings"]},
        "stems": described["stems"],
        **({"decoder": "unet"} if encoder.pretrained_decoder else {}),
        "strides": list(encoder.strides),
        "channels": list(encoder.channels),
        "cell": list(encoder.cell),
        "preparation": dict(preparation),
        "provenance": dict(provenance),
    }
