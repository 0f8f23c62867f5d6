"""Parameters that a training step does not use."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from wavespark.sparse.derivatives import Context


def with_idle(x: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return x unchanged, but attach unused parameters to its graph with zero gradients (DDP
    requires every parameter to take part)."""
    unused = [p for p in parameters if p.requires_grad]
    if not unused or not torch.is_grad_enabled():
        return x
    joined: Tensor = _Joined.apply(x, *unused)
    return joined


def others(modules: nn.ModuleDict, chosen: str) -> Iterable[nn.Parameter]:
    """Return the parameters of all modules but the chosen one."""
    return (p for name, module in modules.items() if name != chosen for p in module.parameters())


class _Joined(torch.autograd.Function):
    """x with the parameters behind it; nothing is computed but their zeros."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.like = [(p.shape, p.numel(), p.dtype) for p in parameters]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        parts = grad.new_zeros(sum(count for _, count, _ in ctx.like)).split([count for _, count, _ in ctx.like])
        zeros = (z.view(shape).to(dtype) for z, (shape, _, dtype) in zip(parts, ctx.like, strict=True))
        return grad if ctx.needs_input_grad[0] else None, *zeros
