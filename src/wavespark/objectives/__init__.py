"""What is learned: voxels of hidden cells."""

from wavespark.objectives.reconstruction import CellTargets, Score, cell_targets, reconstruction

__all__ = ["CellTargets", "Score", "cell_targets", "reconstruction"]
