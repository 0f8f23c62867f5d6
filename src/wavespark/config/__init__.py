"""The run as frozen, validated settings."""

from wavespark.config.load import load_pretraining, pretraining_recipes, to_toml
from wavespark.config.pretrain import PretrainSettings

__all__ = ["PretrainSettings", "load_pretraining", "pretraining_recipes", "to_toml"]
