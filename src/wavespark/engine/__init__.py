"""The run: build, resume, loop, save; and encoders loaded back."""

from wavespark.engine.distributed import ranks_of
from wavespark.engine.estimate import Estimate, estimate, step_parts
from wavespark.engine.folder import begin_fresh
from wavespark.engine.foreign import Imported, import_weights
from wavespark.engine.load import export_checkpoint, export_run, load_encoder
from wavespark.engine.preflight import preflight
from wavespark.engine.pretrain import RunSummary, pretrain
from wavespark.engine.timing import seconds_per_step

__all__ = [
    "Estimate",
    "Imported",
    "RunSummary",
    "begin_fresh",
    "estimate",
    "export_checkpoint",
    "export_run",
    "import_weights",
    "load_encoder",
    "preflight",
    "pretrain",
    "ranks_of",
    "seconds_per_step",
    "step_parts",
]
