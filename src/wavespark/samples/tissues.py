"""Appearance of each tissue in each contrast: HU for CTA, arbitrary units for MR."""

from collections.abc import Mapping
from typing import Literal

Contrast = Literal["CTA", "TOF-MRA", "T1", "T2"]

TISSUES = ("air", "skin", "fat", "muscle", "mucosa", "bone", "diploe", "marrow", "csf", "grey", "white", "deep", "stem",
           "dura", "eye", "lens", "pituitary", "calcium", "artery", "vein")  # fmt: skip

_VALUES: Mapping[Contrast, tuple[float, ...]] = {
    # CT angiography in the arterial phase, with some venous filling
    "CTA": (-1000, 45, -95, 58, 40, 1300, 720, 350, 8, 41, 31, 40, 34, 75, 14, 85, 110, 900, 330, 190),
    # time of flight: flowing arterial blood is bright, veins are saturated, everything else is held
    # down
    "TOF-MRA": (0, 140, 200, 120, 170, 18, 90, 110, 70, 172, 152, 165, 150, 120, 75, 120, 190, 30, 500, 160),
    # T1 after gadolinium (gradient echo): vessels, sinuses and mucosa are bright
    "T1": (0, 330, 560, 230, 400, 25, 230, 380, 85, 250, 345, 300, 325, 300, 80, 200, 440, 60, 540, 500),
    # T2: fluid is bright, flowing blood is a void
    "T2": (0, 170, 400, 110, 480, 12, 130, 240, 640, 255, 190, 215, 205, 70, 650, 90, 230, 25, 12, 50),
}  # fmt: skip

CONTRASTS: tuple[Contrast, ...] = tuple(_VALUES)


def palette(contrast: Contrast) -> dict[str, float]:
    """The mean value of each tissue."""
    return dict(zip(TISSUES, _VALUES[contrast], strict=True))
