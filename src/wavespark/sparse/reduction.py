"""Reductions of rows to one, and the type in which they are summed."""

from typing import Literal

import torch

Reduction = Literal["max", "avg", "sum"]


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which values of `dtype` are summed: fp32 at least, so that half precision neither overflows nor stops growing."""
    return torch.promote_types(dtype, torch.float32)
