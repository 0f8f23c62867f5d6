"""Encoders on visible cells, the decoder of masked pre-training, decoders for segmentation."""

from typing import TYPE_CHECKING

from wavespark.lazy import lazy_exports

if TYPE_CHECKING:
    from wavespark.models.catalogue import create_model, describe, from_description
    from wavespark.models.decoder import LightDecoder
    from wavespark.models.densify import Densify
    from wavespark.models.encoder import Encoder
    from wavespark.models.isotropic import IsotropicWaveFormer, SeedWaveFormer
    from wavespark.models.resenc import ResEnc, from_nnunet
    from wavespark.models.segmentation import Segmentation, segmentation_model
    from wavespark.models.settings import (
        DecoderSettings,
        Description,
        FeatureInfo,
        IsotropicSettings,
        ResEncSettings,
        SeedWaveFormerSettings,
        WaveFormerSettings,
        list_models,
        model_settings,
    )
    from wavespark.models.spark import SparK
    from wavespark.models.spark_encoder import SparKEncoder
    from wavespark.models.waveformer import WaveFormer

__all__ = [
    "DecoderSettings",
    "Densify",
    "Description",
    "Encoder",
    "FeatureInfo",
    "IsotropicSettings",
    "IsotropicWaveFormer",
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
    "model_settings",
    "segmentation_model",
]

__getattr__, __dir__ = lazy_exports(__name__)
