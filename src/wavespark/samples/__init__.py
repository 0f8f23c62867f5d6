"""Heads to try things on: a real brain that an installed package ships, and synthetic head
angiography."""

from wavespark.rsna_labels import LABELS, LOCATIONS
from wavespark.samples.aneurysms import SITES, Aneurysm
from wavespark.samples.brain import BrainMap, mni152_brain
from wavespark.samples.collection import DAMAGED, write_collection
from wavespark.samples.files import write_dicom, write_nifti
from wavespark.samples.heads import SyntheticHead, synthetic_head
from wavespark.samples.tissues import CONTRASTS, Contrast

__all__ = [
    "CONTRASTS",
    "DAMAGED",
    "LABELS",
    "LOCATIONS",
    "SITES",
    "Aneurysm",
    "BrainMap",
    "Contrast",
    "SyntheticHead",
    "mni152_brain",
    "synthetic_head",
    "write_collection",
    "write_dicom",
    "write_nifti",
]
