"""Everything that a run is made of, built once from its settings."""

from dataclasses import dataclass
from pathlib import Path

import torch

from wavespark.config import PretrainSettings
from wavespark.engine.learning.objective import Objective
from wavespark.engine.learning.optimizer import make_optimizer, warmup_steps
from wavespark.engine.learning.update import Updater
from wavespark.engine.machine.compiling import compile_model
from wavespark.engine.machine.device import choose_device
from wavespark.engine.machine.distributed import Ranks, average_gradients, shard
from wavespark.engine.machine.faults import Faults
from wavespark.engine.machine.precision import Precision
from wavespark.engine.run import folder
from wavespark.engine.run.building import build_model, choose_split, contents_of, stems_of
from wavespark.engine.run.saving import Saver
from wavespark.engine.watching.alarms import Alarms
from wavespark.engine.watching.validation import HeldOut
from wavespark.errors import SettingsError
from wavespark.masking import MaskPlan
from wavespark.models import SparK
from wavespark.prepare import Store
from wavespark.progress import Log
from wavespark.sampling import Split


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Components:
    """The parts of a run: data, model, objective, optimizer, and what watches and saves them."""

    settings: PretrainSettings
    store: Store
    run: Path
    """Folder of the run."""
    ranks: Ranks
    log: Log
    device: torch.device
    precision: Precision
    plan: MaskPlan
    split: Split
    held_out: HeldOut
    contents: str
    """Hash of the volumes in the store."""
    model: SparK
    objective: Objective
    optimizer: torch.optim.Optimizer
    alarms: Alarms
    saver: Saver
    parameters: int
    """Number of parameters of the model."""

    def updater(self) -> Updater:
        """Compile the model, join the processes, and return what updates the weights; call it after
        restoring them."""
        run = self.settings.run
        compile_model(self.model, run.compile, self.device, self.log)
        network = average_gradients(self.objective, self.ranks, run.parallel, self.device)
        return Updater(
            self.settings, self.objective, network, self.optimizer, self.precision, self.ranks, Faults.asked_for()
        )


def build_components(settings: PretrainSettings, store: Store, run: Path, log: Log, ranks: Ranks) -> Components:
    """Build the parts of a run with fresh weights.

    Args:
        settings: everything that decides the run.
        store: prepared volumes.
        run: folder of the run.
        log: called with messages for the user.
        ranks: the processes of the run.

    Raises:
        SettingsError: if this machine or this number of processes cannot follow the settings.
        StoreError: if the store has nothing to train on.
    """
    device = choose_device(settings.run.device, ranks.local_rank)
    precision = Precision(settings, device)
    check_shares(settings, ranks, precision)
    model = build_model(settings, stems_of(store)).to(device)
    if settings.run.channels_last:
        model = model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    plan = settings.mask_plan(model.encoder.cell)
    split = choose_split(settings, store)
    held_out = HeldOut.of(store, split, settings, plan)
    parameters = sum(p.numel() for p in model.parameters())  # before the processes share them out
    objective = Objective(settings, model, plan, log).to(device)
    shard(model, ranks, settings.run.parallel)
    return Components(
        settings=settings,
        store=store,
        run=run,
        ranks=ranks,
        log=log,
        device=device,
        precision=precision,
        plan=plan,
        split=split,
        held_out=held_out,
        contents=contents_of(store),
        model=model,
        objective=objective,
        optimizer=make_optimizer(objective, settings.optimizer),
        alarms=Alarms(settings.health, warmup_steps(settings), log, str(run / folder.CHECKPOINTS)),
        saver=make_saver(settings, run, device),
        parameters=parameters,
    )


def check_shares(settings: PretrainSettings, ranks: Ranks, precision: Precision) -> None:
    """Check that the processes can share the batch and the loss.

    Raises:
        SettingsError: if they cannot.
    """
    run = settings.run
    if settings.data.batch % (ranks.world * run.accumulate):
        raise SettingsError(
            f"data.batch {settings.data.batch} cannot be shared by {ranks.world} process(es) in {run.accumulate} "
            "part(s) each: make it a multiple of both"
        )
    if run.parallel == "fsdp" and ranks.world > 1 and precision.scaler.is_enabled():
        raise SettingsError(
            "run.parallel=fsdp cannot scale a loss: use run.precision=bf16, or run.parallel=ddp with fp16"
        )


def make_saver(settings: PretrainSettings, run: Path, device: torch.device) -> Saver:
    """Return the writer of checkpoints.

    With `auto` only accelerators save in the background: a kill may then cost two
    intervals of checkpoints, and a run on a CPU loses one at most."""
    requested = settings.run.save_in_background
    background = device.type != "cpu" if requested == "auto" else requested
    return Saver(run / folder.CHECKPOINTS, settings.run.keep, settings.run.keep_every, background)
