"""Kernel 3 on visible cells by halos: gather the tokens around each cell, run an ordinary convolution without padding.

The gradient with respect to the features is the same operation with flipped weights, and the gradient with respect to the weights gathers the halo
again: nothing is scattered, no halo is kept between forward and backward, nothing waits for an accelerator, and the result does not depend on the
order of threads. On a processor halos are made in chunks of about the size of its cache.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from wavespark.errors import ShapeError
from wavespark.shapes import Triple, product
from wavespark.sparse.cells.forms.gradient import (
    cells_weight_gradient,
    convolution_weight_gradient,
    planar_weight_gradient,
    summed,
)
from wavespark.sparse.cells.layout import CellLayout

_CHUNK_BYTES = {"cpu": 4 * 2**20}
"""Bytes of halo at a time: about the second-level cache of a processor, and large enough on an accelerator to be one chunk in most steps."""
_CHUNK_BYTES_ACCELERATOR = 2**29

_ORDINARY = 4
"""How many times as many for an ordinary convolution, which is the slower the fewer cells it is given."""

_LEAST_RUN = 8
"""Tokens of a line that are worth being gathered in one piece."""
_LEAST_TOKENS = 2**18
"""Tokens of all halos below which three launches cost more than one."""
_TOKEN_BY_TOKEN = {"cpu"}
"""Devices on which lines are not."""


class HaloConv(torch.autograd.Function):
    """[N, b, b, b, C] -> [N, b, b, b, C_out] for a weight [C_out, C / groups, 3, 3, 3]; `index` is a `halo_index` of one token below and above."""

    @staticmethod
    def forward(ctx: FunctionCtx, features: Tensor, weight: Tensor, groups: int, *index: Tensor) -> Tensor:
        ctx.save_for_backward(features, weight, *index)
        ctx.groups = groups  # type: ignore[attr-defined]
        return _convolve(features, weight, index, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, *index = ctx.saved_tensors  # type: ignore[attr-defined]
        groups = ctx.groups  # type: ignore[attr-defined]
        grad = grad.contiguous()
        grad_features = grad_weight = None
        if ctx.needs_input_grad[0]:  # type: ignore[attr-defined]
            flipped = weight.flip(2, 3, 4)
            grad_features = _convolve(grad, flipped if groups > 1 else flipped.transpose(0, 1), index, groups)
        if ctx.needs_input_grad[1]:  # type: ignore[attr-defined]
            grad_weight = _weight_gradient(features, grad, weight, index, groups)
        return grad_features, grad_weight, None, *(None for _ in index)


def halo_index(layout: CellLayout, block: Triple, low: int, high: int) -> tuple[Tensor, ...]:
    """What `halos` needs for halos of `low` tokens below and `high` above: `CellLayout.halo`; on a processor that with any row where there is nothing, and

    - int64 [absent tokens], where in the flattened index those are, ascending;

    where runs are gathered also

    - int [N, low+b+high, low+b+high], which run of b tokens along the last axis each line of a halo has in its middle,
    - the same for each of the low + high tokens at its ends.
    """
    index, run = layout.halo(block, low, high), block[2]
    if torch.compiler.is_compiling():  # a compiler makes a kernel of its own for a gather
        return (index,)
    if index.device.type in _TOKEN_BY_TOKEN:
        return layout.kept(("present", block, low, high), lambda: _present(index, len(layout) * product(block)))
    if run < _LEAST_RUN or index.numel() < _LEAST_TOKENS:
        return (index,)
    return layout.kept(("runs", block, low, high), lambda: (index, *_runs(index, low, run)))


def _present(index: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    return index.clamp(max=rows - 1), (index == rows).flatten().nonzero().flatten()


def _runs(index: Tensor, low: int, run: int) -> Iterator[Tensor]:
    # Where nothing is, the number of rows stands, which names the run of zeros at the end.
    yield torch.div(index[..., low], run, rounding_mode="floor").contiguous()
    for end in (*range(low), *range(low + run, index.shape[-1])):
        yield index[..., end].contiguous()


def halos(features: Tensor, index: Sequence[Tensor], low: int = 1, chunk: int = 1) -> Iterator[tuple[slice, Tensor]]:
    """Chunks of cells with the halo that a `halo_index` with `low` names, [n, low+b+high, ..., C], zero where there is nothing.

    Chunks are `chunk` times as large as a processor's cache. There a chunk's halo is overwritten by the next.
    """
    cells, *extent = index[0].shape
    channels = features.shape[-1]
    flat = features.reshape(-1, channels)
    on_cpu = _CHUNK_BYTES.get(features.device.type)
    budget = _CHUNK_BYTES_ACCELERATOR if on_cpu is None else chunk * on_cpu
    # torch has no fast convolution for a single small volume; chunks are of equal size, so that none is left alone at the end.
    step = max(2, budget // (product(extent) * channels * features.element_size()))
    step = -(-cells // -(-cells // step))
    starts = range(0, cells, step)
    if len(index) == 2:
        yield from _present_and_cleared(flat, index[0], index[1], starts)
        return
    take = _take_runs(flat, features.shape[3], low) if len(index) > 1 else _take_from_padded(flat)
    for start in starts:
        part = slice(start, min(start + step, cells))
        yield part, take(*(i[part] for i in index))


def _present_and_cleared(flat: Tensor, index: Tensor, absent: Tensor, starts: range) -> Iterator[tuple[slice, Tensor]]:
    """Rows by their numbers, and zero where absent, without a copy that has a row of zeros: on a processor it costs a fifth of the convolution."""
    cells, *extent = index.shape
    tokens = product(extent)
    buffer = flat.new_empty(min(starts.step, cells) * tokens, flat.shape[1])
    ends = torch.searchsorted(absent, torch.tensor([*starts[1:], cells]) * tokens).tolist()
    for start, first, end in zip(starts, (0, *ends), ends, strict=False):
        part = slice(start, min(start + starts.step, cells))
        wanted = index[part].reshape(-1)
        found = torch.index_select(flat, 0, wanted, out=buffer[: len(wanted)])
        found.index_fill_(0, absent[first:end] - start * tokens, 0)
        yield part, found.view(-1, *extent, flat.shape[1])


Take = Callable[..., Tensor]
"""The halo [n, ..., C] of a chunk, from the chunk's part of a `halo_index`."""


def _take_from_padded(flat: Tensor) -> Take:
    """Rows by their numbers from a copy with a row of zeros at its end: no step of it needs to know how many are absent."""
    table = _with_nothing(flat, 1)
    return lambda rows: table.index_select(0, rows.reshape(-1)).view(*rows.shape, -1)


def _with_nothing(flat: Tensor, rows: int) -> Tensor:
    zeros = _zeros.__wrapped__ if torch.compiler.is_compiling() else _zeros
    return torch.cat((flat, zeros(rows, flat.shape[1], flat.dtype, flat.device)))


@lru_cache(maxsize=64)
def _zeros(rows: int, channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Made once: an accelerator waits for launches."""
    return torch.zeros(rows, channels, dtype=dtype, device=device)


def _take_runs(flat: Tensor, run: int, low: int) -> Take:
    """From such a copy the middle of each line in one piece: an accelerator's gather costs as much for a row of 32 channels as for one of 1,000."""
    channels = flat.shape[1]
    table = _with_nothing(flat, run)

    def take(rows: Tensor, middles: Tensor, *ends: Tensor) -> Tensor:
        extent = rows.shape[-1]
        halo = table.new_empty(*rows.shape, channels)
        lines = halo.view(-1, extent * channels)
        inner = lines[:, low * channels : (low + run) * channels]
        torch.index_select(table.view(-1, run * channels), 0, middles.reshape(-1), out=inner)
        for place, end in zip((*range(low), *range(low + run, extent)), ends, strict=True):
            torch.index_select(table, 0, end.reshape(-1), out=lines[:, place * channels : (place + 1) * channels])
        return halo

    return take


def _convolve(features: Tensor, weight: Tensor, index: Sequence[Tensor], groups: int) -> Tensor:
    def convolved(halo: Tensor) -> Tensor:
        return F.conv3d(halo.permute(0, 4, 1, 2, 3), weight, groups=groups).permute(0, 2, 3, 4, 1)

    chunk = _ORDINARY if groups == 1 else 1
    return joined(((part, convolved(halo)) for part, halo in halos(features, index, chunk=chunk)), len(features))


def joined(parts: Iterable[tuple[slice, Tensor]], cells: int) -> Tensor:
    """Results [n, ...] of chunks of cells as one tensor, contiguous; a single chunk is not copied."""
    whole: Tensor | None = None
    for part, found in parts:
        if part.stop - part.start == cells:
            return found.contiguous()
        if whole is None:
            whole = found.new_empty(cells, *found.shape[1:])
        whole[part] = found
    if whole is None:
        raise ShapeError("there are no cells to convolve")
    return whole


def _weight_gradient(features: Tensor, grad: Tensor, weight: Tensor, index: Sequence[Tensor], groups: int) -> Tensor:
    if groups == 1:
        parts = halos(features, index, chunk=_ORDINARY)
        return summed((cells_weight_gradient(halo, grad[part], weight, padding=0) for part, halo in parts), weight)
    exact = weight.to(torch.promote_types(weight.dtype, torch.float32))

    def of(halo: Tensor, upstream: Tensor) -> Tensor:
        # cuDNN sums a depthwise gradient of bf16 with one launch for every channel.
        halo, upstream = halo.to(exact.dtype), upstream.to(exact.dtype)
        if halo.device.type == "cpu":
            return planar_weight_gradient(halo, upstream, exact)
        return convolution_weight_gradient(upstream.permute(0, 4, 1, 2, 3), halo.permute(0, 4, 1, 2, 3), exact, groups)

    return summed((of(halo, grad[part]) for part, halo in halos(features, index)), weight)
