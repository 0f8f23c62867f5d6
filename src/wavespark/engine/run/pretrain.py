"""A pre-training run: build, resume, train, export.

Killed at any moment, it resumes from its last checkpoint; on a CPU to the bit.

There is no global generator whose state would have to be saved: every draw is a function of the
seed, the step and the sample.
"""

import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from wavespark.config import PretrainSettings, load_pretraining
from wavespark.engine.encoders.load import export_checkpoint
from wavespark.engine.learning.objective import check_processes
from wavespark.engine.machine.device import set_threads
from wavespark.engine.machine.distributed import Ranks, leave_when_stuck, process_group, ranks_of
from wavespark.engine.run import folder
from wavespark.engine.run.components import Components, build_components
from wavespark.engine.run.loop import Trainer, describe_run
from wavespark.engine.run.resuming import Progress, resume_or_begin
from wavespark.engine.watching.telemetry import write_json
from wavespark.files import read_lines
from wavespark.prepare import Store, open_store
from wavespark.progress import Log, OnProgress, ShouldStop, ignore_log, ignore_progress, never_stop


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """Numbers of a finished run; also RUN/summary.json."""

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
    """Seconds that training waited for checkpoints, since the last start."""
    processes: int = 1
    finished: bool = True


def pretrain(
    settings: PretrainSettings | str | Path,
    store: Store | str | Path,
    run: str | Path,
    *,
    on_progress: OnProgress = ignore_progress,
    log: Log = ignore_log,
    should_stop: ShouldStop = never_stop,
) -> RunSummary:
    """Train until `run.steps`, resuming if the folder has a checkpoint.

    Under torchrun all processes train together.

    Args:
        settings: settings of the run, or the name or TOML file of a config (see `load_config`).
        store: prepared volumes, or the folder of a store.
        run: folder of the run; made if it does not exist.
        on_progress: called after every step with (done, total, message).
        log: called with messages for the user, e.g. `resumed from step 50`.
        should_stop: called after every step; the name of a signal stops the run after saving.

    Returns:
        Steps, seconds, and the held-out measures before and after training. The encoder is in
        `run/exports/encoder`.

    Example:
        settings = ws.load_config("tiny-cpu", ["run.steps=1000"])
        summary = ws.pretrain(settings, "store", "run")
        print(summary.last["normalised_loss"])

    Raises:
        SettingsError: if there is no such config, or the folder was begun with other settings. Only
            `run.steps` may grow; see `folder.check_same`.
        StoreError: if there is nothing to train on, or the disk is full.
        CheckpointError: if all checkpoints are damaged or belong to another store, or another
            process trains here.
        TrainingStopped: after a request to stop (exit code 75), non-finite losses or a collapse
            (4), lack of memory (5), or the loss of another process (1).
    """
    settings = settings if isinstance(settings, PretrainSettings) else load_pretraining(settings)
    store, run = store if isinstance(store, Store) else open_store(store), Path(run)
    ranks = ranks_of()
    check_processes(settings, ranks.world)
    with ExitStack() as stack:
        set_threads(settings.run.threads, ranks.local_world)
        stack.enter_context(_determinism(settings.run.deterministic))
        if ranks.writes:
            folder.make(run)
            stack.enter_context(folder.hold(run))
            folder.settle(run, settings)
        leave_when_stuck(should_stop, ranks)
        stack.enter_context(process_group(ranks))
        ranks.wait()
        if not ranks.writes:  # only the first process speaks
            on_progress, log = ignore_progress, ignore_log
        summary = _train(settings, store, run, ranks, on_progress, log, should_stop)
        # What joins the processes (DDP's buckets) must be gone before they part, or its destructor
        # waits without end.
        gc.collect()
        return summary


def _train(
    settings: PretrainSettings,
    store: Store,
    run: Path,
    ranks: Ranks,
    on_progress: OnProgress,
    log: Log,
    should_stop: ShouldStop,
) -> RunSummary:
    parts = build_components(settings, store, run, log, ranks)
    progress = resume_or_begin(parts)
    if ranks.writes:
        describe_run(parts)
    Trainer(parts, progress, on_progress, should_stop).run()
    summary = _summary(parts, progress)
    if ranks.writes:
        write_json(run / "summary.json", asdict(summary))
        export_checkpoint(run, run / "exports" / "encoder", "wavespark")
    ranks.wait()
    return summary


def _summary(parts: Components, progress: Progress) -> RunSummary:
    measures = read_lines(parts.run / folder.VALIDATION, strict=False)
    return RunSummary(
        model=parts.settings.model.name,
        parameters=parts.parameters,
        steps=progress.step,
        seconds=round(progress.seconds, 2),
        seconds_per_step=round(progress.seconds / max(1, progress.step), 4),
        first=measures[0] if measures else {},
        last=measures[-1] if measures else {},
        resumed_from=progress.resumed_from,
        skipped_steps=progress.skipped,
        checkpoint_seconds=round(parts.saver.waited, 2),
        processes=parts.ranks.world,
    )


@contextmanager
def _determinism(required: bool) -> Iterator[None]:
    """Make non-deterministic operations fail inside the context."""
    before, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if required:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark
