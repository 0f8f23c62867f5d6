"""The state of a run between two steps, and the loop."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from wavespark.checkpoints import Checkpoint, newest_checkpoint
from wavespark.config import PretrainSettings
from wavespark.engine import folder
from wavespark.engine.alarms import Alarms
from wavespark.engine.building import (
    SPLIT,
    build_model,
    choose_device,
    choose_split,
    contents_of,
    cores,
    describe_data,
    stems_of,
    training_crops,
)
from wavespark.engine.compiling import compile_model
from wavespark.engine.distributed import Ranks, across, like, shard, whole
from wavespark.engine.faults import Faults
from wavespark.engine.folder import Tell
from wavespark.engine.initialise import initialise
from wavespark.engine.memory import explained, peak_bytes
from wavespark.engine.objective import Objective
from wavespark.engine.optimizer import learning_rate, make_optimizer, optimizer_tensors, restore_optimizer
from wavespark.engine.precision import Precision
from wavespark.engine.saving import EXTRA, Saver
from wavespark.engine.telemetry import Telemetry, environment, write_json
from wavespark.engine.update import Measured, Updater
from wavespark.engine.validation import HeldOut, write_examples
from wavespark.errors import CheckpointError, SettingsError, TrainingStopped
from wavespark.prepare import Store
from wavespark.sampling import Batch, batches

NON_FINITE_IN_A_ROW = 5


class Loop:
    """Builds everything, goes back to the newest checkpoint, and trains.

    Args:
        settings: everything that decides the run.
        store: prepared volumes.
        run: its folder.
        say: is told what a person should know.
        ranks: the processes of the run.

    Raises:
        SettingsError: if they cannot be followed here.
        CheckpointError: if there are checkpoints and none can be used.
    """

    def __init__(
        self, settings: PretrainSettings, store: Store, run: Path, say: Callable[[str], None], ranks: Ranks
    ) -> None:
        if settings.data.batch % (ranks.world * settings.run.accumulate):
            raise SettingsError(
                f"data.batch {settings.data.batch} cannot be shared by {ranks.world} process(es) in {settings.run.accumulate} part(s) each: "
                "make it a multiple of both"
            )
        self.settings, self.store, self.run, self.say, self.ranks = settings, store, run, say, ranks
        torch.set_num_threads(settings.run.threads or max(1, cores() // ranks.local_world))
        self.device = choose_device(settings, ranks.local_rank)
        self.precision = Precision(settings, self.device)
        if settings.run.parallel == "fsdp" and ranks.world > 1 and self.precision.scaler.is_enabled():
            raise SettingsError(
                "run.parallel=fsdp cannot scale a loss: use run.precision=bf16, or run.parallel=ddp with fp16"
            )
        model = build_model(settings, stems_of(store)).to(self.device)
        if settings.run.channels_last:
            model = model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.masking = settings.masking(model.encoder.cell)
        self.split = choose_split(settings, store)
        self.held_out = HeldOut.of(store, self.split, settings, self.masking)
        self.contents = contents_of(store)
        self.parameters = sum(p.numel() for p in model.parameters())
        self.model = model
        self.objective = Objective(settings, model, self.masking, say).to(self.device)
        shard(model, ranks, settings.run.parallel)
        self.optimizer = make_optimizer(self.objective, settings.optimizer)
        warmup = min(settings.optimizer.warmup_steps, settings.run.steps // 2)
        self.alarms = Alarms(settings.health, warmup, say, str(run / folder.CHECKPOINTS))
        self.step = 0
        self.seconds = 0.0
        self.resumed_from: list[int] = []
        self.skipped = self.skipped_in_a_row = 0
        self.measure: dict[str, Any] = {}
        self.saver = Saver(
            run / folder.CHECKPOINTS, settings.run.keep, settings.run.keep_every, settings.run.save_in_background
        )
        self.saved = -1
        if not self._restore() and settings.model.init:
            say(initialise(model.encoder, settings.model.init, settings.model.init_partial))
        compile_model(model, settings.run.compile, self.device, say)
        network = across(self.objective, ranks, settings.run.parallel, self.device)
        faults = Faults.asked_for()
        self.update = Updater(settings, self.objective, network, self.optimizer, self.precision, ranks, faults)
        self.pending: Measured | None = None

    def run_to_end(self, tell: Tell, stop: Callable[[], str | None]) -> None:
        """Trains until `run.steps`.

        Raises:
            TrainingStopped: if it was asked to stop (75), losses stay non-finite (4), or memory ran out (5).
        """
        settings, total, ranks = self.settings, self.settings.run.steps, self.ranks
        if ranks.writes:
            write_json(self.run / "environment.json", environment(self.device))
            write_json(self.run / "data.json", describe_data(self.store, self.split))
            write_json(self.run / SPLIT, self.split.sides(self.store))
        loader = batches(
            training_crops(settings, self.store, self.split),
            start=self.step,
            stop=total,
            workers=settings.data.workers,
            rank=ranks.rank,
            world=ranks.world,
            pin=self.device.type == "cuda",
        )
        # A run that starts keeps no line of an earlier try, not even that of step 0.
        telemetry = Telemetry(self.run, self.step or -1, settings.run, ranks.writes)
        with (
            closing(telemetry),
            closing(self.saver),
            closing(loader),
            explained(settings, self.device, self.model.encoder.cell, ranks.world),
        ):
            if self.step == 0:
                self._validate(telemetry)
            self._all_steps(loader, telemetry, tell, lambda: ranks.any(stop()))
            self.saver.wait()

    def _all_steps(
        self, loader: Iterator[Batch], telemetry: Telemetry, tell: Tell, stop: Callable[[], str | None]
    ) -> None:
        settings, total = self.settings, self.settings.run.steps
        self.objective.train()
        tell(self.step, total, "")
        self._stop_if(stop() if self.step < total else None, telemetry)
        recent = math.nan
        while self.step < total:
            waiting = time.perf_counter()
            try:
                batch = next(loader)
            except TrainingStopped:  # a signal to the whole group can take the loader's processes away
                self._stop_if(stop(), telemetry)
                raise
            started = time.perf_counter()
            self.step += 1
            rate = learning_rate(self.step, settings.run.steps, settings.optimizer)
            # On an accelerator the step before is read while this one computes: nothing waits for the device.
            before, self.pending = self.pending, self.update(batch, self.step, rate)
            last = self.step == total
            validates = last or self.step % settings.run.validate_every == 0
            saves = last or self.step % settings.run.checkpoint_every == 0
            lines = [m.line() for m in (before,) if m is not None]
            asked = None if last else stop()
            if not self.update.on_device or validates or saves or asked:
                lines.append(self.pending.line())
                self.pending = None
            seconds = time.perf_counter() - started
            self.seconds += seconds
            for line in lines:
                self._note(
                    line | {"seconds": round(seconds, 4), "load_seconds": round(started - waiting, 4)}, telemetry
                )
                loss = line["normalised_loss"]
                if loss is not None:
                    recent = loss if math.isnan(recent) else 0.95 * recent + 0.05 * loss
            tell(self.step, total, self._progress(recent))
            if validates:
                self._validate(telemetry)
            if saves:
                self._save(telemetry)
            self._stop_if(asked, telemetry)

    def _progress(self, recent: float) -> str:
        each = self.seconds / self.step
        return (
            f"step {self.step} of {self.settings.run.steps}, normalised loss {recent:.3f}, {each:.2f} s a step, "
            f"{self.settings.data.batch / each:.1f} crops/s, {peak_bytes(self.device) / 2**30:.1f} GiB"
        )

    def _stop_if(self, asked: str | None, telemetry: Telemetry) -> None:
        if asked:
            if self.saved != self.step:
                self._save(telemetry)
            self.saver.wait()
            self.ranks.wait()
            raise TrainingStopped(
                f"stopped by {asked} after step {self.step}, which is saved: run the same command again to go on", 75
            )

    def _note(self, line: dict[str, Any], telemetry: Telemetry) -> None:
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if line["skipped"] else 0
        self.skipped += line["skipped"]
        telemetry.metrics(line)
        ratio = self.settings.mask.at(self.masking, line["step"]).ratio
        self.alarms.masks(line["step"], line["hidden_share"], self.masking.num_cells, ratio)
        if line["skipped"]:
            self.say(f"step {line['step']}: loss or gradient is not finite, no update was made")
        if self.skipped_in_a_row >= NON_FINITE_IN_A_ROW:
            raise TrainingStopped(
                f"loss or gradient was not finite in {NON_FINITE_IN_A_ROW} steps in a row, up to step {line['step']} (modality {line['modality']}). "
                f"The last good checkpoint is kept in {self.run / folder.CHECKPOINTS}; try a smaller optimizer.learning_rate",
                4,
            )

    def _validate(self, telemetry: Telemetry) -> None:
        unshard = getattr(self.model, "unshard", None)
        if unshard is not None:
            unshard()
        line, results = self.held_out.measure(self.model, self.step)
        self.measure = line
        if self.ranks.writes:
            write_examples(self.run / folder.EXAMPLES, self.held_out, results, self.model.encoder.cell, self.step)
        telemetry.validation(line)
        telemetry.examples(self.run / folder.EXAMPLES, self.step)
        self.objective.measured(line)
        self.alarms.measured(line)

    def _save(self, telemetry: Telemetry) -> None:
        model = {name: whole(t) for name, t in self.model.state_dict().items()}
        model |= {EXTRA + name: t for name, t in self.objective.extra_tensors().items()}
        checkpoint = Checkpoint(
            step=self.step,
            model=model,
            optimizer=optimizer_tensors(self.objective, self.optimizer),
            state=self._state(),
        )
        self.saved = self.step
        if self.ranks.writes:
            self.saver.save(checkpoint, telemetry.sync)

    def _state(self) -> dict[str, Any]:
        settings = self.settings.model_dump()
        # Paths of this machine; the weights are in the checkpoint, the split is in the run.
        settings["model"]["init"] = settings["data"]["split_from"] = ""
        return {
            "settings": settings,
            "stems": self.model.encoder.stem_channels,
            "seconds": self.seconds,
            "resumed_from": list(self.resumed_from),
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "scaler": self.precision.scaler.state_dict(),
            "objective": self.objective.extra_state(),
            "alarms": self.alarms.state(),
            "world": self.ranks.world,
            "store": self.store.recipe.fingerprint,
            "preparation": self.store.recipe.settings,
            "volumes": len(self.store),
            "contents": self.contents,
            "held_out": self.measure.get("normalised_loss"),
        }

    def _restore(self) -> bool:
        found = newest_checkpoint(self.run / folder.CHECKPOINTS, damaged=lambda text: self.say(f"passed over: {text}"))
        if found is None:
            return False
        try:
            if (
                found.state["store"] != self.store.recipe.fingerprint
                or found.state["stems"] != self.model.encoder.stem_channels
            ):
                raise CheckpointError(
                    f"{self.run} was trained on a store of another recipe or other modalities: use that store, or another --output"
                )
            if found.state["contents"] != self.contents:
                raise CheckpointError(
                    f"{self.store.path} no longer holds the {found.state['volumes']} volumes that {self.run} was trained on, so its held-out part "
                    "would be another one: use that store, another --output, or --fresh"
                )
            own = self.model.state_dict()
            weights = {k: like(t, own[k]) if k in own else t for k, t in found.model.items() if not k.startswith(EXTRA)}
            self.model.load_state_dict(weights)
            extra = {k.removeprefix(EXTRA): t for k, t in found.model.items() if k.startswith(EXTRA)}
            self.objective.restore(extra, found.state["objective"])
            self.alarms.restore(found.state["alarms"])
            restore_optimizer(self.objective, self.optimizer, found.optimizer)
            if self.precision.scaler.is_enabled():
                self.precision.scaler.load_state_dict(dict(found.state["scaler"]))
            self.step = self.saved = found.step
            self.seconds = float(found.state["seconds"])
            self.resumed_from = [*found.state["resumed_from"], found.step]
            self.measure = {"normalised_loss": found.state["held_out"]}
            self.skipped, self.skipped_in_a_row = int(found.state["skipped"]), int(found.state["skipped_in_a_row"])
            before = int(found.state["world"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"the checkpoint of step {found.step} in {self.run} belongs to another model"
            ) from None
        self.say(f"resumed from step {found.step}")
        if before != self.ranks.world:
            self.say(
                f"with {self.ranks.world} process(es) instead of {before}: the same crops in the same order, equal but for rounding"
            )
        return True
