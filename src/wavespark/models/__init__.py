"""Encoders on visible cells, and the decoder of masked pre-training."""

from wavespark.models.catalogue import create_model, list_models
from wavespark.models.decoder import DecoderSettings, Densify, LightDecoder
from wavespark.models.spark import SparK
from wavespark.models.waveformer import WaveFormer, WaveFormerSettings

__all__ = [
    "DecoderSettings",
    "Densify",
    "LightDecoder",
    "SparK",
    "WaveFormer",
    "WaveFormerSettings",
    "create_model",
    "list_models",
]
