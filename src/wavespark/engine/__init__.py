"""The run: build, resume, loop, save; and encoders loaded back."""

from typing import TYPE_CHECKING

from wavespark.lazy import lazy_exports

if TYPE_CHECKING:
    from wavespark.engine.encoders.foreign import Imported, import_weights
    from wavespark.engine.encoders.load import export_checkpoint, export_run, load_encoder
    from wavespark.engine.machine.distributed import ranks_of
    from wavespark.engine.run.estimate import Estimate, estimate, step_parts
    from wavespark.engine.run.folder import begin_fresh
    from wavespark.engine.run.preflight import preflight
    from wavespark.engine.run.pretrain import RunSummary, pretrain
    from wavespark.engine.run.timing import seconds_per_step

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

__getattr__, __dir__ = lazy_exports(__name__)
