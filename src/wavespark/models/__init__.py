"""Encoders on visible cells, the decoder of masked pre-training, decoders for segmentation."""

from wavespark.models.catalogue import create_model, describe, from_description, list_models
from wavespark.models.decoder import DecoderSettings, LightDecoder
from wavespark.models.densify import Densify
from wavespark.models.encoder import Encoder
from wavespark.models.resenc import ResEnc, ResEncSettings, from_nnunet
from wavespark.models.seed_waveformer import SeedWaveFormer, SeedWaveFormerSettings
from wavespark.models.segmentation import Segmentation, segmentation_model
from wavespark.models.spark import SparK
from wavespark.models.spark_encoder import SparKEncoder
from wavespark.models.waveformer import WaveFormer, WaveFormerSettings

__all__ = [
    "DecoderSettings",
    "Densify",
    "Encoder",
    "LightDecoder",
    "ResEnc",
    "ResEncSettings",
    "SeedWaveFormer",
    "SeedWaveFormerSettings",
    "Segmentation",
    "SparK",
    "SparKEncoder",
    "WaveFormer",
    "WaveFormerSettings",
    "create_model",
    "describe",
    "from_description",
    "from_nnunet",
    "list_models",
    "segmentation_model",
]
