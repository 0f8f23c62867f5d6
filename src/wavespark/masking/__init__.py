"""Which cells of a volume are visible and which are hidden, with exact counts."""

from wavespark.masking.blocks import BlockMasking, Masks
from wavespark.masking.grid import GridReport, describe_grid
from wavespark.masking.nested import NestedMasking, NestedMasks

__all__ = ["BlockMasking", "GridReport", "Masks", "NestedMasking", "NestedMasks", "describe_grid"]
