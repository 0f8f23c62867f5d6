"""Models by name, and by description.

Parameters with one stem of one channel; floating point operations (multiply and add counted apart) of a forward pass at 128^3 with everything visible,
as `torch.utils.flop_counter` counts them on the meta device. Hiding a share of the cells saves that share, and more of the attention between cells.

| model | parameters | operations at 128^3 | cell |
|---|---|---|---|
| waveformer_tiny | 0.59 M | 37.7 G | 8 |
| waveformer_small | 5.68 M | 51.0 G | 16 |
| waveformer_base | 13.30 M | 106.9 G | 16 |
| waveformer_large | 33.26 M | 252.2 G | 16 |
| resenc_tiny | 1.37 M | 114.8 G | 8 |
| resenc_small | 27.90 M | 638.1 G | 16 |
| resenc_l | 90.30 M | 978.2 G | 32 |
| seed_waveformer_small | 4.21 M | 3.4 G | 32 |
| seed_waveformer_small_8 | 3.29 M | 20.4 G | 16 |
| seed_waveformer_base | 27.32 M | 20.5 G | 32 |
| seed_waveformer_large | 88.20 M | 65.0 G | 32 |
"""

import difflib
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from fnmatch import fnmatchcase
from typing import Any, get_type_hints

import torch

from wavespark.errors import ModelError
from wavespark.models.encoder import Encoder
from wavespark.models.resenc import ResEnc, ResEncSettings
from wavespark.models.seed_waveformer import SeedWaveFormer, SeedWaveFormerSettings
from wavespark.models.waveformer import WaveFormer, WaveFormerSettings

_KINDS: dict[str, tuple[type[Encoder], type]] = {
    "waveformer": (WaveFormer, WaveFormerSettings),
    "resenc": (ResEnc, ResEncSettings),
    "seed_waveformer": (SeedWaveFormer, SeedWaveFormerSettings),
}
_MODELS: dict[str, Any] = {
    "waveformer_tiny": WaveFormerSettings(channels=(32, 64, 128), depths=(1, 1, 2), heads=(2, 4, 8)),
    "waveformer_small": WaveFormerSettings(channels=(48, 96, 192, 384), depths=(2, 2, 2, 2), heads=(3, 6, 12, 24)),
    "waveformer_base": WaveFormerSettings(channels=(64, 128, 256, 512), depths=(2, 2, 6, 2), heads=(4, 8, 16, 32)),
    "waveformer_large": WaveFormerSettings(channels=(96, 192, 384, 768), depths=(2, 2, 8, 2), heads=(6, 12, 24, 48)),
    "resenc_tiny": ResEncSettings(channels=(16, 32, 64, 96), blocks=(1, 1, 2, 2)),
    "resenc_small": ResEncSettings(channels=(32, 64, 128, 256, 320), blocks=(1, 2, 2, 3, 3)),
    "resenc_l": ResEncSettings(),
    "seed_waveformer_small": SeedWaveFormerSettings(patch=16, dim=256, depth=4, heads=8),
    "seed_waveformer_small_8": SeedWaveFormerSettings(patch=8, dim=256, depth=4, heads=8),
    "seed_waveformer_base": SeedWaveFormerSettings(patch=16, dim=512, depth=8, heads=16),
    "seed_waveformer_large": SeedWaveFormerSettings(patch=16, dim=768, depth=12, heads=24),
}
_LARGEST, _MOST_BLOCKS = 1 << 16, 512
"""Bounds of numbers in a description: far above any model here, far below what hurts before a weight is seen."""


def list_models(pattern: str = "*") -> list[str]:
    """Names that `create_model` knows.

    >>> list_models("wave*tiny")
    ['waveformer_tiny']
    """
    return sorted(name for name in _MODELS if fnmatchcase(name, pattern))


def create_model(
    name: str,
    *,
    in_channels: int | None = None,
    stems: Mapping[str, int] | None = None,
    features_only: bool = True,
    **settings: Any,
) -> Encoder:
    """A fresh encoder.

    Args:
        name: one of `list_models()`.
        in_channels: channels of a crop, for an encoder with one stem.
        stems: channels for each modality, e.g. `{"MR": 1, "CT": 3}`; instead of `in_channels`.
        features_only: as timm has it; every encoder here returns the features of all levels and has no other head.
        settings: fields of the model's settings to change, e.g. `drop_path=0.1`; lists count as tuples.

    Raises:
        ModelError: if the name or a setting is not known or impossible, `stems` is empty, or both `in_channels` and `stems` are given.
    """
    if name not in _MODELS:
        raise ModelError(
            f"there is no model {name!r}{did_you_mean(name, list(_MODELS))}; known: {', '.join(list_models())}"
        )
    if not features_only:
        raise ModelError(
            f"{name} is an encoder, it has features only; models.segmentation_model(encoder, classes) adds a decoder"
        )
    base = _MODELS[name]
    known = [f.name for f in fields(base)]
    for key in settings:
        if key not in known:
            raise ModelError(f"{name} has no setting {key!r}{did_you_mean(key, known)}")
    if in_channels is not None and stems is not None:
        raise ModelError("give either in_channels (one stem) or stems (one a modality), not both")
    chosen = replace(base, **_checked(type(base), settings))
    encoder, _ = next(kind for kind in _KINDS.values() if kind[1] is type(base))
    return encoder(chosen, {"any": 1 if in_channels is None else in_channels} if stems is None else stems)  # type: ignore[call-arg]


def describe(encoder: Encoder) -> dict[str, Any]:
    """What makes the same network again: `kind`, `settings`, `stems`; plain values, ready for JSON."""
    kind = next(kind for kind, (cls, _) in _KINDS.items() if isinstance(encoder, cls))
    return {"kind": kind, "settings": asdict(encoder.settings), "stems": dict(encoder.stem_channels)}


def from_description(description: Mapping[str, Any], device: torch.device | str | None = None) -> Encoder:
    """The network that `describe` told of, with fresh weights.

    A description may come from anyone: numbers are bounded before anything is built. With `device="meta"` no memory is taken either.

    Raises:
        ModelError: if it does not describe an encoder of this version.
    """
    try:
        encoder, settings = _KINDS[description.get("kind", "waveformer")]
        stems = dict(description["stems"])
        chosen = settings(**_checked(settings, description["settings"]))
        if not stems or not all(isinstance(k, str) and 0 < len(k) <= 64 and _whole(v, 1) for k, v in stems.items()):
            raise ModelError("stems are a few names with channels")
        if len(stems) > 64:
            raise ModelError(f"{len(stems)} stems are more than 64")
        with torch.device(device or torch.get_default_device()):
            return encoder(chosen, stems)  # type: ignore[call-arg]
    except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"this is no description of an encoder of this version{f': {error}' if isinstance(error, ModelError) else ''}"
        ) from None


def _checked(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a settings class, each of the type that its field names, numbers within bounds.

    Raises:
        ModelError: naming the first that is not.
    """
    hints, checked = get_type_hints(cls), {}
    for key, value in values.items():
        hint = hints[key]
        if isinstance(value, list | tuple) and hint == tuple[int, ...]:
            fine = len(value) <= 16 and all(_whole(v, 0) for v in value)
            fine = fine and (key not in ("depths", "blocks") or sum(value) <= _MOST_BLOCKS)
        elif hint is int:
            fine = _whole(value, 0) and (key != "depth" or value <= _MOST_BLOCKS)
        elif hint is float:
            fine = isinstance(value, int | float) and not isinstance(value, bool)
        else:
            fine = isinstance(hint, type) and isinstance(value, hint) and len(str(value)) <= 64
        if not fine:
            raise ModelError(f"{key} = {str(value)[:80]} is not possible here")
        checked[key] = tuple(value) if isinstance(value, list) else value
    return checked


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= _LARGEST


def did_you_mean(word: str, known: list[str]) -> str:
    """`: did you mean 'x'?` for the nearest known word, or nothing.

    >>> did_you_mean("waveformer_tny", ["waveformer_tiny"])
    ": did you mean 'waveformer_tiny'?"
    """
    near = difflib.get_close_matches(word, known, 1)
    return f": did you mean {near[0]!r}?" if near else ""
