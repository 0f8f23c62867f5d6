"""Encoders on visible cells, the decoder of masked pre-training, decoders for segmentation."""

from wavespark.models.catalogue import create_model, describe, from_description, list_models
from wavespark.models.decoder import DecoderSettings, Densify, LightDecoder
from wavespark.models.encoder import Encoder
from wavespark.models.segmentation import Segmentation, segmentation_model
from wavespark.models.spark import SparK
from wavespark.models.waveformer import WaveFormer, WaveFormerSettings

__all__ = [
    "DecoderSettings",
    "Densify",
    "Encoder",
    "LightDecoder",
    "Segmentation",
    "SparK",
    "WaveFormer",
    "WaveFormerSettings",
    "create_model",
    "describe",
    "from_description",
    "list_models",
    "segmentation_model",
]
