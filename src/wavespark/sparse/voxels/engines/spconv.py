"""spconv 2 behind the engine contract (CPU build and CUDA builds), with its traps guarded.

Its index search is its own, so it is an independent check of ours; what differs is put right here.
A strided convolution of spconv is active at every window that touches a site; the pairs of windows
outside our rule are left out. Its CPU build computes wrong sums with more than one OpenMP thread
and asks for the current CUDA stream in the backward pass even where there is none.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor

from wavespark.errors import SettingsError
from wavespark.sparse.derivatives import Context, first_order_only
from wavespark.sparse.voxels.coordinates import Coordinates
from wavespark.sparse.voxels.engines.contract import Convolution, Engine


@contextmanager
def _without_stream(ops: ModuleType) -> Iterator[None]:
    """Answer the library's question for the current CUDA stream where there is none, for as long as
    it computes; then it is as it was."""
    known = getattr(ops, "get_current_stream", None)
    if torch.cuda.is_available() or known is None:
        yield
        return
    ops.get_current_stream = lambda: 0  # type: ignore[attr-defined]
    try:
        yield
    finally:
        ops.get_current_stream = known  # type: ignore[attr-defined]


class _Confined(torch.autograd.Function):
    """The library's operation, whose forward and backward pass both run inside
    `_without_stream`."""

    @staticmethod
    def forward(
        ctx: Context, features: Tensor, filters: Tensor, convolved: Callable[..., Tensor], ops: ModuleType
    ) -> Tensor:
        needed = ctx.needs_input_grad[:2]
        with _without_stream(ops), torch.enable_grad():
            inputs = [t.detach().requires_grad_(need) for t, need in zip((features, filters), needed, strict=True)]
            out = convolved(*inputs)
        ctx.ops, ctx.inputs, ctx.out = ops, inputs, out
        return out.detach()

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        wanted = [t for t in ctx.inputs if t.requires_grad]
        with _without_stream(ctx.ops):
            found = iter(torch.autograd.grad(ctx.out, wanted, grad.contiguous(), retain_graph=True))
        return *(next(found) if t.requires_grad else None for t in ctx.inputs), None, None


class SpconvEngine:
    """`spconv.pytorch`, its native algorithm; fp32 (on CUDA also fp16)."""

    name = "spconv"

    def __init__(self, ops: ModuleType, functional: ModuleType, algorithm: object) -> None:
        self._ops, self._functional, self._algorithm = ops, functional, algorithm

    def refuse_machine(self) -> None:
        """Raises SettingsError where spconv would give wrong numbers: on a processor with more than
        one OpenMP thread."""
        threads = os.environ.get("OMP_NUM_THREADS", "not set")
        if not torch.cuda.is_available() and (threads != "1" or torch.get_num_threads() != 1):
            raise SettingsError(
                "the sparse engine 'spconv' gives wrong sums on a CPU with more than one OpenMP thread "
                f"(OMP_NUM_THREADS is {threads}, torch has {torch.get_num_threads()}). "
                "Start with OMP_NUM_THREADS=1, or keep the engine 'torch'"
            )

    def convolve(self, features_NC: Tensor, weight: Tensor, task: Convolution) -> Tensor:
        """See `Engine.convolve`."""
        if features_NC.device.type == "cpu":
            self._refuse_on_cpu(features_NC)
        rows = len(task.target)
        if not len(task.source) or not rows:
            return features_NC.new_zeros(rows, weight.shape[1 if task.transposed else 0]) + 0 * (
                features_NC.sum() + weight.sum()
            )
        fine, coarse = (task.target, task.source) if task.transposed else (task.source, task.target)
        pairs, counts = self._pairs(fine, coarse, task)
        if task.transposed:
            filters = weight.permute(1, 2, 3, 4, 0).contiguous()
            function = self._functional.indice_inverse_conv
        else:
            filters = weight.permute(0, 2, 3, 4, 1).contiguous()
            function = self._functional.indice_subm_conv if task.is_submanifold else self._functional.indice_conv

        def convolved(features: Tensor, filters: Tensor) -> Tensor:
            result: Tensor = function(features, filters, pairs, counts, rows, self._algorithm)
            return result

        features, filters = first_order_only(self.name, features_NC), first_order_only(self.name, filters)
        result: Tensor = _Confined.apply(features.contiguous(), filters, convolved, self._ops)
        return result

    def _refuse_on_cpu(self, features: Tensor) -> None:
        if features.dtype != torch.float32:
            raise SettingsError(
                f"the sparse engine 'spconv' computes in fp32 on a CPU, got {features.dtype}: keep the engine 'torch' for it"
            )
        if os.environ.get("OMP_NUM_THREADS") != "1" or torch.get_num_threads() != 1:
            raise SettingsError(
                "the sparse engine 'spconv' gives wrong sums on a CPU with more than one OpenMP thread: start with OMP_NUM_THREADS=1"
            )

    def _pairs(self, fine: Coordinates, coarse: Coordinates, task: Convolution) -> tuple[Tensor, Tensor]:
        key = ("spconv", task.kernel, task.stride, task.dilation)
        pairs: tuple[Tensor, Tensor] = fine.cached(key, lambda: self._search(fine, coarse, task), beside=coarse)
        return pairs

    def _search(self, fine: Coordinates, coarse: Coordinates, task: Convolution) -> tuple[Tensor, Tensor]:
        """[2, K, N] rows (fine, coarse) that each kernel offset joins, and how many [K]."""
        indices = torch.stack(fine.lattice, 1).int()
        extent = [-(-e // s) * s for e, s in zip(fine.extent, task.stride, strict=True)]
        padding = [k // 2 * d if k % 2 else 0 for k, d in zip(task.kernel, task.dilation, strict=True)]
        with _without_stream(self._ops):
            windows, pairs, counts = self._ops.get_indice_pairs(
                indices,
                fine.batch_size,
                extent,
                self._algorithm,
                list(task.kernel),
                list(task.stride),
                padding,
                list(task.dilation),
                [0, 0, 0],
                task.is_submanifold,
                False,
            )
        if task.is_submanifold:
            return pairs, counts
        s, d, h, w = (column.long() for column in windows.unbind(1))
        ours = coarse.find((s, d, h, w))[:, 0]
        place = torch.arange(pairs.shape[2], device=pairs.device)
        joined = ours[pairs[1].clamp(min=0).long()]
        valid = (place < counts.to(pairs.device)[:, None]) & (joined < len(coarse))
        order = (~valid).int().sort(dim=1, stable=True).indices
        kept = torch.stack((pairs[0].gather(1, order), joined.gather(1, order)))
        return kept.contiguous(), valid.sum(1).to(counts)


def load() -> Engine:
    """The engine, if spconv can be imported."""
    import spconv.pytorch  # noqa: F401  (defines the operators)
    from spconv.core import ConvAlgo
    from spconv.pytorch import functional, ops

    return SpconvEngine(ops, functional, ConvAlgo.Native)
