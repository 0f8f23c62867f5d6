"""Modules that act on each active row alone: activations, dropout, a linear layer.

Absent sites stay absent.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from wavespark.errors import ShapeError
from wavespark.sparse.cells.value import VisibleCells
from wavespark.sparse.kinds import Layer, T, unknown
from wavespark.sparse.voxels.value import SparseVoxels


def _mapped(x: T, function: Callable[[Tensor], Tensor]) -> T:
    """Return x with a function of its features."""
    if not isinstance(x, VisibleCells | SparseVoxels):
        raise unknown(x)
    return x.with_features(function(x.features))


class SparseReLU(Layer):
    """max(0, x) at the active sites.

    Args:
        inplace: overwrite the features, as `nn.ReLU` does.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: T) -> T:
        """Return the same sites."""
        return _mapped(x, lambda t: functional.relu(t, inplace=self.inplace))


class SparseLeakyReLU(Layer):
    """x where it is positive, else `negative_slope` times x, at the active sites.

    Args:
        negative_slope: slope below zero.
        inplace: overwrite the features, as `nn.LeakyReLU` does.
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope, self.inplace = negative_slope, inplace

    def forward(self, x: T) -> T:
        """Return the same sites."""
        return _mapped(x, lambda t: functional.leaky_relu(t, self.negative_slope, self.inplace))

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class SparseGELU(Layer):
    """x * Phi(x) at the active sites.

    Args:
        approximate: `none` or `tanh`, as in `nn.GELU`.
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        if approximate not in {"none", "tanh"}:
            raise ShapeError(f"approximate is 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate

    def forward(self, x: T) -> T:
        """Return the same sites."""
        return _mapped(x, lambda t: functional.gelu(t, approximate=self.approximate))


class SparseSiLU(Layer):
    """x * sigmoid(x) at the active sites.

    Args:
        inplace: overwrite the features, as `nn.SiLU` does.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: T) -> T:
        """Return the same sites."""
        return _mapped(x, lambda t: functional.silu(t, inplace=self.inplace))


class SparseDropout(Layer):
    """`nn.Dropout` of single features at the active sites, in training.

    Args:
        p: probability to zero a feature.
        inplace: overwrite the features, as `nn.Dropout` does.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace
        if not 0 <= p <= 1:
            raise ShapeError(f"a probability lies between 0 and 1, got {p}")
        self.p = p

    def forward(self, x: T) -> T:
        """Return the same sites."""
        return _mapped(x, lambda t: functional.dropout(t, self.p, self.training, self.inplace))

    def extra_repr(self) -> str:
        return f"p={self.p}"


class SparseLinear(Layer):
    """`nn.Linear` over the channels of each active row; its parameters load into `nn.Linear` and
    back.

    Args:
        in_features: channels of the input.
        out_features: channels of the result.
        bias: add a learned bias.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if min(in_features, out_features) < 1:
            raise ShapeError(f"SparseLinear needs at least 1 channel, got {in_features} and {out_features}")
        self.in_features, self.out_features = in_features, out_features
        fresh = nn.Linear(in_features, out_features, bias, device, dtype)
        self.weight, self.bias = fresh.weight, fresh.bias if bias else None

    def forward(self, x: T) -> T:
        """Return the same sites with `out_features` channels.

        Raises:
            ShapeError: if the channels differ.
        """

        def linear(features: Tensor) -> Tensor:
            if features.shape[-1] != self.in_features:
                raise ShapeError(f"SparseLinear({self.in_features}, {self.out_features}) got {x!r}")
            return functional.linear(features, self.weight, self.bias)

        return _mapped(x, linear).zero_outside()

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"
