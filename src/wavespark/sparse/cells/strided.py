"""Convolutions between levels of visible cells: down by a stride, and transposed back up.

An even kernel must equal its stride: every window lies inside a cell, so the convolution is one
matrix product over windows. An odd kernel is centred, as a dense convolution with padding k // 2;
its windows reach into the cells below and, for large kernels, above. Both gradients gather too:
what a fine token contributed is read from the coarser grid, by the transposed convolution. So
strided and transposed convolution are each other's gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product as combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from wavespark.errors import ShapeError
from wavespark.shapes import Triple, as_triple
from wavespark.sparse.cells.forms import tuning
from wavespark.sparse.cells.forms.gradient import convolution_weight_gradient, summed
from wavespark.sparse.cells.forms.halo import gathered, halo_index, halos, joined
from wavespark.sparse.cells.value import VisibleCells
from wavespark.sparse.derivatives import Context, builds_graph, gradients
from wavespark.sparse.precision import operands

_READERS = {0: (1,), 1: (2, 0)}
"""Kernel positions that read a fine token of that parity, in the order of the windows they belong
to (kernel 3, stride 2)."""


@dataclass(frozen=True, slots=True)
class Window:
    """The fine tokens that a coarse token reads: from `-first` to `kernel - 1 - first` around
    `stride` times its position."""

    kernel: Triple
    stride: Triple

    @property
    def first(self) -> Triple:
        """Fine tokens that are read below the position: half an odd kernel, none of an even one."""
        d, h, w = (k // 2 if k % 2 else 0 for k in self.kernel)
        return d, h, w

    @property
    def tiles(self) -> bool:
        """True if windows neither overlap nor reach beyond a cell."""
        return self.kernel == self.stride and not any(self.first)

    @property
    def fine_reach(self) -> tuple[Triple, Triple]:
        """Fine tokens below and above a cell that its windows read."""
        a, b, c = (max(0, k - f - s) for k, s, f in zip(self.kernel, self.stride, self.first, strict=True))
        return self.first, (a, b, c)

    @property
    def coarse_reach(self) -> tuple[Triple, Triple]:
        """Coarse tokens below and above a cell whose windows read its fine tokens."""
        pairs = list(zip(self.kernel, self.stride, self.first, strict=True))
        d, h, w = ((k - 1 - f) // s for k, s, f in pairs)
        a, b, c = ((f - 1) // s + 1 for _, s, f in pairs)
        return (d, h, w), (a, b, c)

    def check(self, x: VisibleCells) -> None:
        """Raise a ShapeError if an even kernel differs from its stride, or anything is below 1."""
        if min(*self.kernel, *self.stride) < 1:
            raise ShapeError(f"kernel {self.kernel} and stride {self.stride} must be at least 1")
        if any(k % 2 == 0 and k != s for k, s in zip(self.kernel, self.stride, strict=True)):
            raise ShapeError(
                f"along each axis a kernel is odd (centred) or equals its stride (tiles), got kernel {self.kernel} with stride {self.stride} for {x!r}"
            )


def windows(features: Tensor, size: Triple) -> Tensor:
    """Return [N, b/s, b/s, b/s, s, s, s, C]: the windows of each cell; needs b divisible by s."""
    (_, bd, bh, bw, channels), (d, h, w) = features.shape, size
    return features.reshape(-1, bd // d, d, bh // h, h, bw // w, w, channels).permute(0, 1, 3, 5, 2, 4, 6, 7)


def check_windows(x: VisibleCells, size: Triple) -> None:
    """Raise a ShapeError unless windows of `size` tile the cells of x."""
    if any(b % s for b, s in zip(x.block, size, strict=True)):
        raise ShapeError(
            f"a stride of {size} does not divide the tokens of a cell of {x!r}. Sparse voxels, x.to_sparse(), take any"
        )


def strided_conv(x: VisibleCells, weight: Tensor, bias: Tensor | None = None, stride: int | Triple = 2) -> VisibleCells:
    """Return the convolution to b / stride tokens along each edge of a cell; hidden and outside
    tokens read zero.

    Args:
        x: features [N, b, b, b, C].
        weight: [C_out, C, k, k, k]; along each axis k is odd (padding k // 2 in a dense
            convolution) or equals the stride (no padding).
        bias: [C_out].
        stride: must divide b.

    Raises:
        ShapeError: if weight or stride do not fit.
    """
    steps = as_triple(stride, "stride")
    window = Window(
        _kernel(x, weight, weight.shape[1] if weight.ndim == 5 else 0, f"[out, {x.channels}, k, k, k]"), steps
    )
    window.check(x)
    check_windows(x, steps)
    x = x.zero_outside()
    features, weight = operands(x.features, weight)
    if window.tiles:
        out = F.linear(windows(features, steps).flatten(4), weight.movedim(1, -1).flatten(1))
    elif not len(x):
        out = _nothing(x, [b // s for b, s in zip(x.block, steps, strict=True)], features, weight, weight.shape[0])
    else:
        d, h, w = (b // s for b, s in zip(x.block, steps, strict=True))
        below = halo_index(x.layout, x.block, *window.fine_reach)
        above = halo_index(x.layout, (d, h, w), *window.coarse_reach)
        out = HaloStrided.apply(features, weight, steps, len(below), *below, *above)
    return x.with_features(out if bias is None else out + bias.to(out.dtype))


def transposed_conv(
    x: VisibleCells,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Triple = 2,
    like: VisibleCells | None = None,
    generative: bool = False,
) -> VisibleCells:
    """Return the transposed convolution, the adjoint of `strided_conv`, to b * stride tokens along
    each edge of a cell.

    Args:
        x: features [N, b, b, b, C].
        weight: [C, C_out, k, k, k]; along each axis k is odd or equals the stride.
        bias: [C_out].
        stride: tokens that each token becomes, along each axis.
        like: the level to return to; or else `generative`, all children. On the same cells both are
            the same tokens.
        generative: see `like`. Tokens beyond the crop, in last cells that reach over its end, are
            kept and mean nothing, as everywhere on cells: `to_dense` and `to_sparse` cut them, so
            that a token at the crop's end has fewer children than the same site of sparse voxels.

    Raises:
        ShapeError: if the weight does not fit, tokens would be finer than voxels, or `like` is
            another level.
    """
    steps = as_triple(stride, "stride")
    window = Window(_kernel(x, weight, weight.shape[0], f"[{x.channels}, out, k, k, k]"), steps)
    window.check(x)
    d, h, w = (b * s for b, s in zip(x.block, steps, strict=True))
    _check_target(x, (d, h, w), like, generative)
    x = x.zero_outside()
    features, weight = operands(x.features, weight)
    if window.tiles:
        out = F.linear(features, weight.flatten(1).T).unflatten(-1, (-1, *steps))  # [N, b, b, b, C_out, s, s, s]
        out = out.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(len(x), d, h, w, -1)
    elif not len(x):
        out = _nothing(x, (d, h, w), features, weight, weight.shape[1])
    else:
        above = halo_index(x.layout, x.block, *window.coarse_reach)
        below = halo_index(x.layout, (d, h, w), *window.fine_reach)
        out = HaloTransposed.apply(features, weight, steps, len(below), *below, *above)
    return x.with_features(out if bias is None else out + bias.to(out.dtype))


def _kernel(x: VisibleCells, weight: Tensor, channels: int, expected: str) -> Triple:
    if weight.ndim != 5 or channels != x.channels:
        raise ShapeError(f"{x!r} takes a weight {expected}, got {tuple(weight.shape)}")
    _, _, d, h, w = weight.shape
    return d, h, w


def _nothing(x: VisibleCells, block: Sequence[int], features: Tensor, weight: Tensor, channels: int) -> Tensor:
    """Return no rows, with the weight in their graph: its gradient is an exact zero."""
    return features.new_zeros(len(x), *block, channels) + 0 * (features.sum() + weight.sum())


def _check_target(x: VisibleCells, block: Triple, like: object, generative: bool) -> None:
    if generative == (like is not None):
        raise ShapeError(
            "a transposed convolution goes back to given sites (like=...) or makes all children (generative=True): "
            "choose one of them"
        )
    if like is None:
        return
    if not isinstance(like, VisibleCells) or like.block != block or not x.layout.same_as(like.layout):
        raise ShapeError(f"{x!r} becomes {block} tokens in the same cells, but like= is {like!r}")


class HaloStrided(torch.autograd.Function):
    """[N, b, b, b, C] -> [N, b/s, b/s, b/s, C_out]; of `indices` the first `count` are the
    `halo_index` of the fine grid, the others of the coarse one."""

    @staticmethod
    def forward(ctx: Context, features: Tensor, weight: Tensor, stride: Triple, count: int, *indices: Tensor) -> Tensor:
        ctx.save_for_backward(features, weight, *indices)
        ctx.stride, ctx.count = stride, count
        return _down(features, weight, stride, indices[:count])

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, *indices = ctx.saved_tensors
        stride, count, needed = ctx.stride, ctx.count, ctx.needs_input_grad[:2]
        below, above = indices[:count], indices[count:]
        none = (None, None, *(None for _ in indices))
        if builds_graph():

            def plain(features: Tensor, weight: Tensor) -> Tensor:
                return _last(F.conv3d(_first(gathered(features, below)), weight, stride=stride))

            return *gradients(plain, (features, weight), grad, needed), *none
        grad = grad.contiguous()
        return (
            _up(grad, weight, stride, above) if needed[0] else None,
            _weight_gradient(grad, features, weight, stride, below) if needed[1] else None,
            *none,
        )


class HaloTransposed(torch.autograd.Function):
    """[N, b, b, b, C] -> [N, s*b, s*b, s*b, C_out]: the adjoint of `HaloStrided`, with the same
    indices."""

    @staticmethod
    def forward(ctx: Context, features: Tensor, weight: Tensor, stride: Triple, count: int, *indices: Tensor) -> Tensor:
        ctx.save_for_backward(features, weight, *indices)
        ctx.stride, ctx.count = stride, count
        return _up(features.contiguous(), weight, stride, indices[count:])

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, *indices = ctx.saved_tensors
        stride, count, needed = ctx.stride, ctx.count, ctx.needs_input_grad[:2]
        below, above = indices[:count], indices[count:]
        none = (None, None, *(None for _ in indices))
        if builds_graph():

            def plain(features: Tensor, weight: Tensor) -> Tensor:
                return _spread(gathered(features, above), weight, stride, features.shape[1:4])

            return *gradients(plain, (features, weight), grad, needed), *none
        grad = grad.contiguous()
        return (
            _down(grad, weight, stride, below) if needed[0] else None,
            _weight_gradient(features.contiguous(), grad, weight, stride, below) if needed[1] else None,
            *none,
        )


def _down(fine: Tensor, weight: Tensor, stride: Triple, below: Sequence[Tensor]) -> Tensor:
    """Return the strided convolution of fine tokens, [N, b/s, b/s, b/s, out], with a weight [out,
    in, k, k, k]."""

    def convolved(halo: Tensor) -> Tensor:
        return _last(F.conv3d(_first(halo), weight, stride=stride))

    low = Window(_size(weight), stride).fine_reach[0][2]
    return joined(((part, convolved(halo)) for part, halo in halos(fine, below, low)), len(fine))


def _up(coarse: Tensor, weight: Tensor, stride: Triple, above: Sequence[Tensor]) -> Tensor:
    """Return the transposed convolution of coarse tokens, [N, s*b, s*b, s*b, in], with a weight
    [out, in, k, k, k]."""
    block = coarse.shape[1:4]
    low = Window(_size(weight), stride).coarse_reach[0][2]
    out = coarse.new_empty(len(coarse), *(b * s for b, s in zip(block, stride, strict=True)), weight.shape[1])
    parities = (_size(weight), stride) == ((3, 3, 3), (2, 2, 2)) and coarse.device.type in tuning.TUNING.by_parity
    for part, halo in halos(coarse, above, low):
        if parities:
            _by_parity(out[part], halo, weight)
        else:
            out[part] = _spread(halo, weight, stride, block)
    return out


def _spread(halo: Tensor, weight: Tensor, stride: Triple, block: Sequence[int]) -> Tensor:
    """Return torch's transposed convolution of a coarse halo, without its rim."""
    window = Window(_size(weight), stride)
    starts = [s * low + f for s, low, f in zip(stride, window.coarse_reach[0], window.first, strict=True)]
    ends = [start + s * b for start, s, b in zip(starts, stride, block, strict=True)]
    lengths = [(n - 1) * s + k for n, s, k in zip(halo.shape[1:4], stride, window.kernel, strict=True)]
    beyond = [max(0, end - length) for end, length in zip(ends, lengths, strict=True)]
    whole = F.conv_transpose3d(_first(halo), weight, stride=stride, output_padding=beyond)
    (d, h, w), (d_end, h_end, w_end) = starts, ends
    return _last(whole[:, :, d:d_end, h:h_end, w:w_end])


def _by_parity(out: Tensor, halo: Tensor, weight: Tensor) -> None:
    """Write the same for kernel 3 and stride 2: each parity of fine tokens is an ordinary
    convolution with the kernel positions that read it."""
    flipped, planes = weight.transpose(0, 1), _first(halo)
    d, h, w = (n // 2 for n in out.shape[1:4])
    for p, q, r in combinations((0, 1), repeat=3):
        readers = flipped[:, :, _READERS[p]][:, :, :, _READERS[q]][:, :, :, :, _READERS[r]]
        out[:, p::2, q::2, r::2] = _last(F.conv3d(planes[:, :, : d + p, : h + q, : w + r], readers))


def _weight_gradient(coarse: Tensor, fine: Tensor, weight: Tensor, stride: Triple, below: Sequence[Tensor]) -> Tensor:
    """Return the gradient of the weight from values at the coarse and the fine tokens, one of which
    is the upstream gradient."""
    low = Window(_size(weight), stride).fine_reach[0][2]
    return summed(
        (
            convolution_weight_gradient(_first(coarse[part]), _first(halo), weight, 1, stride=stride)
            for part, halo in halos(fine, below, low)
        ),
        weight,
    )


def _size(weight: Tensor) -> Triple:
    d, h, w = weight.shape[2:]
    return d, h, w


def _first(x: Tensor) -> Tensor:
    return x.permute(0, 4, 1, 2, 3)


def _last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 4, 1)
