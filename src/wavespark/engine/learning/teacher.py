"""EMA teacher: an exponential moving average of the model's weights (Tarvainen and Valpola, "Mean
teachers", 2017)."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from wavespark.engine.machine.distributed import gather_whole
from wavespark.models import SparK


class Teacher:
    """Follows a model and is never trained.

    It is not a submodule, so nothing that walks over weights finds it.

    Args:
        model: what to follow; it begins as a copy.
        momentum: share of itself that it keeps at every step; at the first steps less, so that it
            soon leaves the fresh weights behind.
    """

    def __init__(self, model: SparK, momentum: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.momentum = momentum

    @torch.no_grad()
    def follow(self, model: SparK, step: int) -> None:
        """One step (counted from 1) towards the model; buffers are copied."""
        keep = min(self.momentum, (1 + step) / (10 + step))
        own = dict(self.model.named_parameters())
        for name, p in model.named_parameters():
            own[name].lerp_(gather_whole(p.detach()).to(own[name].dtype), 1 - keep)
        buffers = dict(self.model.named_buffers())
        for name, b in model.named_buffers():
            buffers[name].copy_(b)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors for a checkpoint."""
        return self.model.state_dict()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `tensors` gave.

        Raises:
            RuntimeError: if it does not fit.
        """
        self.model.load_state_dict(dict(tensors))
