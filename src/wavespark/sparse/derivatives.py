"""Derivatives of higher order for operations whose first derivative is written by hand.

A hand-written backward pass is not part of any graph: differentiated again it would give nothing,
silently. Where a second derivative is asked for (`create_graph=True`), the operation is computed
once more in plain torch operations, which torch differentiates to any order.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from wavespark.errors import SettingsError

if TYPE_CHECKING:

    class Context(FunctionCtx):
        """Storage of a `torch.autograd.Function` between its passes; each function adds attributes
        of its own."""

        saved_tensors: tuple[Tensor, ...]
        needs_input_grad: tuple[bool, ...]

        def save_for_backward(self, *tensors: Tensor | None) -> None: ...
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: object) -> None: ...
else:
    Context = FunctionCtx


def builds_graph() -> bool:
    """Return True inside a backward pass that will itself be differentiated (`create_graph=True`).

    A compiled region refuses second derivatives itself.
    """
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def gradients(
    plain: Callable[..., Tensor], inputs: Sequence[Tensor | None], grad: Tensor, needed: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of `plain(*inputs)`, as part of the graph; None where not needed.

    Args:
        plain: the operation, composed of torch operations alone.
        inputs: its arguments.
        grad: gradient of its result.
        needed: True for each input whose gradient is wanted; may be longer than `inputs`.
    """
    # Views, so that an input that was computed from another one does not pass its gradient on
    # twice.
    views = [None if x is None else x.view_as(x) for x in inputs]
    wanted = [x for x, need in zip(views, needed, strict=False) if need and x is not None]
    with torch.autocast(grad.device.type, enabled=False):
        out = plain(*views)
        results = iter(torch.autograd.grad(out, wanted, grad, create_graph=True, materialize_grads=True))
    return tuple(next(results) if need and x is not None else None for x, need in zip(views, needed, strict=False))


def first_order_only(name: str, x: Tensor) -> Tensor:
    """Return x; a backward pass through it with `create_graph=True` is refused.

    Args:
        name: the engine whose gradients torch cannot differentiate.
        x: an operand of that engine.
    """
    result: Tensor = _FirstOrder.apply(x, name)
    return result


class _FirstOrder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, name: str) -> Tensor:
        ctx.name = name
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None]:
        if builds_graph():
            raise SettingsError(
                f"the sparse engine {ctx.name!r} has no second derivatives (create_graph=True): use the engine 'torch', "
                "with set_engine('torch')"
            )
        return grad, None
