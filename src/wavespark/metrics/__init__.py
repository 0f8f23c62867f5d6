"""What a run is worth: health of features, and the baseline that needs no network."""

from wavespark.metrics.health import effective_rank
from wavespark.metrics.inpainting import harmonic, inpaint

__all__ = ["effective_rank", "harmonic", "inpaint"]
