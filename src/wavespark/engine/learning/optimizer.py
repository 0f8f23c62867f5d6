"""AdamW with weight decay on matrices only and a learning rate that may fall from layer to layer;
its state by parameter name."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wavespark.config import PretrainSettings
from wavespark.config.pretrain import OptimizerSettings
from wavespark.engine.learning.schedule import learning_rate_at
from wavespark.engine.machine.distributed import gather_whole, place_like
from wavespark.errors import CheckpointError

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """Return AdamW over the parameters of a model.

    With `layer_decay` below 1 the learning rate falls from each layer of the encoder to the one
    below (Clark et al., "ELECTRA", 2020, appendix).
    """
    layers = layers_of(model)
    top = max(layers.values(), default=0)
    groups = parameter_groups(model, settings.weight_decay, lambda name: settings.layer_decay ** (top - layers[name]))
    fused = all(p.is_cuda for p in model.parameters())
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=fused)


def parameter_groups(
    model: nn.Module, weight_decay: float, lr_scale: Callable[[str], float] = lambda name: 1.0
) -> list[dict[str, Any]]:
    """Return parameter groups for an optimizer, each with `params`, `weight_decay` and `lr_scale`.

    Args:
        model: whose parameters are grouped, in their order.
        weight_decay: of parameters with two or more axes; biases, norms and mask tokens have none.
        lr_scale: share of the learning rate for a parameter of that name; see `set_learning_rate`.
    """
    groups: defaultdict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, p in model.named_parameters():
        groups[weight_decay if p.ndim > 1 else 0.0, lr_scale(name)].append(p)
    return [{"params": ps, "weight_decay": decay, "lr_scale": scale} for (decay, scale), ps in groups.items()]


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group to its `lr_scale` times the rate; a group without one
    gets the rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


_PLACE = re.compile(r"(?:^|\.)encoder\.(stages|blocks|merges|down|norms)\.(\d+)(?:\.(\d+))?")


def layers_of(model: nn.Module) -> dict[str, int]:
    """Return the layer of each parameter: 0 = stem, then the blocks of the encoder in their order;
    what follows the encoder is one above its last."""
    places: dict[str, tuple[int, int]] = {}
    for name, _ in model.named_parameters():
        if match := _PLACE.search(name):
            kind, stage, block = match[1], int(match[2]), int(match[3] or 0)
            # A merge leads to the next stage; a norm closes its own.
            places[name] = (stage + 1, -1) if kind == "merges" else (stage, 10**6 if kind == "norms" else block)
    blocks = sorted({p for name, p in places.items() if ".norms." not in name and ".merges." not in name})
    rank = {place: 1 + i for i, place in enumerate(blocks)}
    layers = {}
    for name, _ in model.named_parameters():
        if name in places:
            below = [r for place, r in rank.items() if place <= places[name]]
            first = [r for place, r in rank.items() if place >= places[name]]
            layers[name] = rank.get(places[name]) or (
                min(first) if places[name][1] < 0 and first else max(below, default=1)
            )
        else:
            layers[name] = 0 if re.search(r"(?:^|\.)encoder\.", name) else len(blocks) + 1
    return layers


def warmup_steps(settings: PretrainSettings) -> int:
    """Return the steps of the warm-up: at most half of the run."""
    return min(settings.optimizer.warmup_steps, settings.run.steps // 2)


def rate_at(step: int, settings: PretrainSettings) -> float:
    """Return the learning rate of a step (counted from 1) of a run."""
    o = settings.optimizer
    return learning_rate_at(step, settings.run.steps, o.learning_rate, warmup_steps(settings), o.final_fraction)


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`NAME.exp_avg` and so on, whole; of sharded parameters all processes must ask."""
    return {
        f"{name}.{key}": gather_whole(value)
        for name, p in trained(model)
        for key, value in optimizer.state.get(p, {}).items()
    }


def trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the trained parameters under their names in a checkpoint, without the objective's
    prefix."""
    return [(name.removeprefix("model."), p) for name, p in model.named_parameters() if p.requires_grad]


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts the moments back; a parameter that was never updated has none.

    Raises:
        CheckpointError: if one is missing, has another shape, or is of no parameter.
    """
    known = {f"{name}.{key}": p.shape for name, p in trained(model) for key in _MOMENTS}
    foreign = [n for n, t in tensors.items() if n not in known or (t.shape != known[n] and not n.endswith(".step"))]
    if foreign:
        raise CheckpointError(
            f"the checkpoint's optimiser state holds {len(foreign)} tensor(s) that fit no parameter, e.g. {foreign[0]!r}: it belongs to another model"
        )
    for name, p in trained(model):
        moments = {key: tensors[f"{name}.{key}"] for key in _MOMENTS if f"{name}.{key}" in tensors}
        if not moments:
            continue
        if len(moments) < len(_MOMENTS):
            raise CheckpointError(
                f"the checkpoint's optimiser state for {name} is not whole: it belongs to another model"
            )
        optimizer.state[p] = {
            "step": moments["step"] if not optimizer.defaults["fused"] else moments["step"].to(p.device),
            "exp_avg": place_like(moments["exp_avg"], p),
            "exp_avg_sq": place_like(moments["exp_avg_sq"], p),
        }
