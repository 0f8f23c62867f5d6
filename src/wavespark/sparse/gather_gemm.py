"""The arithmetic of sparse convolution: gather rows into columns, multiply, chunk by chunk; the
gradient gathers too.

Axes: N rows, C channels, K kernel offsets, T offsets of a group. The gradient of the features reads
the output's gradient through the map's other direction; the same columns, multiplied by the
features, give the gradient of the weight. Within a group every output row occurs once, so nothing
is added by two threads at once: results do not depend on their number. Columns never exceed a chunk
that stays in the processor's cache.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from wavespark.sparse.derivatives import Context, builds_graph, gradients

_COLUMN_BYTES_CPU = 2**21
_COLUMN_BYTES_ACCELERATOR = 2**28


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Output rows that use the same kernel offsets."""

    rows: Tensor | None
    """int64 [n]: the output rows; None means all, in order."""
    offsets: tuple[int, ...]
    """The T kernel offsets used, as positions in the flattened kernel."""
    index: Tensor
    """int32 [n, T]: the input row read at each offset; the number of input rows where that site is
    not active."""


def gather_gemm(
    features_NC: Tensor, weight_KIO: Tensor, read: tuple[Group, ...], back: tuple[Group, ...], rows: int
) -> Tensor:
    """[rows, O]: for every output row the sum over offsets of the features it reads times the
    offset's weight.

    Args:
        features_NC: [N, I].
        weight_KIO: [K, I, O], of the features' type.
        read: which feature rows each output row reads.
        back: the same pairs seen from the feature rows, for the gradient.
        rows: number of output rows.
    """
    result: Tensor = _GatherGemm.apply(features_NC, weight_KIO, read, back, rows)
    return result


class _GatherGemm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Context, features: Tensor, weight: Tensor, read: tuple[Group, ...], back: tuple[Group, ...], rows: int
    ) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.read, ctx.back = read, back
        w = _computable(weight)
        table = _table(features)
        out = table.new_zeros(rows, w.shape[2])
        for group in read:
            kernel = w[list(group.offsets)].flatten(0, 1)
            for part, columns in _columns(table, group):
                _multiply(columns, kernel, out, part)
        return out.to(features.dtype)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        if builds_graph():
            read = ctx.read

            def plain(features: Tensor, weight: Tensor) -> Tensor:
                def product(columns: Tensor, used: list[int]) -> Tensor:
                    return columns.flatten(1) @ weight[used].flatten(0, 1)

                return _plain(features, read, grad, product)

            return *gradients(plain, (features, weight), grad, ctx.needs_input_grad[:2]), None, None, None
        of_features, of_weight = ctx.needs_input_grad[:2]
        if not of_features:
            return None, _weight_gradient(features, weight, grad, ctx.read), None, None, None
        return *_both_gradients(features, weight, grad, ctx.back, of_weight), None, None, None


def _both_gradients(
    features: Tensor, weight: Tensor, grad: Tensor, back: tuple[Group, ...], of_weight: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of features and weight from the same columns of the output's gradient."""
    x, w, table = _computable(features), _computable(weight), _table(grad)
    out = torch.zeros_like(x)
    sums = _sums(w)
    for group in back:
        used = list(group.offsets)
        kernel = w[used].transpose(1, 2).flatten(0, 1)
        total = sums.new_zeros(x.shape[1], kernel.shape[0])
        for part, columns in _columns(table, group):
            _multiply(columns, kernel, out, part)
            if of_weight:
                _accumulate(total, _take(x, part).T, columns)
        sums[used] += total.unflatten(1, (len(used), -1)).transpose(0, 1)
    return out.to(features.dtype), sums.to(weight.dtype) if of_weight else None


def _weight_gradient(features: Tensor, weight: Tensor, grad: Tensor, read: tuple[Group, ...]) -> Tensor:
    """The gradient of the weight alone, from columns of the features: cheaper where they have few
    channels."""
    table, g = _table(features), _computable(grad)
    sums = _sums(_computable(weight))
    for group in read:
        used = list(group.offsets)
        total = sums.new_zeros(len(used) * weight.shape[1], weight.shape[2])
        for part, columns in _columns(table, group):
            _accumulate(total, columns.T, _take(g, part))
        sums[used] += total.unflatten(0, (len(used), -1))
    return sums.to(weight.dtype)


def gather_scale(
    features_NC: Tensor, weight_KC: Tensor, read: tuple[Group, ...], back: tuple[Group, ...], rows: int
) -> Tensor:
    """[rows, C]: as `gather_gemm`, every channel with a weight of its own for each offset (a
    depthwise convolution)."""
    result: Tensor = _GatherScale.apply(features_NC, weight_KC, read, back, rows)
    return result


class _GatherScale(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Context, features: Tensor, weight: Tensor, read: tuple[Group, ...], back: tuple[Group, ...], rows: int
    ) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.read, ctx.back = read, back
        table, w = _table(features), _computable(weight)
        out = table.new_zeros(rows, w.shape[1])
        for group in read:
            for part, columns in _columns(table, group):
                _scale(columns, w[list(group.offsets)], out, part)
        return out.to(features.dtype)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        if builds_graph():
            read = ctx.read

            def plain(features: Tensor, weight: Tensor) -> Tensor:
                def product(columns: Tensor, used: list[int]) -> Tensor:
                    return (columns * weight[used]).sum(1)

                return _plain(features, read, grad, product)

            return *gradients(plain, (features, weight), grad, ctx.needs_input_grad[:2]), None, None, None
        x, w, table = _computable(features), _computable(weight), _table(grad)
        out, sums = torch.zeros_like(x), _sums(w)
        for group in ctx.back:
            used = list(group.offsets)
            for part, columns in _columns(table, group):
                sums[used] += torch.einsum("ntc,nc->tc", columns.view(-1, *w[used].shape), _take(x, part)).to(
                    sums.dtype
                )
                _scale(columns, w[used], out, part)
        return out.to(features.dtype), sums.to(weight.dtype), None, None, None


def _plain(
    features: Tensor, read: tuple[Group, ...], like: Tensor, product: Callable[[Tensor, list[int]], Tensor]
) -> Tensor:
    """The sum over groups of `product` of the columns [n, T, C] and the offsets of each, in
    operations that torch differentiates."""
    table = torch.cat((features, features.new_zeros(1, features.shape[1])))
    out = torch.zeros_like(like)
    for group in read:
        columns = table.index_select(0, group.index.reshape(-1)).view(*group.index.shape, -1)
        found = product(columns, list(group.offsets))
        out = out + found if group.rows is None else out.index_add(0, group.rows, found)
    return out


def _scale(columns: Tensor, kernel_TC: Tensor, out: Tensor, part: slice | Tensor) -> None:
    """A slice belongs to one chunk and is set; listed rows, distinct within a group, are added to.

    Overwrites the columns.
    """
    found = columns.view(-1, *kernel_TC.shape).mul_(kernel_TC).sum(1)
    if isinstance(part, slice):
        out[part] = found
    else:
        out.index_add_(0, part, found)


def _computable(x: Tensor) -> Tensor:
    """Contiguous, and fp32 for fp16 on a processor, which has no fast half-precision product."""
    return (x.float() if x.dtype == torch.float16 and x.device.type == "cpu" else x).contiguous()


def _table(x: Tensor) -> Tensor:
    """[N + 1, C]: the rows and, for sites that are not active, zeros."""
    x = _computable(x)
    return torch.cat((x, x.new_zeros(1, x.shape[1])))


def _sums(weight: Tensor) -> Tensor:
    """Zeros of the weight's shape, in fp32 at least."""
    return torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))


def _columns(table: Tensor, group: Group) -> Iterator[tuple[slice | Tensor, Tensor]]:
    """Output rows and columns [n, T * C] of each chunk; a chunk's columns are overwritten by the
    next."""
    count, taps = group.index.shape
    width = taps * table.shape[1]
    on_cpu = table.device.type == "cpu"
    budget = _COLUMN_BYTES_CPU * _threads() if on_cpu else _COLUMN_BYTES_ACCELERATOR
    step = max(64, budget // max(1, width * table.element_size()))
    buffer = table.new_empty(min(step, count) * taps, table.shape[1])
    for start in range(0, count, step):
        index = group.index[start : start + step].reshape(-1)
        part = slice(start, start + step) if group.rows is None else group.rows[start : start + step]
        columns = torch.index_select(table, 0, index, out=buffer[: len(index)])
        yield part, columns.view(-1, width)


@torch.compiler.assume_constant_result
def _threads() -> int:
    return torch.get_num_threads()


def _take(x: Tensor, part: slice | Tensor) -> Tensor:
    return x[part] if isinstance(part, slice) else x.index_select(0, part)


def _multiply(columns: Tensor, kernel: Tensor, out: Tensor, part: slice | Tensor) -> None:
    """A slice belongs to one chunk and is set; listed rows, distinct within a group, are added
    to."""
    if isinstance(part, slice):
        torch.mm(columns, kernel, out=out[part])
    else:
        out.index_add_(0, part, columns @ kernel)


def _accumulate(total: Tensor, a: Tensor, b: Tensor) -> None:
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b
