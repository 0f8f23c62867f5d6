"""AdamW with weight decay on matrices only, and its state by parameter name."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wavespark.config.pretrain import OptimizerSettings
from wavespark.errors import CheckpointError

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """Decay for weights of two or more axes; none for biases, norms and mask tokens."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    fused = all(p.is_cuda for p in model.parameters())
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=fused)


def learning_rate(step: int, steps: int, settings: OptimizerSettings) -> float:
    """Linear warm-up, then half a cosine down to `final_fraction` (Loshchilov and Hutter, "SGDR", 2017). `step` counts from 1."""
    warmup = min(settings.warmup_steps, steps // 2)
    if step <= warmup:
        return settings.learning_rate * step / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    low = settings.final_fraction
    return settings.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress)))


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`NAME.exp_avg` and so on."""
    return {f"{name}.{key}": value for name, p in model.named_parameters() for key, value in optimizer.state[p].items()}


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts the moments back; a parameter that was never updated has none.

    Raises:
        CheckpointError: if one is missing.
    """
    for name, p in model.named_parameters():
        moments = {key: tensors[f"{name}.{key}"] for key in _MOMENTS if f"{name}.{key}" in tensors}
        if not moments:
            continue
        if len(moments) < len(_MOMENTS):
            raise CheckpointError(f"the checkpoint's optimiser state for {name} is not whole: it belongs to another model")
        optimizer.state[p] = {
            "step": moments["step"] if not optimizer.defaults["fused"] else moments["step"].to(p.device),
            "exp_avg": moments["exp_avg"].to(p.device),
            "exp_avg_sq": moments["exp_avg_sq"].to(p.device),
        }
