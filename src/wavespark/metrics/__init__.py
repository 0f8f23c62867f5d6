"""Measures: health of features, baselines without a network, and scores of tasks."""

from wavespark.metrics.health import effective_rank
from wavespark.metrics.inpainting import harmonic, inpaint

__all__ = ["effective_rank", "harmonic", "inpaint"]
