"""The run: build, resume, loop, save; and encoders loaded back."""

from wavespark.engine.distributed import ranks_of
from wavespark.engine.folder import begin_fresh
from wavespark.engine.load import export_checkpoint, export_run, load_encoder
from wavespark.engine.preflight import preflight
from wavespark.engine.pretrain import RunSummary, pretrain
from wavespark.engine.timing import seconds_per_step

__all__ = [
    "RunSummary",
    "begin_fresh",
    "export_checkpoint",
    "export_run",
    "load_encoder",
    "preflight",
    "pretrain",
    "ranks_of",
    "seconds_per_step",
]
