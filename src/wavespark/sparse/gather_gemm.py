"""The arithmetic of sparse convolution: gather rows into columns, multiply, chunk by chunk; the gradient gathers too.

Axes: N rows, C channels, K kernel offsets, T offsets of a group. The gradient of the features reads the output's
gradient through the map's other direction; the same columns, multiplied by the features, give the gradient of the
weight. Within a group every output row occurs once, so nothing is added by two threads at once: results do not depend
on their number. Columns never exceed a chunk that stays in the processor's cache.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wavespark.sparse.kernel_map import Group

_COLUMN_BYTES_CPU = 2**21
_COLUMN_BYTES_ACCELERATOR = 2**28


def gather_gemm(
    features_NC: Tensor, weight_KIO: Tensor, read: tuple[Group, ...], back: tuple[Group, ...], rows: int
) -> Tensor:
    """[rows, O]: for every output row the sum over offsets of the features it reads times the offset's weight.

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
        ctx: Any, features: Tensor, weight: Tensor, read: tuple[Group, ...], back: tuple[Group, ...], rows: int
    ) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.read, ctx.back = read, back
        x, w = _computable(features), _computable(weight)
        out = x.new_zeros(rows, w.shape[2])
        for part, used, columns in _columns(x, read):
            product = columns @ w[used].flatten(0, 1)
            _add(out, part, product)
        return out.to(features.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        features, weight = ctx.saved_tensors
        x, w, g = _computable(features), _computable(weight), _computable(grad)
        sums = (
            w.new_zeros(w.shape, dtype=torch.promote_types(w.dtype, torch.float32)) if ctx.needs_input_grad[1] else None
        )
        if not ctx.needs_input_grad[0]:
            if sums is not None:
                for part, used, columns in _columns(x, ctx.read):
                    sums[used] += (columns.T @ _take(g, part)).unflatten(0, (-1, w.shape[1]))
            return None, None if sums is None else sums.to(weight.dtype), None, None, None
        out = torch.zeros_like(x, memory_format=torch.contiguous_format)
        for part, used, columns in _columns(g, ctx.back):
            _add(out, part, columns @ w[used].transpose(1, 2).flatten(0, 1))
            if sums is not None:
                sums[used] += (_take(x, part).T @ columns).unflatten(1, (-1, w.shape[2])).transpose(0, 1)
        return out.to(features.dtype), None if sums is None else sums.to(weight.dtype), None, None, None


def _computable(x: Tensor) -> Tensor:
    """Contiguous, and fp32 for fp16 on a processor, which has no fast half-precision product."""
    return (x.float() if x.dtype == torch.float16 and x.device.type == "cpu" else x).contiguous()


def _columns(x: Tensor, groups: tuple[Group, ...]) -> Iterator[tuple[slice | Tensor, list[int], Tensor]]:
    """Output rows, offsets and columns [n, T * C] of each chunk of each group."""
    channels = x.shape[1]
    table = torch.cat((x, x.new_zeros(1, channels)))
    budget = _COLUMN_BYTES_CPU if x.device.type == "cpu" else _COLUMN_BYTES_ACCELERATOR
    for group in groups:
        count, taps = group.index.shape
        step = max(64, budget // max(1, taps * channels * x.element_size()))
        for start in range(0, count, step):
            index = group.index[start : start + step]
            part = slice(start, start + step) if group.rows is None else group.rows[start : start + step]
            yield part, list(group.offsets), table.index_select(0, index.reshape(-1)).view(len(index), taps * channels)


def _take(x: Tensor, part: slice | Tensor) -> Tensor:
    return x[part] if isinstance(part, slice) else x.index_select(0, part)


def _add(out: Tensor, part: slice | Tensor, values: Tensor) -> None:
    """A slice belongs to one chunk and is set; listed rows, distinct within a group, are added to."""
    if isinstance(part, slice):
        out[part] = values
    else:
        out.index_add_(0, part, values)
