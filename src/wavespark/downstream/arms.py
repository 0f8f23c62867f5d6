"""Arms of a comparison: the encoder that each starts from, and the learning rate that it gets by
default."""

from collections.abc import Mapping
from typing import Any

from wavespark.config.downstream import FinetuneSettings
from wavespark.downstream.heads import copied, untrained
from wavespark.downstream.plain_unet import PlainEncoder, plain_encoder
from wavespark.models import Encoder, SeedWaveFormer, WaveFormer

PRETRAINED, SCRATCH, PLAIN = "pre-trained", "scratch", "plain"

FAMILIES = ("waveformer", "convolutional", "plain")

RATES: Mapping[str, tuple[float, float, float]] = {
    "segment": (5e-3, 3e-3, 3e-3),
    "detect": (5e-3, 3e-3, 3e-3),
    "classify": (1e-3, 1e-3, 1e-3),
    "regress": (1e-3, 1e-3, 1e-3),
}
"""Task -> peak learning rate for each of `FAMILIES`.

docs/LEDGER.md says which were measured (segmentation with a WaveFormer and the plain U-Net) and
which were not (all others).
"""

DENSE = frozenset({"segment", "detect"})
"""Tasks with a decoder to voxels."""

LINEAR_RATE = 2e-2
"""Peak learning rate of a linear decoder on a frozen encoder."""


def starting_encoder(arm: str, encoder: Encoder, seed: int) -> Encoder:
    """A network for one training of an arm; the given encoder is not touched.

    Args:
        arm: `PRETRAINED` (a copy), `SCRATCH` (the same network with fresh weights) or `PLAIN` (a
            plain U-Net).
        encoder: pre-trained.
        seed: random seed of fresh weights.
    """
    if arm == PRETRAINED:
        return copied(encoder)
    if arm == SCRATCH:
        return untrained(encoder, seed)
    return plain_encoder(encoder.stem_channels, seed)


def family(encoder: Encoder) -> str:
    """One of `FAMILIES`."""
    if isinstance(encoder, PlainEncoder):
        return "plain"
    return "waveformer" if isinstance(encoder, WaveFormer | SeedWaveFormer) else "convolutional"


def peak_rate(kind: str, settings: FinetuneSettings, encoder: Encoder) -> float:
    """Peak learning rate of a training: the one in the settings, or the default for the task and
    the kind of encoder.

    Args:
        kind: of the task, a key of `RATES`.
        settings: `optimizer.learning_rate` and `optimizer.plain_learning_rate`.
        encoder: network that is trained.
    """
    name = family(encoder)
    rate = settings.optimizer.plain_learning_rate if name == "plain" else settings.optimizer.learning_rate
    if rate != "auto":
        return rate
    if settings.frozen and settings.decoder == "linear" and kind in DENSE and name != "plain":
        return LINEAR_RATE
    return RATES[kind][FAMILIES.index(name)]


def default_settings(encoder: Encoder, frozen: bool = False) -> dict[str, Any]:
    """Settings that the command line takes where the user sets nothing.

    Args:
        encoder: one that was pre-trained together with its U-Net decoder is fine-tuned with that
            decoder.
        frozen: train the head only; segmentation and detection then have a linear one.
    """
    if frozen:
        return {"frozen": True, "decoder": "linear"}
    return {"decoder": "full"} if encoder.pretrained_decoder else {}
