"""The number type of the matrix products, and the loss scaling that fp16 needs."""

from contextlib import AbstractContextManager

import torch

from wavespark.config import PretrainSettings


class Precision:
    """Autocast and loss scaling of a run.

    Args:
        settings: `run.precision`; auto is bf16 on an accelerator that has it, fp16 with loss
            scaling on one that has not, fp32 on a CPU.
        device: where the run computes.
    """

    def __init__(self, settings: PretrainSettings, device: torch.device) -> None:
        self.device = device
        self.dtype = _chosen(settings, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)

    @property
    def name(self) -> str:
        """`fp32`, `bf16` or `fp16`."""
        return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.dtype]

    def autocast(self) -> AbstractContextManager[None]:
        """Compute matrix products in the selected precision inside the context."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


def _chosen(settings: PretrainSettings, device: torch.device) -> torch.dtype:
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if settings.run.precision != "auto":
        return named[settings.run.precision]
    if device.type == "cpu":
        return torch.float32
    # Emulated bf16 is much slower than the fp16 that such cards have.
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
