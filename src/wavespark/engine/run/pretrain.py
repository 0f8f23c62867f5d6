"""A pre-training run: build, continue where it was, loop, save, export. Killed at any moment it goes on from its last checkpoint, to the bit on a CPU.

No global generator is drawn from, so there is none to save: every draw is a function of the seed, the step and the sample.
"""

import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from wavespark.config import PretrainSettings
from wavespark.engine.encoders.load import export_checkpoint
from wavespark.engine.learning.objective import check_processes
from wavespark.engine.machine.device import set_threads
from wavespark.engine.machine.distributed import joined, leave_when_stuck, ranks_of
from wavespark.engine.run import folder
from wavespark.engine.run.loop import run_to_end
from wavespark.engine.run.training import Training
from wavespark.engine.watching.telemetry import write_json
from wavespark.files import read_lines
from wavespark.prepare import Store
from wavespark.progress import Log, OnProgress, ShouldStop, ignore_log, ignore_progress, never_stop


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """What a finished run says of itself; also RUN/summary.json."""

    model: str
    parameters: int
    steps: int
    seconds: float
    seconds_per_step: float
    first: dict[str, Any]
    """Held-out measures before training."""
    last: dict[str, Any]
    """Held-out measures at the end."""
    resumed_from: list[int] = field(default_factory=list)
    skipped_steps: int = 0
    """Steps whose loss or gradient was not finite: no update was made."""
    checkpoint_seconds: float = 0.0
    """Since the last start: how long training waited for checkpoints."""
    processes: int = 1
    finished: bool = True


def pretrain(
    settings: PretrainSettings,
    store: Store,
    run: Path,
    *,
    on_progress: OnProgress = ignore_progress,
    log: Log = ignore_log,
    should_stop: ShouldStop = never_stop,
) -> RunSummary:
    """Trains until `run.steps`, continuing by itself if the folder has a checkpoint. Started by torchrun, its processes train together.

    Args:
        settings: everything that decides the run.
        store: prepared volumes.
        run: the run's folder; made if it is not there.
        on_progress: called with (done, total, message).
        log: called with what a person should know, e.g. `resumed from step 50`.
        should_stop: asked after every step; a name (of a signal) ends the run after saving.

    Raises:
        SettingsError: if the folder was begun with other settings.
        StoreError: if there is nothing to train on, or the disk is full.
        CheckpointError: if all checkpoints are damaged, they belong to another store, or another process trains in this folder.
        TrainingStopped: if `should_stop` asked for it (exit code 75), losses stay non-finite (4), memory runs out (5), or another process is lost (1).
    """
    ranks = ranks_of()
    check_processes(settings, ranks.world)
    quiet = not ranks.writes
    with ExitStack() as held:
        set_threads(settings.run.threads, ranks.local_world)
        held.enter_context(_determinism(settings.run.deterministic))
        if ranks.writes:
            folder.make(run)
            held.enter_context(folder.hold(run))
            folder.settle(run, settings)
        leave_when_stuck(should_stop, ranks)
        held.enter_context(joined(ranks))
        ranks.wait()
        training = Training(settings, store, run, ignore_log if quiet else log, ranks)
        run_to_end(training, ignore_progress if quiet else on_progress, should_stop)
        summary = _summary(training)
        if ranks.writes:
            write_json(run / "summary.json", asdict(summary))
            export_checkpoint(run, run / "exports" / "encoder", "wavespark")
        ranks.wait()
        # What holds the processes together (DDP's buckets) must be gone before they part, or its destructor waits for ever.
        del training
        gc.collect()
        return summary


def _summary(training: Training) -> RunSummary:
    measures = read_lines(training.run / folder.VALIDATION, strict=False)
    return RunSummary(
        model=training.settings.model.name,
        parameters=training.parameters,
        steps=training.step,
        seconds=round(training.seconds, 2),
        seconds_per_step=round(training.seconds / max(1, training.step), 4),
        first=measures[0] if measures else {},
        last=measures[-1] if measures else {},
        resumed_from=training.resumed_from,
        skipped_steps=training.skipped,
        checkpoint_seconds=round(training.saver.waited, 2),
        processes=training.ranks.world,
    )


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    """Within, an operation whose result is not always the same is an error."""
    before, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if wanted:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark
