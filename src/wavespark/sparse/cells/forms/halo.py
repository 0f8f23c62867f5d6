"""Odd kernels on visible cells by halos: gather the tokens around each cell, run an ordinary
convolution without padding.

This is the idea of the package; the other forms are equal and only faster in places. One page:
`halo_index` names the rows around each cell, `halos` gathers them, `HaloConv` convolves.

The gradient with respect to the features is the same operation with flipped weights, and the
gradient with respect to the weights gathers the halo
again: nothing is scattered, no halo is kept between forward and backward, nothing waits for an
accelerator, and the result does not depend on the order of threads. On a processor halos are made
in chunks of about the size of its cache.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from wavespark.errors import ShapeError
from wavespark.shapes import Triple, product
from wavespark.sparse.cells.forms import tuning
from wavespark.sparse.cells.forms.gradient import (
    cells_weight_gradient,
    convolution_weight_gradient,
    planar_weight_gradient,
    summed,
)
from wavespark.sparse.cells.layout import CellLayout
from wavespark.sparse.derivatives import Context, builds_graph, gradients

Reach = Triple
"""Tokens that a kernel reads beyond a cell, along each axis."""


class HaloConv(torch.autograd.Function):
    """[N, b, b, b, C] -> [N, b, b, b, C_out] for a weight [C_out, C / groups, k, k, k], k odd;
    `index` is a `halo_index` of k // 2 tokens below and above."""

    @staticmethod
    def forward(ctx: Context, features: Tensor, weight: Tensor, groups: int, *index: Tensor) -> Tensor:
        ctx.save_for_backward(features, weight, *index)
        ctx.groups = groups
        return _convolve(features, weight, index, groups)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, *index = ctx.saved_tensors
        groups, needed = ctx.groups, ctx.needs_input_grad[:2]
        if builds_graph():

            def plain(features: Tensor, weight: Tensor) -> Tensor:
                return _last(F.conv3d(_first(gathered(features, index)), weight, groups=groups))

            return *gradients(plain, (features, weight), grad, needed), None, *(None for _ in index)
        grad = grad.contiguous()
        grad_features = grad_weight = None
        if ctx.needs_input_grad[0]:
            flipped = weight.flip(2, 3, 4)
            grad_features = _convolve(grad, flipped if groups > 1 else flipped.transpose(0, 1), index, groups)
        if ctx.needs_input_grad[1]:
            grad_weight = _weight_gradient(features, grad, weight, index, groups)
        return grad_features, grad_weight, None, *(None for _ in index)


def gathered(features: Tensor, index: Sequence[Tensor]) -> Tensor:
    """Return all halos that a `halo_index` names at once, [N, low+b+high, ..., C], in operations
    that torch differentiates."""
    flat = features.reshape(-1, features.shape[-1])
    if len(index) == 2:
        rows, absent = index
        halo = flat.index_select(0, rows.reshape(-1)).index_fill(0, absent, 0)
    else:
        rows = index[0]
        halo = torch.cat((flat, flat.new_zeros(1, flat.shape[1]))).index_select(0, rows.reshape(-1))
    return halo.view(*rows.shape, -1)


def halo_index(layout: CellLayout, block: Triple, low: Reach, high: Reach) -> tuple[Tensor, ...]:
    """Return the indices that `halos` needs for `low` tokens below and `high` above.

    They are `CellLayout.halo`; on a processor that with any row where there is nothing, and

    - int64 [absent tokens], where in the flattened index those are, ascending;

    where runs are gathered also

    - int [N, low+b+high, low+b+high], which run of b tokens along the last axis each line of a halo
      has in its middle,
    - the same for each of the low + high tokens at its ends.
    """
    index, run = layout.halo(block, low, high), block[2]
    if torch.compiler.is_compiling():  # a compiler makes a kernel of its own for a gather
        return (index,)
    if index.device.type in tuning.TUNING.token_by_token:
        return layout.cached(("present", block, low, high), lambda: _present(index, len(layout) * product(block)))
    few = run < tuning.TUNING.least_run or index.numel() < tuning.TUNING.least_tokens
    if few or not low[2] + high[2]:  # without ends, lines of the index would pass for what a processor needs
        return (index,)
    return layout.cached(("runs", block, low, high), lambda: (index, *_runs(index, low[2], run)))


def _present(index: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    return index.clamp(max=rows - 1), (index == rows).flatten().nonzero().flatten()


def _runs(index: Tensor, low: int, run: int) -> Iterator[Tensor]:
    # Where nothing is, the number of rows stands, which names the run of zeros at the end.
    yield torch.div(index[..., low], run, rounding_mode="floor").contiguous()
    for end in (*range(low), *range(low + run, index.shape[-1])):
        yield index[..., end].contiguous()


def halos(features: Tensor, index: Sequence[Tensor], low: int = 1, chunk: int = 1) -> Iterator[tuple[slice, Tensor]]:
    """Yield chunks of cells with their halos, [n, low+b+high, ..., C], zero where there is nothing.

    `low` is the number of tokens below along the last axis for which the `halo_index` was made.
    Chunks are `chunk` times as large as a processor's cache. There a chunk's halo is overwritten by
    the next.
    """
    cells, *extent = index[0].shape
    channels = features.shape[-1]
    flat = features.reshape(-1, channels)
    on_cpu = features.device.type == "cpu"
    budget = chunk * tuning.TUNING.chunk_bytes if on_cpu else tuning.TUNING.chunk_bytes_accelerator
    # torch has no fast convolution for a single small volume; chunks are of equal size, so that
    # none is left alone at the end.
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
    """Rows by their numbers, and zero where absent, without a copy that has a row of zeros: on a
    processor it costs a fifth of the convolution."""
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
    """Rows by their numbers from a copy with a row of zeros at its end: no step of it needs to know
    how many are absent."""
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
    """From such a copy the middle of each line in one piece: an accelerator's gather costs as much
    for a row of 32 channels as for one of 1,000."""
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
        return _last(F.conv3d(_first(halo), weight, groups=groups))

    chunk, low = tuning.TUNING.dense_chunks if groups == 1 else 1, weight.shape[4] // 2
    parts = halos(features, index, low, chunk)
    return joined(((part, convolved(halo)) for part, halo in parts), len(features))


def joined(parts: Iterable[tuple[slice, Tensor]], cells: int) -> Tensor:
    """Results [n, ...] of chunks of cells as one tensor, contiguous; a single chunk is not
    copied."""
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
    low = weight.shape[4] // 2
    if groups == 1:
        parts = halos(features, index, low, tuning.TUNING.dense_chunks)
        return summed((cells_weight_gradient(halo, grad[part], weight, padding=0) for part, halo in parts), weight)
    exact = weight.to(torch.promote_types(weight.dtype, torch.float32))

    def of(halo: Tensor, upstream: Tensor) -> Tensor:
        # cuDNN sums a depthwise gradient of bf16 with one launch for every channel.
        halo, upstream = halo.to(exact.dtype), upstream.to(exact.dtype)
        if halo.device.type == "cpu":
            return planar_weight_gradient(halo, upstream, exact)
        return convolution_weight_gradient(_first(upstream), _first(halo), exact, groups)

    return summed((of(halo, grad[part]) for part, halo in halos(features, index, low)), weight)


def _first(x: Tensor) -> Tensor:
    """Channels first: [N, C, d, h, w]."""
    return x.permute(0, 4, 1, 2, 3)


def _last(x: Tensor) -> Tensor:
    """Channels last: [N, d, h, w, C]."""
    return x.permute(0, 2, 3, 4, 1)
