"""The run as frozen, validated settings."""

from typing import TYPE_CHECKING

from wavespark.lazy import lazy_exports

if TYPE_CHECKING:
    from wavespark.config.load import load_pretraining, pretraining_recipes, to_toml
    from wavespark.config.pretrain import PretrainSettings

__all__ = ["PretrainSettings", "load_pretraining", "pretraining_recipes", "to_toml"]

__getattr__, __dir__ = lazy_exports(__name__)
