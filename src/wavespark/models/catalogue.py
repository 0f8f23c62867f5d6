"""Models by name."""

import difflib
from collections.abc import Mapping
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from typing import Any

from wavespark.errors import ModelError
from wavespark.models.waveformer import WaveFormer, WaveFormerSettings

_MODELS: dict[str, WaveFormerSettings] = {
    "waveformer_tiny": WaveFormerSettings(channels=(32, 64, 128), depths=(1, 1, 2), heads=(2, 4, 8)),
    "waveformer_small": WaveFormerSettings(channels=(48, 96, 192, 384), depths=(2, 2, 2, 2), heads=(3, 6, 12, 24)),
}


def list_models(pattern: str = "*") -> list[str]:
    """Names that `create_model` knows.

    >>> list_models("wave*tiny")
    ['waveformer_tiny']
    """
    return sorted(name for name in _MODELS if fnmatchcase(name, pattern))


def create_model(
    name: str, *, in_channels: int | None = None, stems: Mapping[str, int] | None = None, **settings: Any
) -> WaveFormer:
    """A fresh encoder.

    Args:
        name: one of `list_models()`.
        in_channels: channels of a crop, for an encoder with one stem.
        stems: channels for each modality, e.g. `{"MR": 1, "CT": 3}`; instead of `in_channels`.
        settings: fields of `WaveFormerSettings` to change, e.g. `drop_path=0.1`.

    Raises:
        ModelError: if the name or a setting is not known, or both `in_channels` and `stems` are given.
    """
    if name not in _MODELS:
        raise ModelError(
            f"there is no model {name!r}{did_you_mean(name, list(_MODELS))}; known: {', '.join(list_models())}"
        )
    known = [f.name for f in fields(WaveFormerSettings)]
    for key in settings:
        if key not in known:
            raise ModelError(f"{name} has no setting {key!r}{did_you_mean(key, known)}")
    if in_channels is not None and stems is not None:
        raise ModelError("give either in_channels (one stem) or stems (one a modality), not both")
    return WaveFormer(replace(_MODELS[name], **settings), stems or {"any": 1 if in_channels is None else in_channels})


def did_you_mean(word: str, known: list[str]) -> str:
    """`: did you mean 'x'?` for the nearest known word, or nothing.

    >>> did_you_mean("waveformer_tny", ["waveformer_tiny"])
    ": did you mean 'waveformer_tiny'?"
    """
    near = difflib.get_close_matches(word, known, 1)
    return f": did you mean {near[0]!r}?" if near else ""
