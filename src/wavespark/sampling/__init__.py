"""Training crops from a store: each a function of (seed, draw), whichever process makes it; and
what changes them."""

from typing import TYPE_CHECKING

from wavespark.lazy import lazy_exports

if TYPE_CHECKING:
    from wavespark.sampling.augmentation import STRONG, Augmentation
    from wavespark.sampling.crops import Crop, Region, read_crop
    from wavespark.sampling.dataset import Batch, CropDataset, batches, collate
    from wavespark.sampling.lateral import NO_SIDES, Sides
    from wavespark.sampling.scene import Scene, flipped
    from wavespark.sampling.split import Split, split_store

__all__ = [
    "NO_SIDES",
    "STRONG",
    "Augmentation",
    "Batch",
    "Crop",
    "CropDataset",
    "Region",
    "Scene",
    "Sides",
    "Split",
    "batches",
    "collate",
    "flipped",
    "read_crop",
    "split_store",
]

__getattr__, __dir__ = lazy_exports(__name__)
