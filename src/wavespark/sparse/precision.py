"""The types that sparse operations compute and accumulate in."""

from typing import Literal

import torch
from torch import Tensor

from wavespark.errors import ShapeError

Reduction = Literal["max", "avg", "sum"]
"""Ways to reduce several rows to one."""


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which values of `dtype` are summed: fp32 at least, so that half precision
    neither overflows nor stops growing."""
    return torch.promote_types(dtype, torch.float32)


def compute_dtype(features: Tensor) -> torch.dtype:
    """Return the type that a convolution of `features` computes in: autocast's where that is on,
    else their own."""
    device = features.device.type
    if torch.is_autocast_enabled(device) and features.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return features.dtype


def operands(features: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in the type of the computation, which is autocast's where that is on.

    Raises:
        ShapeError: if they are of different types.
    """
    if torch.is_autocast_enabled(features.device.type) and features.dtype != torch.float64:
        dtype = compute_dtype(features)
        return features.to(dtype), weight.to(dtype)
    if features.dtype != weight.dtype:
        raise ShapeError(
            f"features are {features.dtype} and the weight is {weight.dtype}: convert one, or use autocast"
        )
    return features, weight
