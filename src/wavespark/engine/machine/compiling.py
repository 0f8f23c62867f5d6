"""torch.compile around a model, which is left out where the compiler fails."""

from typing import Any

import torch
from torch import nn

from wavespark.progress import Log

_LEAST = (2, 5)
"""With torch 2.4 the compiler fails within, on values with slots, as if the fault were the
program's; 2.5 was not tried."""


def compile_model(model: nn.Module, requested: str, device: torch.device, log: Log) -> None:
    """Compile the forward pass in place; if the compiler fails, log why and go on without.

    Args:
        model: whose forward pass.
        requested: `on`, `off`, or `auto`: on an accelerator.
        device: where it computes.
        log: called with the reason if the model is not compiled.
    """
    if requested == "off" or (requested == "auto" and device.type == "cpu"):
        return
    if tuple(map(int, torch.__version__.split(".")[:2])) < _LEAST:
        log(
            f"run.compile: goes on without, because the compiler of torch {torch.__version__} cannot trace visible cells"
        )
        return
    plain = model.forward
    try:
        compiled = torch.compile(plain)
    except RuntimeError as error:  # not on this Python or platform
        log(f"run.compile: goes on without, because torch.compile is not possible here ({type(error).__name__})")
        return

    def forward(*arguments: Any, **named: Any) -> Any:
        try:
            return compiled(*arguments, **named)
        except Exception as error:
            if not type(error).__module__.startswith(
                ("torch._dynamo", "torch._inductor", "torch.fx", "torch._functorch")
            ):
                raise
            model.forward = plain  # type: ignore[method-assign]
            first = next(iter(str(error).strip().splitlines()), "")
            log(f"run.compile: goes on without, because the compiler failed ({type(error).__name__}: {first[:200]})")
            return plain(*arguments, **named)

    model.forward = forward  # type: ignore[method-assign]
