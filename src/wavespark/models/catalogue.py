"""Models by name, and by description.

Parameters with one stem of one channel; floating point operations (multiply and add counted apart)
of a forward pass at 128^3 with everything visible, as `torch.utils.flop_counter` counts them on the
meta device. Hiding a share of the cells saves that share, and more of the attention between cells.

| model | parameters | operations at 128^3 | cell |
|---|---|---|---|
| waveformer_tiny | 0.59 M | 37.7 G | 8 |
| waveformer_small | 5.68 M | 51.0 G | 16 |
| waveformer_base | 13.30 M | 106.9 G | 16 |
| waveformer_large | 33.26 M | 252.2 G | 16 |
| resenc_tiny | 1.37 M | 114.8 G | 8 |
| resenc_small | 27.90 M | 638.1 G | 16 |
| resenc_l | 90.30 M | 978.2 G | 32 |
| isotropic_small | 4.21 M | 3.4 G | 32 |
| isotropic_small_8 | 3.29 M | 20.4 G | 16 |
| isotropic_base | 27.32 M | 20.5 G | 32 |
| isotropic_large | 88.20 M | 65.0 G | 32 |
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from wavespark.errors import ModelError
from wavespark.models.encoder import Encoder
from wavespark.models.isotropic import IsotropicWaveFormer
from wavespark.models.resenc import ResEnc
from wavespark.models.settings import (
    Description,
    IsotropicSettings,
    ResEncSettings,
    Setting,
    WaveFormerSettings,
    checked_values,
    is_whole,
    model_settings,
)
from wavespark.models.waveformer import WaveFormer

_KINDS: dict[str, tuple[type[Encoder], type]] = {
    "waveformer": (WaveFormer, WaveFormerSettings),
    "resenc": (ResEnc, ResEncSettings),
    "isotropic": (IsotropicWaveFormer, IsotropicSettings),
}
_FORMER_KINDS = {"seed_waveformer": "isotropic"}
"""Kinds that older exports and checkpoints name."""


def create_model(
    name: str,
    *,
    in_channels: int | None = None,
    stems: Mapping[str, int] | None = None,
    **settings: Setting,
) -> Encoder:
    """Build an encoder with fresh weights.

    Args:
        name: one of `list_models()`.
        in_channels: channels of a crop, for an encoder with one stem.
        stems: channels for each modality, e.g. `{"MR": 1, "CT": 3}`; instead of `in_channels`.
        settings: fields of the model's settings to change, e.g. `drop_path=0.1`; lists count as
            tuples.

    Returns:
        An encoder that maps crops to the features of all its levels, finest first;
        `models.segmentation_model` adds a decoder.

    Example:
        >>> create_model("waveformer_tiny", in_channels=1).channels
        (32, 64, 128)

    Raises:
        ModelError: if the name or a setting is not known or impossible, `stems` is empty, or both
            `in_channels` and `stems` are given.
    """
    chosen = model_settings(name, **settings)
    if in_channels is not None and stems is not None:
        raise ModelError("give either in_channels (one stem) or stems (one a modality), not both")
    encoder = next(encoder for encoder, kind in _KINDS.values() if kind is type(chosen))
    return encoder(chosen, {"any": 1 if in_channels is None else in_channels} if stems is None else stems)  # type: ignore[call-arg]


def describe(encoder: Encoder) -> Description:
    """Return the description from which `from_description` makes the same network, in plain
    values."""
    kind = next(kind for kind, (cls, _) in _KINDS.items() if isinstance(encoder, cls))
    return {"kind": kind, "settings": asdict(encoder.settings), "stems": dict(encoder.stem_channels)}


def from_description(description: Mapping[str, object], device: torch.device | str | None = None) -> Encoder:
    """Build the network that `describe` described, with fresh weights.

    A description may come from anyone: numbers are bounded before anything is built. With
        `device="meta"` no memory is taken either.

    Raises:
        ModelError: if it does not describe an encoder of this version.
    """
    try:
        given: dict[str, Any] = {"kind": "waveformer", **description}
        encoder, settings = _KINDS[_FORMER_KINDS.get(given["kind"], given["kind"])]
        stems = dict(given["stems"])
        chosen = settings(**checked_values(settings, given["settings"]))
        if not stems or not all(isinstance(k, str) and 0 < len(k) <= 64 and is_whole(v, 1) for k, v in stems.items()):
            raise ModelError("stems are a few names with channels")
        if len(stems) > 64:
            raise ModelError(f"{len(stems)} stems are more than 64")
        with torch.device(device or torch.get_default_device()):
            return encoder(chosen, stems)  # type: ignore[call-arg]
    except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"this is no description of an encoder of this version{f': {error}' if isinstance(error, ModelError) else ''}"
        ) from None
