"""Convolutions on sparse values: modules with torch's weights, and the functions behind them.

Rules for sites: a submanifold convolution keeps its sites. A strided one is active where any site
of the stride's cell is. A transposed one goes back to given sites, or to all children. Weights have
torch's layout, [out, in, k, k, k] and, transposed, [in, out, k, k, k], so they load into
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
from wavespark.sparse.cells.conv import ConvolutionPlan, Form, convolution_plan
from wavespark.sparse.cells.value import VisibleCells
from wavespark.sparse.kinds import Layer, T, at_least_one, unknown
from wavespark.sparse.voxels import conv as voxels
from wavespark.sparse.voxels.value import SparseVoxels


def submanifold_conv(
    x: T, weight: Tensor, bias: Tensor | None = None, dilation: int | Triple = 1, form: Form | None = None
) -> T:
    """Return the convolution of x read at its own sites; absent sites read as zero.

    Args:
        x: features of the active sites.
        weight: [out, in, k, k, k], k odd; depthwise [C, 1, k, k, k].
        bias: [out].
        dilation: distance between the taps of the kernel, in sites; visible cells take 1.
        form: how to compute it on visible cells, by default the cheapest (`convolution_plan`);
            sparse voxels have engines instead.

    Raises:
        ShapeError: if weight, dilation or form do not fit x.
    """
    if isinstance(x, VisibleCells):
        return cells.submanifold_conv(x, weight, bias, dilation, form)
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
        ShapeError: if the weight does not fit, or both or neither of `like` and `generative` are
            given.
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
    """A convolution that keeps the sites.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the result.
        kernel_size: odd along each axis.
        dilation: distance between the taps; visible cells take 1.
        bias: add a learned bias.
        groups: 1, or `in_channels` for a depthwise convolution.
        form: how to compute it on visible cells (`halo`, `faces`, `columns`, `whole`); by default
            the cheapest.
    """

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
        form: Form | None = None,
    ) -> None:
        if groups != 1 and not groups == in_channels == out_channels:
            raise ShapeError(
                f"groups must be 1 or, depthwise, in_channels = out_channels, got {groups} for {in_channels} -> {out_channels} channel(s)"
            )
        super().__init__((out_channels, in_channels // groups), out_channels, kernel_size, bias, device, dtype)
        self.groups, self.form = groups, form
        if any(k % 2 == 0 for k in self.kernel_size):
            raise ShapeError(
                f"a submanifold convolution needs a centre: kernel_size must be odd, got {self.kernel_size}"
            )
        self.dilation = at_least_one(as_triple(dilation, "dilation"), "dilation")

    def forward(self, x: T) -> T:
        """Return the same sites with `out_channels` channels.

        Raises:
            ShapeError: if `x` has not `in_channels` channels (one input channel must not pass for a
                depthwise weight).
        """
        return self._convolve(x, self.bias)

    def without_bias(self, x: T) -> T:
        """Return the convolution without its bias, for a norm that follows and would subtract it
        again."""
        return self._convolve(x, None)

    def _convolve(self, x: T, bias: Tensor | None) -> T:
        features, channels = getattr(x, "features", None), self.weight.shape[1] * self.groups
        if features is not None and features.shape[-1] != channels:
            raise ShapeError(f"the weight takes {channels} input channel(s), the features have {features.shape[-1]}")
        return submanifold_conv(x, self.weight, bias, self.dilation, self.form)

    def plan(self, x: VisibleCells) -> ConvolutionPlan:
        """Return the form that computes this convolution of visible cells; see
        `convolution_plan`."""
        return convolution_plan(x, self.weight)

    def extra_repr(self) -> str:
        return self._settings(dilation=self.dilation, **({"groups": self.groups} if self.groups > 1 else {}))


class StridedConv3d(_Conv):
    """A convolution to a coarser lattice.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the result.
        kernel_size: along each axis odd (centred) or equal to the stride (tiles).
        stride: sites of the input per site of the result.
        bias: add a learned bias.
    """

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
        self.stride = at_least_one(as_triple(stride, "stride"), "stride")

    def forward(self, x: T) -> T:
        """Return sites at multiples of `stride` times the stride of x."""
        return strided_conv(x, self.weight, self.bias, self.stride)

    def without_bias(self, x: T) -> T:
        """Return the convolution without its bias, for a norm that follows and would subtract it
        again."""
        return strided_conv(x, self.weight, None, self.stride)

    def extra_repr(self) -> str:
        return self._settings(stride=self.stride)


class TransposedConv3d(_Conv):
    """A convolution to a finer lattice: back to the sites of `like`, or (generative) to all
    children.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the result.
        kernel_size: along each axis odd (centred) or equal to the stride (tiles).
        stride: sites of the result per site of the input.
        generative: make all children of the input's sites instead of returning to given ones.
        bias: add a learned bias.
    """

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
        self.stride = at_least_one(as_triple(stride, "stride"), "stride")
        self.generative = generative

    if TYPE_CHECKING:

        def __call__(self, x: T, like: T | None = None) -> T: ...

    def forward(self, x: T, like: T | None = None) -> T:
        """Return the sites of `like`, or all children of the sites of x."""
        return transposed_conv(x, self.weight, self.bias, self.stride, like, self.generative)

    def extra_repr(self) -> str:
        return self._settings(stride=self.stride, generative=self.generative)
