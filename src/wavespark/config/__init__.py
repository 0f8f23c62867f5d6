"""Frozen, validated settings of runs, from TOML files and `key=value` words."""

from typing import TYPE_CHECKING

from wavespark.lazy import lazy_exports

if TYPE_CHECKING:
    from wavespark.config.load import load_pretraining, to_toml, training_configs
    from wavespark.config.pretrain import PretrainSettings

__all__ = ["PretrainSettings", "load_pretraining", "to_toml", "training_configs"]

__getattr__, __dir__ = lazy_exports(__name__)
