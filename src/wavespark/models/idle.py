"""Weights that a step does not use."""

from collections.abc import Iterable

from torch import Tensor, nn


def with_idle(x: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
    """x plus an exact zero of idle parameters: in the graph, so that no rank has an unused one."""
    unused = [p.sum() for p in parameters]
    return x + 0 * sum(unused) if unused else x


def others(modules: nn.ModuleDict, chosen: str) -> Iterable[nn.Parameter]:
    """The parameters of all modules but the chosen one."""
    return (p for name, module in modules.items() if name != chosen for p in module.parameters())
