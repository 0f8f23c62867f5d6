"""Import of weights that another program saved, or of this package's own, as an encoder of this
package."""

import json
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from wavespark.checkpoints import Export, write_export
from wavespark.checkpoints.export import CONFIG, FORMAT, WEIGHTS
from wavespark.checkpoints.foreign import read_foreign
from wavespark.engine.encoders.load import DECODER, describe_encoder
from wavespark.errors import CheckpointError, ModelError
from wavespark.files import write_folder, writing
from wavespark.models import Encoder, create_model, from_description, list_models

_CHANNELS = (1, 3, 4, 2)
_STEM = re.compile(r"stems\.([^.]+)\.")
_COPIES = (".all_modules.", "decoder.encoder.")
"""nnU-Net registers the same weights under several names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """Fate of every key of a foreign file."""

    found: int
    """Weights in the file."""
    found_under: str
    model: str
    """Name of the encoder that fits best; empty if none does."""
    channels: int
    """Channels of its first stem."""
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
    stems: Mapping[str, int] = field(default_factory=dict)
    """Channels of each stem."""


def import_weights(file: Path, output: Path, model: str = "") -> Imported:
    """Write an export of foreign weights; where they are no whole encoder of this package, plain
    `weights.safetensors`.

    Weights of an export of this package keep its model, stems, preparation and provenance.

    Args:
        file: .pt, .pth, .ckpt or .safetensors.
        output: a folder that is not there yet, or holds an earlier export.
        model: which encoder they are for; empty: the one of `list_models()` that most of them fit.

    Raises:
        CheckpointError: if the file is refused (see `read_foreign`), no weight in it fits an
            encoder, or the folder holds anything else.
        ModelError: if there is no such model.
    """
    if model and model not in list_models():
        raise ModelError(f"there is no model {model!r}; known: {', '.join(list_models())}")
    with writing(output):
        output.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".import-", dir=output.absolute().parent) as scratch:
        foreign = read_foreign(file, Path(scratch))
        config = None if model else _own_config(file)
        encoder, name, fits = _nearest(dict(foreign.weights), [model] if model else list_models(), config)
        if not fits:
            _check_plain(output)
            raise CheckpointError(_nothing_fits(file, foreign.weights, model))
        own = encoder.state_dict()
        taken = {source for source, _ in fits.values()}
        named = {_own_name(k): k for k in foreign.weights}
        shapes = [k for k in own if k in named and k not in fits]
        rest = [k for k in foreign.weights if k not in taken and _own_name(k) not in shapes]
        report = Imported(
            found=len(foreign.weights),
            found_under=foreign.found_under,
            model=name,
            channels=next(iter(encoder.stem_channels.values())),
            stems=dict(encoder.stem_channels),
            whole=len(fits) == len(own),
            used=tuple(sorted(taken)),
            copies=tuple(k for k in rest if any(c in k for c in _COPIES)),
            unused=tuple(k for k in rest if not any(c in k for c in _COPIES)),
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
            if config is not None and config.get("decoder") == "unet":
                weights |= {k: t for k, t in foreign.weights.items() if k.startswith(DECODER)}
            described = config or describe_encoder(encoder, name, preparation, provenance)
            write_export(output, Export(weights=weights, config=described))
        else:
            _write_plain(output, dict(foreign.weights))
    return report


Fits = dict[str, tuple[str, Tensor]]
"""Name of a weight of the encoder -> its name in the file, and the weight."""


def _nearest(
    weights: dict[str, Tensor], names: list[str], config: Mapping[str, Any] | None
) -> tuple[Encoder, str, Fits]:
    """Find the encoder that most of the weights fit; of those, the smallest."""
    if config is not None:
        with suppress(ModelError, KeyError, TypeError, ValueError):
            encoder = from_description({**config["model"], "stems": config["stems"]}, device="meta")
            return encoder, str(config["model"]["name"]), _fits(weights, encoder)

    def merit(candidate: tuple[Encoder, str]) -> tuple[int, int]:
        return len(_fits(weights, candidate[0])), -len(candidate[0].state_dict())

    best = max(((_fresh(name, {"any": 1}), name) for name in names), key=merit)
    named = dict.fromkeys(m[1] for m in map(_STEM.match, map(_own_name, weights)) if m) or {"any": None}
    stems = {stem: _channels(weights, best[1], stem) for stem in named}
    best = max((best, (_fresh(best[1], stems), best[1])), key=merit)
    return *best, _fits(weights, best[0])


def _fresh(name: str, stems: Mapping[str, int]) -> Encoder:
    with torch.device("meta"):
        single = list(stems) == ["any"]
        return create_model(name, in_channels=stems["any"]) if single else create_model(name, stems=dict(stems))


def _channels(weights: dict[str, Tensor], name: str, stem: str) -> int:
    """Channels of a stem: those with which most of its weights fit."""
    # Beside another one: a single stem of a ResEnc goes without its name in the names of weights.
    others = {} if stem == "any" else {"other": 1}
    return max(_CHANNELS, key=lambda c: (len(_fits(weights, _fresh(name, {stem: c, **others}))), -c))


def _fits(weights: dict[str, Tensor], encoder: Encoder) -> Fits:
    own = encoder.state_dict()
    named = {_own_name(k): k for k in weights}
    return {k: (named[k], weights[named[k]]) for k in own if k in named and weights[named[k]].shape == own[k].shape}


def _own_config(file: Path) -> dict[str, Any] | None:
    """The description that lies beside or in weights of this package; None if there is none."""
    if file.suffix != ".safetensors":
        return None
    try:
        if file.name == WEIGHTS and (file.parent / CONFIG).is_file():
            config = json.loads((file.parent / CONFIG).read_bytes())
        else:
            with safe_open(file, "pt") as tensors:
                config = json.loads((tensors.metadata() or {})["wavespark"])
    except (SafetensorError, OSError, ValueError, KeyError, RecursionError):
        return None
    return config if isinstance(config, dict) and config.get("format") == FORMAT else None


def _nothing_fits(file: Path, weights: Mapping[str, Tensor], model: str) -> str:
    some = ", ".join(repr(name[:60]) for name in list(weights)[:3])
    which = model or f"any of {', '.join(list_models())}"
    return (
        f"{file}: none of its {len(weights)} weight(s) has the name and shape of one of {which}; the first are called {some}. "
        "Nothing was written"
    )


def _own_name(key: str) -> str:
    """Return the name that the encoder alone uses."""
    return key.removeprefix("encoder.")


def _check_plain(output: Path) -> None:
    if output.exists() and not (
        output.is_dir() and {p.name for p in output.iterdir()} <= {"weights.safetensors", "names.json"}
    ):
        raise CheckpointError(
            f"{output} is there and is no earlier import, so it is not replaced: give a folder that is not there yet"
        )


def _write_plain(output: Path, weights: dict[str, Tensor]) -> None:
    _check_plain(output)
    shapes = {name: list(t.shape) for name, t in weights.items()}
    write_folder(output, {"weights.safetensors": save(weights), "names.json": json.dumps(shapes, indent=1).encode()})
