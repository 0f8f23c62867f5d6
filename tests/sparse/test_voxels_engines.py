"""One conformance suite for every engine that is installed, and choices that are never swapped silently."""

import threading
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.dense_reference import gradients, relative, strided, submanifold, transposed
from wavespark.errors import DependencyError, SettingsError
from wavespark.sparse import SparseVoxels, SubmanifoldConv3d, current_engine, engines, set_engine
from wavespark.sparse.layers.conv import strided_conv, submanifold_conv, transposed_conv
from wavespark.sparse.voxels.engines import choice
from wavespark.sparse.voxels.engines.spconv import SpconvEngine, _Confined


def usable() -> list[str]:
    names = []
    for name in engines():
        try:
            with set_engine(name):
                names.append(name)
        except SettingsError:
            continue
    return names


KINDS = ["k1", "k3", "k5", "dilation 2", "k2 s2", "k3 s2", "back k2", "back k3", "children"]


@pytest.mark.parametrize("engine", usable())
@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    grid=st.tuples(*[st.integers(1, 7)] * 3),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 999),
)
def test_an_engine_computes_what_dense_operations_compute(
    engine: str, kind: str, grid: tuple[int, int, int], share: float, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    active = torch.rand(2, *grid, generator=g) < share
    dense = torch.randn(2, 3, *grid, generator=g, requires_grad=True)
    x = SparseVoxels.from_dense(dense, active)
    size = {"k1": 1, "k3": 3, "k5": 5, "dilation 2": 3, "k2 s2": 2, "k3 s2": 3, "back k3": 3}.get(kind, 2)
    weight = torch.randn(*((3, 4) if kind[0] in "bc" else (4, 3)), size, size, size, generator=g)
    weight = weight.requires_grad_()
    with set_engine(engine):
        if kind[0] in "bc":
            coarse = SparseVoxels(x.features, x.sites * torch.tensor([1, 2, 2, 2]), stride=2, batch_size=2)
            fine = active.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
            if kind == "back k3":
                fine = fine[:, :-1, :-1, :-1]
            if kind == "back k2":
                fine = fine & (torch.rand(fine.shape, generator=g) < 0.5)
            like = None
            if kind != "children":
                like = SparseVoxels.from_dense(torch.zeros(2, 1, *fine.shape[1:]), fine)
            ours = transposed_conv(coarse, weight, None, 2, like, kind == "children")
            reference = transposed(dense, active, weight, None, (2, 2, 2), fine)
        elif kind.endswith("s2"):
            ours, reference = strided_conv(x, weight), strided(dense, active, weight, None, (2, 2, 2))
        else:
            dilation = 2 if kind == "dilation 2" else 1
            ours = submanifold_conv(x, weight, None, dilation)
            reference = submanifold(dense, active, weight, None, dilation)
    mine = ours.to_dense(reference.shape[2:])
    assert relative(mine, reference) <= 1e-5
    upstream = torch.randn(mine.shape, generator=g)
    pairs = zip(*(gradients(y, upstream, dense, weight) for y in (mine, reference)), strict=True)
    assert all(relative(a, b) <= 1e-5 for a, b in pairs)


def test_torch_is_always_there_and_the_default() -> None:
    assert engines()[0] == "torch"
    assert current_engine().name == "torch"


def test_an_unknown_engine_is_refused_and_the_known_ones_named() -> None:
    with pytest.raises(SettingsError, match=r"'tortch'.*torch, spconv, minkowski"):
        set_engine("tortch")
    assert current_engine().name == "torch"


@pytest.mark.parametrize("name", ["spconv", "minkowski"])
def test_a_missing_engine_is_refused_with_what_to_type_and_never_replaced(name: str) -> None:
    if name in engines():
        pytest.skip(f"{name} is installed")
    with pytest.raises(DependencyError, match=f"'{name}' is not usable.*(pip install|build)"):
        set_engine(name)
    assert current_engine().name == "torch"


@pytest.mark.parametrize(("variable", "threads"), [(None, 1), ("4", 1), ("1", 2)])
def test_spconv_refuses_a_processor_with_more_than_one_thread(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, threads: int
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    engine = SpconvEngine(SimpleNamespace(), None, None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if threads == 1:
        engine.refuse_machine()
    monkeypatch.delenv("OMP_NUM_THREADS") if variable is None else monkeypatch.setenv("OMP_NUM_THREADS", variable)
    with pytest.raises(SettingsError, match=r"more than one OpenMP thread.*OMP_NUM_THREADS=1"):
        engine.refuse_machine()


class _Zeros:
    name = "zeros"

    def convolve(self, features_NC: torch.Tensor, weight: torch.Tensor, task: object) -> torch.Tensor:
        return features_NC.new_zeros(len(features_NC), weight.shape[0])


def test_the_choice_decides_who_computes_and_ends_with_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    real = choice._load
    monkeypatch.setattr(choice, "_load", lambda name: _Zeros() if name == "spconv" else real(name))
    x, conv = SparseVoxels(torch.ones(1, 2), torch.zeros(1, 4, dtype=torch.int32)), SubmanifoldConv3d(2, 2, bias=False)
    with set_engine("spconv"):
        assert conv(x).features.abs().sum() == 0
        with set_engine("torch"):
            assert conv(x).features.abs().sum() > 0
        assert current_engine().name == "zeros"
    assert conv(x).features.abs().sum() > 0


def test_another_thread_keeps_its_own_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = choice._load, []
    monkeypatch.setattr(choice, "_load", lambda name: _Zeros() if name == "spconv" else real(name))
    with set_engine("spconv"):
        thread = threading.Thread(target=lambda: seen.append(current_engine().name))
        thread.start()
        thread.join()
    assert seen == ["torch"]


def test_spconv_is_told_of_no_stream_only_while_it_computes_and_is_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def stream() -> int:
        raise RuntimeError

    library, asked = SimpleNamespace(get_current_stream=stream), []

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            asked.append(library.get_current_stream())
            ctx.save_for_backward(a, b)
            return a * b

        @staticmethod
        def backward(ctx, grad):
            asked.append(library.get_current_stream())
            a, b = ctx.saved_tensors
            return grad * b, grad * a

    a, b = torch.tensor([2.0], requires_grad=True), torch.tensor([5.0], requires_grad=True)
    out = _Confined.apply(3 * a, b, Product.apply, library)
    assert library.get_current_stream is stream
    out.sum().backward()
    assert (a.grad.item(), b.grad.item()) == (15, 6)
    assert asked == [0, 0]
    assert library.get_current_stream is stream
