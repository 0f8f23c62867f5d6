"""Convolutions on sparse values: modules with torch's weights, and the functions behind them.

Rules for sites: a submanifold convolution keeps its sites. A strided one is active where any site of the stride's cell is. A transposed one goes
back to given sites, or to all children. Weights have torch's layout, [out, in, k, k, k] and, transposed, [in, out, k, k, k], so they load into
`nn.Conv3d` and back.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wavespark.errors import ShapeError
from wavespark.shapes import Triple, as_triple, product
from wavespark.sparse.cells import conv as cells
from wavespark.sparse.cells import strided as cell_levels
from wavespark.sparse.cells.conv import ConvolutionPlan, convolution_plan
from wavespark.sparse.cells.value import VisibleCells
from wavespark.sparse.kinds import Layer, T, unknown
from wavespark.sparse.voxels import conv as voxels
from wavespark.sparse.voxels.value import SparseVoxels


def submanifold_conv(x: T, weight: Tensor, bias: Tensor | None = None, dilation: int | Triple = 1) -> T:
    """Return the convolution of x read at its own sites; absent sites read as zero.

    Args:
        x: features of the active sites.
        weight: [out, in, k, k, k], k odd; depthwise [C, 1, k, k, k].
        bias: [out].
        dilation: distance between the taps of the kernel, in sites.

    Raises:
        ShapeError: if weight or dilation do not fit x.
    """
    if isinstance(x, VisibleCells):
        return cells.submanifold_conv(x, weight, bias, dilation)
    if isinstance(x, SparseVoxels):
        return voxels.submanifold_conv(x, weight, bias, dilation)
    raise unknown(x)


def strided_conv(x: T, weight: Tensor, bias: Tensor | None = None, stride: int | Triple = 2) -> T:
    """Return the convolution of x at every cell of the stride that has a site.

    Args:
        x: features of the active sites.
        weight: [out, in, k, k, k]; each k is odd or the stride.
        bias: [out].
        stride: sites of x per site of the result, along each axis.

    Raises:
        ShapeError: if weight or stride do not fit x.
    """
    if isinstance(x, VisibleCells):
        return cell_levels.strided_conv(x, weight, bias, stride)
    if isinstance(x, SparseVoxels):
        return voxels.strided_conv(x, weight, bias, stride)
    raise unknown(x)


def transposed_conv(
    x: T,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Triple = 2,
    like: T | None = None,
    generative: bool = False,
) -> T:
    """Return the adjoint of `strided_conv` at the sites of `like`, or at all children.

    Args:
        x: features of the coarse sites.
        weight: [in, out, k, k, k].
        bias: [out].
        stride: sites of the result per site of x, along each axis.
        like: a value on the sites to return to.
        generative: make all children instead.

    Raises:
        ShapeError: if the weight does not fit, or both or neither of `like` and `generative` are given.
        SitesError: if the sites of `like` are of another lattice.
    """
    if isinstance(x, VisibleCells):
        return cell_levels.transposed_conv(x, weight, bias, stride, like, generative)
    if isinstance(x, SparseVoxels):
        return voxels.transposed_conv(x, weight, bias, stride, like, generative)
    raise unknown(x)


class _Conv(Layer):
    """Weight and bias, initialised like torch's convolutions."""

    def __init__(
        self,
        shape: tuple[int, int],
        out_channels: int,
        kernel_size: int | Triple,
        bias: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.kernel_size = as_triple(kernel_size, "kernel_size")
        if min(*shape, *self.kernel_size) < 1:
            raise ShapeError(f"channels and kernel must be at least 1, got {shape} and {self.kernel_size}")
        self.weight = nn.Parameter(torch.empty(*shape, *self.kernel_size, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming-uniform, as `nn.Conv3d` and `nn.ConvTranspose3d`."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight.shape[1] * product(self.kernel_size))
            nn.init.uniform_(self.bias, -bound, bound)

    def _settings(self, **settings: object) -> str:
        first, second = self.weight.shape[:2]
        channels = (
            (first, second) if isinstance(self, TransposedConv3d) else (second * getattr(self, "groups", 1), first)
        )
        parts = [*map(str, channels), f"kernel_size={_short(self.kernel_size)}"]
        parts += [f"{name}={_short(value) if isinstance(value, tuple) else value}" for name, value in settings.items()]
        return ", ".join([*parts, f"bias={self.bias is not None}"])


def _short(size: tuple[int, ...]) -> str:
    return str(size[0] if len(set(size)) == 1 else size)


class SubmanifoldConv3d(_Conv):
    """A convolution that keeps the sites (kernel 1, 3, 5; any dilation); `groups=in_channels` is the depthwise one."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Triple = 3,
        dilation: int | Triple = 1,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        groups: int = 1,
    ) -> None:
        if groups != 1 and not groups == in_channels == out_channels:
            raise ShapeError(
                f"groups must be 1 or, depthwise, in_channels = out_channels, got {groups} for {in_channels} -> {out_channels} channel(s)"
            )
        super().__init__((out_channels, in_channels // groups), out_channels, kernel_size, bias, device, dtype)
        self.groups = groups
        if any(k % 2 == 0 for k in self.kernel_size):
            raise ShapeError(
                f"a submanifold convolution needs a centre: kernel_size must be odd, got {self.kernel_size}"
            )
        self.dilation = as_triple(dilation, "dilation")

    def forward(self, x: T) -> T:
        """The same sites, `out_channels` channels.

        Raises:
            ShapeError: if `x` has not `in_channels` channels (one input channel must not pass for a depthwise weight).
        """
        return self._convolve(x, self.bias)

    def without_bias(self, x: T) -> T:
        """The same, less the bias: for a norm that follows and would take it away again."""
        return self._convolve(x, None)

    def _convolve(self, x: T, bias: Tensor | None) -> T:
        features, channels = getattr(x, "features", None), self.weight.shape[1] * self.groups
        if features is not None and features.shape[-1] != channels:
            raise ShapeError(f"the weight takes {channels} input channel(s), the features have {features.shape[-1]}")
        return submanifold_conv(x, self.weight, bias, self.dilation)

    def plan(self, x: VisibleCells) -> ConvolutionPlan:
        """Return the form that computes this convolution of visible cells; see `convolution_plan`."""
        return convolution_plan(x, self.weight)

    def extra_repr(self) -> str:
        return self._settings(dilation=self.dilation, **({"groups": self.groups} if self.groups > 1 else {}))


class StridedConv3d(_Conv):
    """A convolution to a coarser lattice (kernel 2 or 3, stride 2)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Triple = 2,
        stride: int | Triple = 2,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__((out_channels, in_channels), out_channels, kernel_size, bias, device, dtype)
        self.stride = as_triple(stride, "stride")

    def forward(self, x: T) -> T:
        """Sites at multiples of `stride` times the stride of x."""
        return strided_conv(x, self.weight, self.bias, self.stride)

    def without_bias(self, x: T) -> T:
        """The same, less the bias: for a norm that follows and would take it away again."""
        return strided_conv(x, self.weight, None, self.stride)

    def extra_repr(self) -> str:
        return self._settings(stride=self.stride)


class TransposedConv3d(_Conv):
    """A convolution to a finer lattice: back to the sites of `like`, or (generative) to all children."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Triple = 2,
        stride: int | Triple = 2,
        generative: bool = False,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__((in_channels, out_channels), out_channels, kernel_size, bias, device, dtype)
        self.stride = as_triple(stride, "stride")
        self.generative = generative

    if TYPE_CHECKING:

        def __call__(self, x: T, like: T | None = None) -> T: ...

    def forward(self, x: T, like: T | None = None) -> T:
        """Sites of `like`, or all children of the sites of x."""
        return transposed_conv(x, self.weight, self.bias, self.stride, like, self.generative)

    def extra_repr(self) -> str:
        return self._settings(stride=self.stride, generative=self.generative)
