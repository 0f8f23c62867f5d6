"""Training objectives: reconstruction of hidden cells, and a contrast between places."""

from wavespark.objectives.hardness import cell_errors
from wavespark.objectives.infonce import Contrast, Places, Projector, info_nce, pairs, places_of
from wavespark.objectives.reconstruction import CellTargets, Score, cell_targets, reconstruction

__all__ = [
    "CellTargets",
    "Contrast",
    "Places",
    "Projector",
    "Score",
    "cell_errors",
    "cell_targets",
    "info_nce",
    "pairs",
    "places_of",
    "reconstruction",
]
