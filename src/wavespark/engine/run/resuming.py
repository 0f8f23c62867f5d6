"""Checkpoints of a run: collected from its components, and put back into them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from wavespark.checkpoints import Checkpoint, newest_checkpoint
from wavespark.engine.encoders.initialise import initialise
from wavespark.engine.learning.optimizer import optimizer_tensors, restore_optimizer
from wavespark.engine.machine.distributed import gather_whole, place_like
from wavespark.engine.run import folder
from wavespark.engine.run.components import Components
from wavespark.engine.run.saving import EXTRA
from wavespark.errors import CheckpointError


@dataclass(kw_only=True, slots=True)
class Progress:
    """The position of a run and its counters."""

    step: int = 0
    seconds: float = 0.0
    """Time of all steps, without loading."""
    resumed_from: list[int] = field(default_factory=list)
    skipped: int = 0
    """Steps without an update, because loss or gradient was not finite."""
    skipped_in_a_row: int = 0
    held_out: float | None = None
    """The newest held-out normalised loss."""
    saved: int = -1
    """Step of the newest checkpoint."""


def make_checkpoint(parts: Components, progress: Progress) -> Checkpoint:
    """Collect everything that a run must keep; all processes must call it."""
    model = {name: gather_whole(t) for name, t in parts.model.state_dict().items()}
    model |= {EXTRA + name: t for name, t in parts.objective.extra_tensors().items()}
    return Checkpoint(
        step=progress.step,
        model=model,
        optimizer=optimizer_tensors(parts.objective, parts.optimizer),
        state=_state(parts, progress),
    )


def _state(parts: Components, progress: Progress) -> dict[str, Any]:
    settings = parts.settings.model_dump()
    # Paths of this machine; the weights are in the checkpoint, the split is in the run.
    settings["model"]["init"] = settings["data"]["split_from"] = ""
    return {
        "settings": settings,
        "stems": parts.model.encoder.stem_channels,
        "seconds": progress.seconds,
        "resumed_from": list(progress.resumed_from),
        "skipped": progress.skipped,
        "skipped_in_a_row": progress.skipped_in_a_row,
        "scaler": parts.precision.scaler.state_dict(),
        "objective": parts.objective.extra_state(),
        "alarms": parts.alarms.state(),
        "world": parts.ranks.world,
        "store": parts.store.recipe.fingerprint,
        "preparation": parts.store.recipe.settings,
        "volumes": len(parts.store),
        "contents": parts.contents,
        "held_out": progress.held_out,
    }


def resume_or_begin(parts: Components) -> Progress:
    """Restore the newest checkpoint of the run, or begin with fresh or given (`model.init`)
    weights.

    Raises:
        CheckpointError: if there are checkpoints and none can be used, or `model.init` names no
            weights.
    """
    model = parts.settings.model
    checkpoints = parts.run / folder.CHECKPOINTS
    checkpoint = newest_checkpoint(checkpoints, damaged=lambda text: parts.log(f"passed over: {text}"))
    if checkpoint is None:
        if model.init:
            parts.log(initialise(parts.model.encoder, model.init, model.init_partial))
        return Progress()
    try:
        _check_store(parts, checkpoint.state)
        progress = _restore(parts, checkpoint)
        world = int(checkpoint.state["world"])
        steps = int(checkpoint.state["settings"]["run"]["steps"])
    except CheckpointError:
        raise
    except (KeyError, RuntimeError, TypeError, ValueError):
        raise CheckpointError(
            f"the checkpoint of step {checkpoint.step} in {parts.run} belongs to another model"
        ) from None
    _log_resumption(parts, checkpoint.step, world, steps)
    return progress


def _check_store(parts: Components, state: Mapping[str, Any]) -> None:
    fingerprint, stems = parts.store.recipe.fingerprint, parts.model.encoder.stem_channels
    if state["store"] != fingerprint or state["stems"] != stems:
        raise CheckpointError(
            f"{parts.run} was trained on a store of another recipe or other modalities: use that store, or another --output"
        )
    if state["contents"] != parts.contents:
        raise CheckpointError(
            f"{parts.store.path} no longer holds the {state['volumes']} volumes that {parts.run} was trained on, so its "
            "held-out part would be another one: use that store, another --output, or --fresh"
        )


def _restore(parts: Components, checkpoint: Checkpoint) -> Progress:
    state = checkpoint.state
    own = parts.model.state_dict()
    # A file may list its tensors in any order; processes that share them out must do so in the same
    # order.
    stored = sorted((name, t) for name, t in checkpoint.model.items() if not name.startswith(EXTRA))
    weights = {name: place_like(t, own[name]) if name in own else t for name, t in stored}
    parts.model.load_state_dict(weights)
    parts.objective.restore(_extra(checkpoint.model), state["objective"])
    parts.alarms.restore(state["alarms"])
    restore_optimizer(parts.objective, parts.optimizer, checkpoint.optimizer)
    if parts.precision.scaler.is_enabled():
        parts.precision.scaler.load_state_dict(dict(state["scaler"]))
    return Progress(
        step=checkpoint.step,
        saved=checkpoint.step,
        seconds=float(state["seconds"]),
        resumed_from=[*state["resumed_from"], checkpoint.step],
        held_out=state["held_out"],
        skipped=int(state["skipped"]),
        skipped_in_a_row=int(state["skipped_in_a_row"]),
    )


def _extra(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(EXTRA): t for name, t in tensors.items() if name.startswith(EXTRA)}


def _log_resumption(parts: Components, step: int, world: int, steps: int) -> None:
    parts.log(f"resumed from step {step}")
    if world != parts.ranks.world:
        parts.log(
            f"with {parts.ranks.world} process(es) instead of {world}: the same crops in the same order, equal but for rounding"
        )
    if steps != parts.settings.run.steps:
        parts.log(
            f"run.steps grew from {steps} to {parts.settings.run.steps}: from step {step + 1} the learning rate follows the "
            "schedule of the longer run"
        )
