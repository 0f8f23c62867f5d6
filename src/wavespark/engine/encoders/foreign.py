"""An encoder of this package out of weights that another program saved."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from wavespark.checkpoints import Export, write_export
from wavespark.checkpoints.foreign import read_foreign
from wavespark.engine.encoders.load import describe_encoder
from wavespark.errors import CheckpointError, ModelError
from wavespark.files import write_folder, writing
from wavespark.models import Encoder, create_model, list_models

_CHANNELS = (3, 4, 2)
_COPIES = (".all_modules.", "decoder.encoder.")
"""nnU-Net registers the same weights under several names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """What became of every key of a foreign file."""

    found: int
    """Weights in the file."""
    found_under: str
    model: str
    """The encoder that fits best, empty if none does."""
    channels: int
    """Of its stem."""
    whole: bool
    """Every weight of the encoder was found: the output is an export."""
    used: tuple[str, ...]
    copies: tuple[str, ...]
    """Second names of weights that were used."""
    unused: tuple[str, ...]
    """In the file, not in the encoder."""
    missing: tuple[str, ...]
    """In the encoder, not in the file."""
    other_shapes: tuple[str, ...]
    elsewhere: tuple[str, ...]
    """Other groups of tensors in the file that were not looked at."""


def import_weights(file: Path, output: Path, model: str = "") -> Imported:
    """Makes an export of foreign weights; where they are no whole encoder of this package, plain `weights.safetensors`.

    Args:
        file: .pt, .pth, .ckpt or .safetensors.
        output: a folder that is not there yet, or holds an earlier export.
        model: which encoder they are for; empty: the one of `list_models()` that most of them fit.

    Raises:
        CheckpointError: if the file is refused (see `read_foreign`), or the folder holds anything else.
        ModelError: if there is no such model.
    """
    if model and model not in list_models():
        raise ModelError(f"there is no model {model!r}; known: {', '.join(list_models())}")
    with writing(output):
        output.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".import-", dir=output.absolute().parent) as scratch:
        foreign = read_foreign(file, Path(scratch))
        encoder, name, channels, fits = _nearest(dict(foreign.weights), [model] if model else list_models())
        own = encoder.state_dict()
        taken = {source for source, _ in fits.values()}
        named = {_own_name(k): k for k in foreign.weights}
        shapes = [k for k in own if k in named and k not in fits]
        rest = [k for k in foreign.weights if k not in taken and _own_name(k) not in shapes]
        report = Imported(
            found=len(foreign.weights),
            found_under=foreign.found_under,
            model=name if fits else "",
            channels=channels if fits else 0,
            whole=bool(fits) and len(fits) == len(own),
            used=tuple(sorted(taken)),
            copies=tuple(k for k in rest if fits and any(c in k for c in _COPIES)),
            unused=tuple(k for k in rest if not (fits and any(c in k for c in _COPIES))),
            missing=tuple(k for k in own if k not in fits and k not in shapes),
            other_shapes=tuple(
                f"{named[k]} is {tuple(foreign.weights[named[k]].shape)}, not {tuple(own[k].shape)}" for k in shapes
            ),
            elsewhere=foreign.left,
        )
        if report.whole:
            # In the type of the encoder: half precision of a file is no reason to compute in it.
            weights = {k: t.to(own[k].dtype) for k, (_, t) in fits.items()}
            provenance = {"imported": True, "found_under": foreign.found_under}
            preparation = {"fingerprint": "unknown", "settings": {}}
            write_export(
                output, Export(weights=weights, config=describe_encoder(encoder, name, preparation, provenance))
            )
        else:
            _write_plain(output, dict(foreign.weights))
    return report


def _nearest(weights: dict[str, Tensor], names: list[str]) -> tuple[Encoder, str, int, dict[str, tuple[str, Tensor]]]:
    """The encoder that most of the weights fit; of those, the smallest."""

    def merit(fit: tuple[Encoder, str, int, dict[str, tuple[str, Tensor]]]) -> tuple[int, int]:
        return len(fit[3]), -len(fit[0].state_dict())

    best = max((_fit(weights, name, 1) for name in names), key=merit)
    return max((best, *(_fit(weights, best[1], channels) for channels in _CHANNELS)), key=merit)


def _fit(
    weights: dict[str, Tensor], name: str, channels: int
) -> tuple[Encoder, str, int, dict[str, tuple[str, Tensor]]]:
    """The encoder, and for each of its weights that is there: under which name, and the weight."""
    with torch.device("meta"):
        encoder = create_model(name, in_channels=channels)
    own = encoder.state_dict()
    named = {_own_name(k): k for k in weights}
    fits = {k: (named[k], weights[named[k]]) for k in own if k in named and weights[named[k]].shape == own[k].shape}
    return encoder, name, channels, fits


def _own_name(key: str) -> str:
    """As the encoder alone calls it."""
    return key.removeprefix("encoder.")


def _write_plain(output: Path, weights: dict[str, Tensor]) -> None:
    if output.exists() and not (
        output.is_dir() and {p.name for p in output.iterdir()} <= {"weights.safetensors", "names.json"}
    ):
        raise CheckpointError(
            f"{output} is there and is no earlier import, so it is not replaced: give a folder that is not there yet"
        )
    shapes = {name: list(t.shape) for name, t in weights.items()}
    write_folder(output, {"weights.safetensors": save(weights), "names.json": json.dumps(shapes, indent=1).encode()})
