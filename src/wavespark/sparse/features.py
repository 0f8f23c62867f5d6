"""Operations that both kinds of sparse value share: types, devices, arithmetic on the features.

Sites stay as they are.
"""

import operator
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from wavespark.errors import ShapeError

Number = int | float
Target = torch.device | torch.dtype | str | int


class Features:
    """Base of `VisibleCells` and `SparseVoxels`: features at sites that do not change."""

    __slots__ = ()

    features: Tensor

    def with_features(self, features: Tensor) -> Self:
        """Return the same sites with other features."""
        raise NotImplementedError

    def on_device(self, device: torch.device, non_blocking: bool = False) -> Self:
        """Return the same value on another device."""
        raise NotImplementedError

    def check_same_sites(self, other: Self) -> None:
        """Raise a ShapeError or SitesError unless both values lie on the same sites."""
        raise NotImplementedError

    @property
    def dtype(self) -> torch.dtype:
        """Type of the features."""
        return self.features.dtype

    @property
    def device(self) -> torch.device:
        """Device of the features."""
        return self.features.device

    @property
    def requires_grad(self) -> bool:
        """True if the features take part in a graph."""
        return self.features.requires_grad

    def to(
        self,
        target: Target | None = None,
        dtype: torch.dtype | None = None,
        *,
        device: torch.device | str | int | None = None,
        non_blocking: bool = False,
    ) -> Self:
        """Return the same value of another type or on another device; arguments as `Tensor.to`.

        Raises:
            ShapeError: if `dtype` is not a floating type.
        """
        if isinstance(target, torch.dtype):
            dtype = target
        elif target is not None:
            device = target
        if dtype is not None and not dtype.is_floating_point:
            raise ShapeError(f"features are floating point, they cannot become {dtype}")
        value = self if device is None else self.on_device(torch.empty(0, device=device).device, non_blocking)
        return value if dtype is None or dtype == value.dtype else value.with_features(value.features.to(dtype))

    def cpu(self) -> Self:
        """Return the same value in the memory of the processor."""
        return self.to("cpu")

    def cuda(self, device: int | None = None) -> Self:
        """Return the same value on a CUDA device."""
        return self.to("cuda" if device is None else f"cuda:{device}")

    def half(self) -> Self:
        """Return the same value in fp16."""
        return self.to(torch.float16)

    def bfloat16(self) -> Self:
        """Return the same value in bf16."""
        return self.to(torch.bfloat16)

    def float(self) -> Self:
        """Return the same value in fp32."""
        return self.to(torch.float32)

    def double(self) -> Self:
        """Return the same value in fp64."""
        return self.to(torch.float64)

    def dim(self) -> int:
        """Refuse: torch's modules for dense tensors ask this of their input first.

        Raises:
            ShapeError: always, naming the sparse modules.
        """
        raise ShapeError(
            f"a module for dense tensors got {self!r}: use the modules of wavespark.sparse (SparseBatchNorm, ...); where "
            "torch.nn.SyncBatchNorm.convert_sync_batchnorm put it there, use wavespark.engine.machine.synced_norm.sync_batch_norm instead"
        )

    def detach(self) -> Self:
        """Return the same value outside the graph; it shares the memory of the features, as
        `Tensor.detach` does."""
        return self.with_features(self.features.detach())

    def clone(self) -> Self:
        """Return a copy of the features on the same sites."""
        return self.with_features(self.features.clone())

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Let the features record gradients, in place."""
        self.features.requires_grad_(requires_grad)
        return self

    def pin_memory(self) -> Self:
        """Return the same value in pinned memory; a `DataLoader` with `pin_memory=True` calls
        this."""
        return self.with_features(self.features.pin_memory())

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return the same sites with `function(features)`."""
        return self.with_features(function(self.features))

    def __neg__(self) -> Self:
        return self.with_features(-self.features)

    def __add__(self, other: Self | Tensor | Number) -> Self:
        return self._combine(other, operator.add)

    def __sub__(self, other: Self | Tensor | Number) -> Self:
        return self._combine(other, operator.sub)

    def __mul__(self, other: Self | Tensor | Number) -> Self:
        return self._combine(other, operator.mul)

    def __truediv__(self, other: Self | Tensor | Number) -> Self:
        return self._combine(other, operator.truediv)

    def __radd__(self, other: Tensor | Number) -> Self:
        return self._combine(other, operator.add)

    def __rmul__(self, other: Tensor | Number) -> Self:
        return self._combine(other, operator.mul)

    def __rsub__(self, other: Tensor | Number) -> Self:
        return self._combine(other, lambda a, b: b - a)

    def __rtruediv__(self, other: Tensor | Number) -> Self:
        return self._combine(other, lambda a, b: b / a)

    def _combine(self, other: Self | Tensor | Number, operation: Callable[..., Tensor]) -> Self:
        """Apply an operation to the features and a number, a tensor that broadcasts to them, or a
        value on the same sites."""
        if isinstance(other, type(self)):
            self.check_same_sites(other)
            if other.features.shape[-1] != self.features.shape[-1]:
                raise ShapeError(
                    f"only values of the same tokens and channels can be combined, got {self!r} and {other!r}"
                )
            return self.with_features(operation(self.features, other.features))
        if isinstance(other, bool) or not isinstance(other, int | float | Tensor):
            return NotImplemented
        if isinstance(other, Tensor):
            self._check_broadcast(other)
        return self.with_features(operation(self.features, other))

    def _check_broadcast(self, other: Tensor) -> None:
        shape = tuple(self.features.shape)
        pairs = list(zip(reversed(tuple(other.shape)), reversed(shape), strict=False))
        if other.ndim > len(shape) or any(n not in {1, have} for n, have in pairs):
            raise ShapeError(
                f"a tensor of shape {tuple(other.shape)} does not broadcast to features of shape {shape}; "
                "for one value a sample use x.of_samples(values_BC)"
            )


def check_samples(values_BC: Tensor, batch_size: int) -> None:
    """Raise a ShapeError unless there is one row of values for each sample."""
    if not isinstance(values_BC, Tensor) or values_BC.ndim != 2 or len(values_BC) != batch_size:
        got = tuple(values_BC.shape) if isinstance(values_BC, Tensor) else type(values_BC).__name__
        raise ShapeError(f"values of samples must be [{batch_size}, C], one row a sample, got {got}")
