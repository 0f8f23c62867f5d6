"""Weights of another encoder as the beginning of a run."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from wavespark.checkpoints import newest_checkpoint, read_export
from wavespark.engine.encoders.load import DECODER
from wavespark.errors import CheckpointError

_SHOWN = 8


def initialise(encoder: nn.Module, path: str, partial: bool) -> str:
    """Copies weights into the encoder and returns a sentence that accounts for every key.

    Args:
        encoder: gets the weights.
        path: an export, a run (its newest checkpoint) or a safetensors file.
        partial: take what fits.

    Raises:
        CheckpointError: if there are no such weights, none fits, or (not `partial`) one of them
            does not.
    """
    weights = encoder_weights(Path(path))
    own = encoder.state_dict()
    fits = {k: t for k, t in weights.items() if k in own and own[k].shape == t.shape}
    missing = [k for k in own if k not in weights]
    unknown = [k for k in weights if k not in own]
    shaped = [f"{k} {tuple(weights[k].shape)} for {tuple(own[k].shape)}" for k in weights if k in own and k not in fits]
    report = (
        f"{len(fits)} of {len(own)} weights of the encoder from {path}"
        f"{_list('not in the file', missing)}{_list('not in the encoder', unknown)}{_list('of another shape', shaped)}"
    )
    if not fits or (not partial and len(fits) < max(len(own), len(weights))):
        raise CheckpointError(
            f"model.init: only {report}. Use the model that they belong to, or model.init_partial=true to take what fits"
        )
    encoder.load_state_dict(fits, strict=False)
    return f"begins with {report}"


def encoder_weights(path: Path) -> dict[str, Tensor]:
    """The encoder's weights by name.

    Raises:
        CheckpointError: if the path holds none.
    """
    if path.is_file():
        try:
            return _of_export(path)
        except CheckpointError:  # weights without a description, as other programs save them
            pass
        try:
            return {k.removeprefix("encoder."): t for k, t in load_file(path).items()}
        except (SafetensorError, OSError, ValueError):
            raise CheckpointError(
                f"{path} is no safetensors file: `wavespark import {path} --output DIR` makes one of a .pt or .pth"
            ) from None
    for folder in (path / "exports" / "encoder", path):
        if (folder / "model.safetensors").is_file():
            return _of_export(folder)
    if (path / "weights.safetensors").is_file():  # what `wavespark import` writes where no encoder fits
        return encoder_weights(path / "weights.safetensors")
    checkpoint = newest_checkpoint(path / "checkpoints", damaged=lambda text: None)
    if checkpoint is None:
        raise CheckpointError(f"{path} is no export, no run with a checkpoint and no safetensors file")
    return {k.removeprefix("encoder."): t for k, t in checkpoint.model.items() if k.startswith("encoder.")}


def _of_export(path: Path) -> dict[str, Tensor]:
    """Without the segmentation decoder that may travel with an encoder."""
    return {k: t for k, t in read_export(path).weights.items() if not k.startswith(DECODER)}


def _list(title: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"; {len(names)} {title}: {', '.join(names[:_SHOWN])}{more}"
