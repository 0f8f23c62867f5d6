"""Time of the parts of a step: encode, decode, loss, backward, update.

Measured with hooks on the code that a run uses.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from wavespark.engine.learning.objective import Objective

PARTS = ("load", "encode", "decode", "loss", "backward", "update")


@contextmanager
def watched(objective: Objective, optimizer: torch.optim.Optimizer) -> Iterator[dict[str, float]]:
    """Collect wall-clock seconds in a dict inside the context: `model` (forward), `decoder` (its
    part),
    `objective` (forward, with the model), `optimizer`."""
    spent: dict[str, float] = {}
    began: dict[str, float] = {}

    def before(name: str) -> Callable[..., None]:
        def note(*_: Any) -> None:
            began[name] = _now()

        return note

    def after(name: str) -> Callable[..., None]:
        def note(*_: Any) -> None:
            spent[name] = spent.get(name, 0.0) + _now() - began[name]

        return note

    modules = {"model": objective.model, "decoder": objective.model.decoder, "objective": objective}
    hooks: list[Any] = []
    for name, module in modules.items():
        hooks += [module.register_forward_pre_hook(before(name)), module.register_forward_hook(after(name))]
    hooks += [
        optimizer.register_step_pre_hook(before("optimizer")),
        optimizer.register_step_post_hook(after("optimizer")),
    ]
    try:
        yield spent
    finally:
        for hook in hooks:
            hook.remove()


def parts_of(spent: dict[str, float], whole: float, load: float, steps: int) -> dict[str, float]:
    """Seconds a step of each part.

    Args:
        spent: what `watched` collected.
        whole: seconds of all steps, without loading.
        load: seconds of loading.
        steps: how many.
    """
    model, decoder, objective, optimizer = (spent.get(k, 0.0) for k in ("model", "decoder", "objective", "optimizer"))
    found = (load, model - decoder, decoder, objective - model, whole - objective - optimizer, optimizer)
    return {name: round(max(0.0, seconds) / steps, 6) for name, seconds in zip(PARTS, found, strict=True)}


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
