"""Training crops from a store: each a function of (seed, draw), whichever process makes it."""

from wavespark.sampling.crops import Crop, Region, read_crop
from wavespark.sampling.dataset import Batch, CropDataset, batches, collate
from wavespark.sampling.split import Split, split_store

__all__ = ["Batch", "Crop", "CropDataset", "Region", "Split", "batches", "collate", "read_crop", "split_store"]
