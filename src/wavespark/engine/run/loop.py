"""The loop: load, update, note, measure, save; and stop where it was asked to, or must."""

import math
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from wavespark.engine.learning.optimizer import rate_at
from wavespark.engine.learning.update import Measured
from wavespark.engine.machine.memory import explained, peak_bytes
from wavespark.engine.run import folder
from wavespark.engine.run.building import SPLIT, describe_data, training_crops
from wavespark.engine.run.training import Training
from wavespark.engine.watching.examples import write_examples
from wavespark.engine.watching.telemetry import Telemetry, environment, write_json
from wavespark.errors import ExitCode, TrainingStopped
from wavespark.progress import OnProgress, ShouldStop
from wavespark.sampling import Batch, batches

NON_FINITE_IN_A_ROW = 5


def run_to_end(training: Training, on_progress: OnProgress, should_stop: ShouldStop) -> None:
    """Trains until `run.steps`.

    Args:
        training: the run, at the step where it is.
        on_progress: called with (done, total, message).
        should_stop: asked after every step in every process; a name ends all of them after saving.

    Raises:
        TrainingStopped: if it was asked to stop (75), losses stay non-finite (4), or memory ran out (5).
    """
    settings, ranks, run = training.settings, training.ranks, training.run
    if ranks.writes:
        write_json(run / "environment.json", environment(training.device))
        write_json(run / "data.json", describe_data(training.store, training.split))
        write_json(run / SPLIT, training.split.sides(training.store))
    loader = batches(
        training_crops(settings, training.store, training.split),
        start=training.step,
        stop=settings.run.steps,
        workers=settings.data.workers,
        rank=ranks.rank,
        world=ranks.world,
        pin=training.device.type == "cuda",
    )
    # A run that starts keeps no line of an earlier try, not even that of step 0.
    telemetry = Telemetry(run, training.step or -1, settings.run, ranks.writes)
    with (
        closing(telemetry),
        closing(training.saver),
        closing(loader),
        explained(settings, training.device, training.model.encoder.cell, ranks.world),
    ):
        _Loop(training, telemetry, on_progress, lambda: ranks.any(should_stop())).all_steps(loader)
        training.saver.wait()


class _Loop:
    def __init__(
        self, training: Training, telemetry: Telemetry, on_progress: OnProgress, should_stop: ShouldStop
    ) -> None:
        self.now, self.telemetry, self.on_progress, self.should_stop = training, telemetry, on_progress, should_stop
        self.pending: Measured | None = None
        self.recent = math.nan

    def all_steps(self, loader: Iterator[Batch]) -> None:
        now = self.now
        if now.step == 0:
            self._validate()
        total = now.settings.run.steps
        now.objective.train()
        self.on_progress(now.step, total, "")
        self._stop_if(self.should_stop() if now.step < total else None)
        while now.step < total:
            self._step(loader)

    def _step(self, loader: Iterator[Batch]) -> None:
        now, run = self.now, self.now.settings.run
        waiting = time.perf_counter()
        try:
            batch = next(loader)
        except TrainingStopped:  # a signal to the whole group can take the loader's processes away
            self._stop_if(self.should_stop())
            raise
        started = time.perf_counter()
        now.step += 1
        rate = rate_at(now.step, now.settings)
        # On an accelerator the step before is read while this one computes: nothing waits for the device.
        before, self.pending = self.pending, now.update(batch, now.step, rate)
        last = now.step == run.steps
        validates = last or now.step % run.validate_every == 0
        saves = last or now.step % run.checkpoint_every == 0
        lines = [m.line() for m in (before,) if m is not None]
        asked = None if last else self.should_stop()
        if not now.update.on_device or validates or saves or asked:
            lines.append(self.pending.line())
            self.pending = None
        seconds = time.perf_counter() - started
        now.seconds += seconds
        for line in lines:
            self._note(line | {"seconds": round(seconds, 4), "load_seconds": round(started - waiting, 4)})
        self.on_progress(now.step, run.steps, self._progress())
        if validates:
            self._validate()
        if saves:
            self._save()
        self._stop_if(asked)

    def _progress(self) -> str:
        now = self.now
        each = now.seconds / now.step
        return (
            f"step {now.step} of {now.settings.run.steps}, normalised loss {self.recent:.3f}, {each:.2f} s a step, "
            f"{now.settings.data.batch / each:.1f} crops/s, {peak_bytes(now.device) / 2**30:.1f} GiB"
        )

    def _stop_if(self, asked: str | None) -> None:
        if not asked:
            return
        now = self.now
        if now.saved != now.step:
            self._save()
        now.saver.wait()
        now.ranks.wait()
        raise TrainingStopped(
            f"stopped by {asked} after step {now.step}, which is saved: run the same command again to go on",
            ExitCode.INTERRUPTED,
        )

    def _note(self, line: dict[str, Any]) -> None:
        now = self.now
        now.skipped_in_a_row = now.skipped_in_a_row + 1 if line["skipped"] else 0
        now.skipped += line["skipped"]
        self.telemetry.metrics(line)
        loss = line["normalised_loss"]
        if loss is not None:
            self.recent = loss if math.isnan(self.recent) else 0.95 * self.recent + 0.05 * loss
        ratio = now.settings.mask.at(now.masking, line["step"], now.settings.run.seed).ratio
        now.alarms.masks(line["step"], line["hidden_share"], now.masking.num_cells, ratio)
        if line["skipped"]:
            now.log(f"step {line['step']}: loss or gradient is not finite, no update was made")
        stop_after = 1 if now.settings.health.non_finite == "stop" else NON_FINITE_IN_A_ROW
        if now.skipped_in_a_row >= stop_after:
            steps = f"{stop_after} steps in a row, up to step" if stop_after > 1 else "step"
            raise TrainingStopped(
                f"loss or gradient was not finite in {steps} {line['step']} (modality {line['modality']}). "
                f"The last good checkpoint is kept in {now.run / folder.CHECKPOINTS}; try a smaller optimizer.learning_rate",
                ExitCode.DIVERGED,
            )

    def _validate(self) -> None:
        now, pictures = self.now, self.now.run / folder.EXAMPLES
        unshard = getattr(now.model, "unshard", None)
        if unshard is not None:
            unshard()
        line, results = now.held_out.measure(now.model, now.step)
        now.measure = line
        if now.ranks.writes:
            cell = now.model.encoder.cell
            boxes = [batch for batch, _ in now.held_out.batches(cell)]
            write_examples(pictures, now.held_out.crops, boxes, results, cell, now.step)
        self.telemetry.validation(line)
        self.telemetry.examples(pictures, now.step)
        now.objective.measured(line)
        now.alarms.measured(line)

    def _save(self) -> None:
        checkpoint = self.now.checkpoint()
        self.now.saved = self.now.step
        if self.now.ranks.writes:
            self.now.saver.save(checkpoint, self.telemetry.sync)
