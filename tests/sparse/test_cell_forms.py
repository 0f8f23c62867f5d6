"""The forms of a convolution of visible cells: each equal to the dense one with all gradients, deterministic, and said in words (law I5)."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from laws.tiny import crop_of, ragged
from oracles.dense_reference import submanifold
from wavespark.sparse import (
    CellLayout,
    SubmanifoldConv3d,
    VisibleCells,
    convolution_plan,
    submanifold_conv,
)
from wavespark.sparse.cells import conv as cell_conv
from wavespark.sparse.cells.forms import gradient as cell_gradient
from wavespark.sparse.cells.forms import tuning

EXACT = 1e-10
CASES = [
    *[("columns", block) for block in ((1, 1, 1), (2, 2, 2), (1, 3, 2), (4, 4, 4))],
    *[("faces", block) for block in ((2, 2, 2), (4, 4, 4), (3, 8, 4), (8, 8, 8))],
    *[("halo", block) for block in ((1, 1, 1), (2, 2, 2), (3, 8, 4), (8, 8, 8))],
]


def scene(block, visible, cut=0, channels=4):
    """Cells of a crop that ends `cut` voxels before the last cells do, and which voxels are visible."""
    size = tuple(g * b - min(cut, b - 1) for g, b in zip(visible.shape[1:], block, strict=True))
    crop = crop_of(*size, batch=len(visible), channels=channels)
    shown = visible
    for axis, b in enumerate(block, 1):
        shown = shown.repeat_interleave(b, axis)
    shown = shown[:, : size[0], : size[1], : size[2]]
    crop = crop.where(shown[:, None], torch.nan).requires_grad_()
    return crop, shown, VisibleCells.from_dense(crop, visible, cell=block)


def weight_of(out, channels):
    return torch.randn(
        out, channels, 3, 3, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    ).requires_grad_()


def check(found, expected, *leaves):
    assert (found - expected).abs().max() <= EXACT * expected.abs().max()
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for a, b in zip(*(torch.autograd.grad(y, leaves, upstream) for y in (found, expected)), strict=True):
        assert (a - b).abs().max() <= EXACT * b.abs().max().clamp(min=1)


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize(("form", "block"), CASES, ids=lambda value: str(value))
def test_every_form_is_the_dense_convolution_on_what_is_visible_with_all_gradients(form, block, share, cut):
    crop, shown, cells = scene(block, ragged(4, 3, 5, share=share), cut)
    weight = weight_of(6, 4)
    found = submanifold_conv(cells, weight, form=form).to_dense()
    check(found, submanifold(crop, shown, weight, None), crop, weight)


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("out", [3, 500])
def test_columns_are_the_dense_convolution_with_more_tokens_than_channels_and_with_fewer(out, cut):
    crop, shown, cells = scene((2, 2, 2), ragged(3, 3, 3), cut)
    weight = weight_of(out, 4)
    assert cell_conv._is_few(cells, weight) == (out == 500)
    found = submanifold_conv(cells, weight, form="columns").to_dense()
    check(found, submanifold(crop, shown, weight, None), crop, weight)


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("block", [(1, 1, 1), (4, 4, 4), (3, 8, 4)], ids=str)
def test_where_nothing_is_hidden_one_dense_convolution_computes_all(block, cut):
    crop, shown, cells = scene(block, torch.ones(2, 4, 3, 5, dtype=torch.bool), cut)
    weight = weight_of(6, 4)
    assert convolution_plan(cells, weight).form == "whole"
    check(submanifold_conv(cells, weight).to_dense(), submanifold(crop, shown, weight, None), crop, weight)


@pytest.mark.parametrize("form", ["columns", "faces", "halo"])
def test_two_runs_on_two_threads_give_the_same_bits(form):
    _, _, cells = scene((4, 4, 4), ragged(6, 6, 6), channels=16)
    features, weight = (
        cells.features.detach().float().requires_grad_(),
        weight_of(16, 16).detach().float().requires_grad_(),
    )
    runs, threads = [], torch.get_num_threads()
    torch.set_num_threads(2)
    for _ in range(3):
        y = submanifold_conv(cells.with_features(features), weight, form=form).features
        runs.append((y, *torch.autograd.grad(y.square().sum(), (features, weight))))
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


@pytest.mark.parametrize("form", ["faces", "halo"])
@pytest.mark.parametrize("kernel_bytes", [1, 2**40])
@pytest.mark.parametrize("block", [(4, 4, 4), (3, 8, 4), (8, 8, 8), (3, 4, 16)], ids=str)
def test_the_gradient_of_a_weight_is_a_convolution_with_the_upstream_gradient_as_the_kernel(
    monkeypatch, block, kernel_bytes, form
):
    monkeypatch.setattr(cell_gradient, "_is_faster_swapped", lambda *_: True)
    monkeypatch.setattr(tuning, "TUNING", replace(tuning.TUNING, kernel_bytes=kernel_bytes))
    crop, shown, cells = scene(block, ragged(4, 3, 5, share=0.4))
    assert len(cells) > 3 * tuning.TUNING.lanes  # several convolutions, the last of fewer cells
    weight = weight_of(6, 4)
    found = submanifold_conv(cells, weight, form=form).to_dense()
    check(found, submanifold(crop, shown, weight, None), crop, weight)


def test_it_is_where_that_was_measured_to_be_faster(monkeypatch):
    def swaps(cells=16, block=8, channels=16, out=16, dtype=torch.float32, device="cpu"):
        features = torch.empty(cells, block, block, block, channels, dtype=dtype, device=device)
        grad = torch.empty(cells, block, block, block, out, dtype=dtype, device=device)
        return cell_gradient._is_faster_swapped(features, grad)

    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert swaps() and swaps(block=4, cells=6) and swaps(block=16, cells=11)
    assert not swaps(block=17) and not swaps(cells=9) and not swaps(channels=3) and not swaps(out=3)
    assert not swaps(dtype=torch.float64) and not swaps(dtype=torch.bfloat16) and not swaps(device="meta")
    light = {"block": (8, 8, 8), "weight": (32, 16, 3, 3, 3)}
    assert planned(**light).form == planned(**light | {"block": (16, 8, 8)}).form == "halo"
    assert planned(**light, dtype=torch.float64).form == planned(**light | {"block": (4, 8, 8)}).form == "faces"
    assert planned(**light | {"weight": (33, 16, 3, 3, 3)}).form == "faces"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert not swaps() and planned(**light).form == "faces"


def planned(block, visible=None, weight=(4, 4, 3, 3, 3), dtype=torch.float32):
    visible = ragged(4, 3, 5) if visible is None else visible
    _, _, cells = scene(block, visible)
    return convolution_plan(cells.with_features(cells.features.to(dtype)), torch.zeros(weight))


def test_the_plan_says_which_form_computes():
    assert planned((8, 8, 8)).form == planned((4, 4, 4)).form == planned((4, 4, 4), dtype=torch.float64).form == "faces"
    assert planned((2, 2, 2)).form == planned((1, 1, 1)).form == planned((8, 2, 8)).form == "columns"
    assert planned((8, 8, 8), weight=(4, 1, 3, 3, 3)).form == "halo"
    assert planned((8, 8, 8), weight=(4, 4, 1, 1, 1)).form == "pointwise"
    assert planned((8, 8, 8), torch.ones(2, 4, 3, 5, dtype=torch.bool)).form == "whole"
    assert planned((8, 8, 8), dtype=torch.bfloat16).form == "halo"
    with torch.autocast("cpu", torch.bfloat16):
        assert planned((8, 8, 8)).form == "halo"
    assert repr(planned((2, 2, 2))) == "ConvolutionPlan('columns': 27 rows gathered for each token, one matrix product)"


def test_a_module_tells_its_plan():
    _, _, cells = scene((8, 8, 8), ragged(4, 3, 5))
    conv = SubmanifoldConv3d(4, 6)
    assert conv.plan(cells).form == "faces"


def test_the_index_of_a_grid_of_48_tokens_costs_little_beside_its_convolution():
    """Measured in `wavespark bench sparse`: well below 2 ms. Here only that nobody makes it slower by a loop."""
    import time

    visible = ragged(6, 6, 6, batch=1, share=0.4)

    def seconds(work):
        best = float("inf")
        for _ in range(5):
            start = time.process_time()
            work()
            best = min(best, time.process_time() - start)
        return best

    def layout():
        return CellLayout.of(visible, size=(48, 48, 48), cell=(8, 8, 8))

    dense, weight = torch.zeros(1, 32, 48, 48, 48), torch.zeros(32, 32, 3, 3, 3)
    assert seconds(lambda: layout().halo((8, 8, 8), 1, 1)) < seconds(lambda: F.conv3d(dense, weight, padding=1))
