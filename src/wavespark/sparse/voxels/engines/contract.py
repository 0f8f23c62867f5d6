"""The contract of an engine: it computes the features of a sparse convolution at given sites."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from wavespark.shapes import Triple
from wavespark.sparse.voxels.coordinates import Coordinates


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Convolution:
    """One convolution to compute: source sites, target sites, kernel."""

    source: Coordinates
    target: Coordinates
    kernel: Triple
    stride: Triple = (1, 1, 1)
    dilation: Triple = (1, 1, 1)
    transposed: bool = False
    """From coarse to fine sites: the adjoint of the strided convolution."""
    depthwise: bool = False
    """Each channel alone; the weight is [C, 1, k, k, k].

    Submanifold convolutions by the engine `torch`.
    """

    @property
    def is_submanifold(self) -> bool:
        """True if input and output are the same rows."""
        return self.source is self.target


class Engine(Protocol):
    """Computes convolutions on sparse sites, differentiable in features and weight."""

    name: str

    def convolve(self, features_NC: Tensor, weight: Tensor, task: Convolution) -> Tensor:
        """Return [n, C_out]: features at the sites of `task.target`, in their order.

        Args:
            features_NC: rows as the sites of `task.source`.
            weight: [out, in, k, k, k], or [in, out, k, k, k] if transposed.
        """
        ...
