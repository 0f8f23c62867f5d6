"""What a run holds between two steps: built from the settings, put into a checkpoint, and taken back out of the newest one."""

from pathlib import Path
from typing import Any

import torch

from wavespark.checkpoints import Checkpoint, newest_checkpoint
from wavespark.config import PretrainSettings
from wavespark.engine.encoders.initialise import initialise
from wavespark.engine.learning.objective import Objective
from wavespark.engine.learning.optimizer import make_optimizer, optimizer_tensors, restore_optimizer, warmup_steps
from wavespark.engine.learning.update import Updater
from wavespark.engine.machine.compiling import compile_model
from wavespark.engine.machine.device import choose_device
from wavespark.engine.machine.distributed import Ranks, across, like, shard, whole
from wavespark.engine.machine.faults import Faults
from wavespark.engine.machine.precision import Precision
from wavespark.engine.run import folder
from wavespark.engine.run.building import build_model, choose_split, contents_of, stems_of
from wavespark.engine.run.saving import EXTRA, Saver
from wavespark.engine.watching.alarms import Alarms
from wavespark.engine.watching.validation import HeldOut
from wavespark.errors import CheckpointError, SettingsError
from wavespark.prepare import Store
from wavespark.progress import Log


class Training:
    """Model, objective, optimiser, data and counters of a run, as its newest checkpoint left them.

    Args:
        settings: everything that decides the run.
        store: prepared volumes.
        run: its folder.
        log: called with what a person should know.
        ranks: the processes of the run.

    Raises:
        SettingsError: if they cannot be followed here.
        CheckpointError: if there are checkpoints and none can be used.
    """

    def __init__(self, settings: PretrainSettings, store: Store, run: Path, log: Log, ranks: Ranks) -> None:
        if settings.data.batch % (ranks.world * settings.run.accumulate):
            raise SettingsError(
                f"data.batch {settings.data.batch} cannot be shared by {ranks.world} process(es) in {settings.run.accumulate} part(s) each: "
                "make it a multiple of both"
            )
        self.settings, self.store, self.run, self.log, self.ranks = settings, store, run, log, ranks
        self.device = choose_device(settings.run.device, ranks.local_rank)
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
        self.objective = Objective(settings, model, self.masking, log).to(self.device)
        shard(model, ranks, settings.run.parallel)
        self.optimizer = make_optimizer(self.objective, settings.optimizer)
        self.alarms = Alarms(settings.health, warmup_steps(settings), log, str(run / folder.CHECKPOINTS))
        self.step = 0
        self.seconds = 0.0
        self.resumed_from: list[int] = []
        self.skipped = self.skipped_in_a_row = 0
        self.measure: dict[str, Any] = {}
        behind = settings.run.save_in_background
        # Written behind the training, a kill may cost two intervals; a run on a CPU loses one at most.
        background = self.device.type != "cpu" if behind == "auto" else behind
        self.saver = Saver(run / folder.CHECKPOINTS, settings.run.keep, settings.run.keep_every, background)
        self.saved = -1
        if not self._restore() and settings.model.init:
            log(initialise(model.encoder, settings.model.init, settings.model.init_partial))
        compile_model(model, settings.run.compile, self.device, log)
        network = across(self.objective, ranks, settings.run.parallel, self.device)
        faults = Faults.asked_for()
        self.update = Updater(settings, self.objective, network, self.optimizer, self.precision, ranks, faults)

    def checkpoint(self) -> Checkpoint:
        """Everything as it is now; all processes must ask."""
        model = {name: whole(t) for name, t in self.model.state_dict().items()}
        model |= {EXTRA + name: t for name, t in self.objective.extra_tensors().items()}
        return Checkpoint(
            step=self.step,
            model=model,
            optimizer=optimizer_tensors(self.objective, self.optimizer),
            state=self._state(),
        )

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
        found = newest_checkpoint(self.run / folder.CHECKPOINTS, damaged=lambda text: self.log(f"passed over: {text}"))
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
            # A file tells its tensors in any order; processes that share them out must do it in the same one.
            told = sorted((k, t) for k, t in found.model.items() if not k.startswith(EXTRA))
            weights = {k: like(t, own[k]) if k in own else t for k, t in told}
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
        self.log(f"resumed from step {found.step}")
        if before != self.ranks.world:
            self.log(
                f"with {self.ranks.world} process(es) instead of {before}: the same crops in the same order, equal but for rounding"
            )
        return True
