"""The training loop: load, update, note, validate, save, stop."""

import math
import time
from collections.abc import Generator
from contextlib import closing
from typing import Any

from wavespark.engine.learning.optimizer import rate_at
from wavespark.engine.learning.update import Measured
from wavespark.engine.machine.memory import explained, peak_bytes
from wavespark.engine.run import folder
from wavespark.engine.run.building import SPLIT, describe_data, training_crops
from wavespark.engine.run.components import Components
from wavespark.engine.run.resuming import Progress, make_checkpoint
from wavespark.engine.watching.examples import write_examples
from wavespark.engine.watching.telemetry import Telemetry, environment, write_json
from wavespark.engine.watching.whole import write_whole
from wavespark.errors import ExitCode, TrainingStopped
from wavespark.progress import OnProgress, ShouldStop
from wavespark.sampling import Batch, batches

NON_FINITE_IN_A_ROW = 5
"""Steps in a row without a finite loss and gradient after which a run stops."""
RECENT = 0.95
"""Weight of the earlier steps in the smoothed loss of the progress line."""


class Trainer:
    """Trains a run from where it stands to its last step.

    Args:
        parts: what the run is made of.
        progress: where it stands.
        on_progress: called after every step with (done, total, message).
        should_stop: called after every step in every process; the name of a signal stops all of
            them after saving.
    """

    def __init__(
        self,
        parts: Components,
        progress: Progress,
        on_progress: OnProgress,
        should_stop: ShouldStop,
    ) -> None:
        self.parts, self.progress, self.on_progress = parts, progress, on_progress
        self.settings, self.steps = parts.settings, parts.settings.run.steps
        self.should_stop = lambda: parts.ranks.any(should_stop())
        self.update = parts.updater()
        self.loader = make_loader(parts, progress.step)
        # A run that starts keeps no line of an earlier try, not even that of step 0.
        self.telemetry = Telemetry(parts.run, progress.step or -1, self.settings.run, parts.ranks.writes)
        self.unread: list[Measured] = []
        """Updates whose measures are still on the device."""
        self.smoothed_loss = math.nan

    def run(self) -> None:
        """Train to the last step.

        Raises:
            TrainingStopped: on a request (75), after non-finite losses or a collapse (4), or
                without memory (5).
        """
        parts = self.parts
        cell, world = parts.model.encoder.cell, parts.ranks.world
        with (
            closing(self.telemetry),
            closing(parts.saver),
            closing(self.loader),
            explained(self.settings, parts.device, cell, world),
        ):
            self.train()
            parts.saver.wait()

    def train(self) -> None:
        """Load, update, note, validate, save, stop."""
        if self.progress.step == 0:
            self.validate()
        self.parts.objective.train()
        self.on_progress(self.progress.step, self.steps, "")
        if not self.finished:
            self.stop_if(self.should_stop())
        while not self.finished:
            batch = self.load()
            self.train_step(batch)
            signal = None if self.finished else self.should_stop()
            self.note(wait=self.validates or self.saves or signal is not None)
            if self.validates:
                self.validate()
            if self.saves:
                self.save()
            self.stop_if(signal)

    @property
    def finished(self) -> bool:
        """True after the last step."""
        return self.progress.step >= self.steps

    @property
    def validates(self) -> bool:
        """True if held-out crops are measured after this step."""
        return self.finished or self.progress.step % self.settings.run.validate_every == 0

    @property
    def saves(self) -> bool:
        """True if a checkpoint follows this step."""
        return self.finished or self.progress.step % self.settings.run.checkpoint_every == 0

    def load(self) -> Batch:
        """Return the next batch."""
        self.load_started = time.perf_counter()
        try:
            batch = next(self.loader)
        except TrainingStopped:  # a signal to the whole process group can kill the loader's workers
            self.stop_if(self.should_stop())
            raise
        self.step_started = time.perf_counter()
        return batch

    def train_step(self, batch: Batch) -> None:
        """Update the weights. On an accelerator nothing waits for the device here."""
        self.progress.step += 1
        self.unread.append(self.update(batch, self.progress.step, rate_at(self.progress.step, self.settings)))

    def note(self, wait: bool) -> None:
        """Write the lines of finished updates.

        Args:
            wait: also read the newest update of an accelerator, which is otherwise read while the
                next one computes.
        """
        ready = len(self.unread) if wait or not self.update.on_device else len(self.unread) - 1
        lines = [measured.line() for measured in self.unread[:ready]]
        self.unread = self.unread[ready:]
        seconds = time.perf_counter() - self.step_started
        self.progress.seconds += seconds
        times = {"seconds": round(seconds, 4), "load_seconds": round(self.step_started - self.load_started, 4)}
        for line in lines:
            self.note_line(line | times)
        self.on_progress(self.progress.step, self.steps, self.progress_message())

    def note_line(self, line: dict[str, Any]) -> None:
        """Write the line of a step and check it.

        Raises:
            TrainingStopped: if masks are wrong, or too many steps in a row were not finite.
        """
        parts, progress = self.parts, self.progress
        progress.skipped_in_a_row = progress.skipped_in_a_row + 1 if line["skipped"] else 0
        progress.skipped += line["skipped"]
        self.telemetry.metrics(line)
        if (loss := line["normalised_loss"]) is not None:
            earlier = self.smoothed_loss
            self.smoothed_loss = loss if math.isnan(earlier) else RECENT * earlier + (1 - RECENT) * loss
        masking = parts.plan.masking(line["step"])
        parts.alarms.masks(line["step"], line["hidden_share"], masking.num_cells, masking.ratio)
        if line["skipped"]:
            parts.log(f"step {line['step']}: loss or gradient is not finite, no update was made")
            self.stop_if_non_finite(line)

    def stop_if_non_finite(self, line: dict[str, Any]) -> None:
        """Stop after too many steps in a row that were not finite."""
        limit = 1 if self.settings.health.non_finite == "stop" else NON_FINITE_IN_A_ROW
        if self.progress.skipped_in_a_row < limit:
            return
        steps = f"{limit} steps in a row, up to step" if limit > 1 else "step"
        raise TrainingStopped(
            f"loss or gradient was not finite in {steps} {line['step']} (modality {line['modality']}). The last good "
            f"checkpoint is kept in {self.parts.run / folder.CHECKPOINTS}; try a smaller optimizer.learning_rate",
            ExitCode.DIVERGED,
        )

    def progress_message(self) -> str:
        """Return the text of the progress bar."""
        each = self.progress.seconds / self.progress.step
        return (
            f"step {self.progress.step} of {self.steps}, normalised loss {self.smoothed_loss:.3f}, {each:.2f} s a step, "
            f"{self.settings.data.batch / each:.1f} crops/s, {peak_bytes(self.parts.device) / 2**30:.1f} GiB"
        )

    def validate(self) -> None:
        """Measure held-out crops, write the line and the pictures, and check for collapse."""
        parts, step = self.parts, self.progress.step
        unshard = getattr(parts.model, "unshard", None)
        if unshard is not None:
            unshard()
        line, results = parts.held_out.measure(parts.model, step)
        self.progress.held_out = line["normalised_loss"]
        pictures = parts.run / folder.EXAMPLES
        if parts.ranks.writes:
            cell = parts.model.encoder.cell
            crops = [batch for batch, _ in parts.held_out.batches(cell)]
            write_examples(pictures, parts.held_out.crops, crops, results, cell, step)
        if self.finished:
            whole = pictures if parts.ranks.writes else None
            write_whole(whole, parts.store, parts.split, parts.held_out, parts.model, step)
        self.telemetry.validation(line)
        self.telemetry.examples(pictures, step)
        parts.objective.measured(line)
        parts.alarms.measured(line)

    def save(self) -> None:
        """Save a checkpoint; it is written after the lines of all steps so far are safe."""
        checkpoint = make_checkpoint(self.parts, self.progress)
        self.progress.saved = self.progress.step
        if self.parts.ranks.writes:
            self.parts.saver.save(checkpoint, self.telemetry.sync)

    def stop_if(self, signal: str | None) -> None:
        """Save and stop if a signal asks for it.

        Raises:
            TrainingStopped: with exit code 75.
        """
        if not signal:
            return
        if self.progress.saved != self.progress.step:
            self.save()
        self.parts.saver.wait()
        self.parts.ranks.wait()
        raise TrainingStopped(
            f"stopped by {signal} after step {self.progress.step}, which is saved: run the same command again to go on",
            ExitCode.INTERRUPTED,
        )


def make_loader(parts: Components, step: int) -> Generator[Batch, None, None]:
    """Return the batches of this process from a step on."""
    settings, ranks = parts.settings, parts.ranks
    return batches(
        training_crops(settings, parts.store, parts.split),
        start=step,
        stop=settings.run.steps,
        workers=settings.data.workers,
        rank=ranks.rank,
        world=ranks.world,
        pin=parts.device.type == "cuda",
    )


def describe_run(parts: Components) -> None:
    """Write environment.json, data.json and split.json into the run's folder."""
    write_json(parts.run / "environment.json", environment(parts.device))
    write_json(parts.run / "data.json", describe_data(parts.store, parts.split))
    write_json(parts.run / SPLIT, parts.split.sides(parts.store))
