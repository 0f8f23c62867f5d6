"""Masks of cells with exact counts, and the plan of a run's masks."""

from typing import TYPE_CHECKING

from wavespark.lazy import lazy_exports

if TYPE_CHECKING:
    from wavespark.masking.blocks import BlockMasking
    from wavespark.masking.guided import (
        blend,
        cell_mean,
        foreground_weights,
        hardness_weights,
        vesselness,
        vesselness_weights,
    )
    from wavespark.masking.legacy import LegacyRule, legacy_table
    from wavespark.masking.masks import Masks, NestedMasks
    from wavespark.masking.nested import NestedMasking
    from wavespark.masking.plan import MaskPlan
    from wavespark.masking.schedule import MaskSchedule, RatioSchedule

__all__ = [
    "BlockMasking",
    "LegacyRule",
    "MaskPlan",
    "MaskSchedule",
    "Masks",
    "NestedMasking",
    "NestedMasks",
    "RatioSchedule",
    "blend",
    "cell_mean",
    "foreground_weights",
    "hardness_weights",
    "legacy_table",
    "vesselness",
    "vesselness_weights",
]

__getattr__, __dir__ = lazy_exports(__name__)
