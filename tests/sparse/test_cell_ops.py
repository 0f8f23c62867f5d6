"""The public modules on visible cells: equal to dense means and to the same sparse voxels, forward and all gradients (laws I5, I19, I20)."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from laws.tiny import crop_of, grid_of, ragged, voxels_of
from oracles.dense_reference import coarser, strided, submanifold, transposed
from wavespark.errors import ShapeError
from wavespark.sparse import (
    AvgPool3d,
    CellLayout,
    GlobalAvgPool,
    GlobalMaxPool,
    MaxPool3d,
    SparseBatchNorm,
    SparseGELU,
    SparseInstanceNorm,
    SparseLayerNorm,
    SparseReLU,
    StridedConv3d,
    SubmanifoldConv3d,
    SumPool3d,
    TransposedConv3d,
    VisibleCells,
    submanifold_conv,
)
from wavespark.sparse.cells import conv as cell_conv
from wavespark.sparse.cells.forms import tuning
from wavespark.sparse.layers.conv import strided_conv
from wavespark.sparse.layers.conv import submanifold_conv as dispatched

SIZES = [(24, 16, 32), (19, 24, 13), (17, 9, 8)]
C, OUT = 3, 5
EXACT = 1e-10
TWO = (2, 2, 2)


@pytest.fixture(params=SIZES, ids=str)
def size(request):
    return request.param


@pytest.fixture(params=[1, 2**22], ids=["a cell at a time", "all at once"])
def _chunk(request, monkeypatch):
    monkeypatch.setattr(tuning, "TUNING", replace(tuning.TUNING, chunk_bytes=request.param))


def scene(size, batch=3, share=0.5):
    """A crop, NaN where hidden, and which voxels are visible; another number of cells in each sample."""
    visible = ragged(*grid_of(size), batch=batch, share=share)
    shown = voxels_of(visible, size)[:, 0]
    crop = crop_of(*size, batch=batch, channels=C).where(shown[:, None], torch.nan).requires_grad_()
    return crop, shown, VisibleCells.from_dense(crop, visible, cell=8)


def drawn(module):
    """The module in double precision with every parameter and running statistic drawn."""
    generator = torch.Generator().manual_seed(3)
    module = module.double()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return module


def alike(found, expected, *leaves):
    """Equal, and so are the gradients of a random functional."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= EXACT * expected.abs().max().clamp(min=1)
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for a, b in zip(
        *(torch.autograd.grad(y, leaves, upstream, retain_graph=True) for y in (found, expected)), strict=True
    ):
        assert (a - b).abs().max() <= EXACT * b.abs().max().clamp(min=1)


@pytest.mark.usefixtures("_chunk")
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_a_submanifold_convolution_is_the_dense_one_on_what_is_visible(size, kernel, bias):
    crop, shown, cells = scene(size)
    module = drawn(SubmanifoldConv3d(C, OUT, kernel, bias=bias))
    expected = submanifold(crop, shown, module.weight, module.bias)
    alike(module(cells).to_dense(), expected, crop, *module.parameters())


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_depthwise_convolution_is_the_dense_one_on_what_is_visible(size, kernel):
    crop, shown, cells = scene(size)
    weight = crop_of(kernel, kernel, kernel, batch=C).requires_grad_()
    zeroed = crop.where(shown[:, None], 0)
    expected = F.conv3d(zeroed, weight, padding=kernel // 2, groups=C).where(shown[:, None], 0)
    alike(dispatched(cells, weight).to_dense(), expected, crop, weight)


@pytest.mark.usefixtures("_chunk")
@pytest.mark.parametrize("kernel", [2, 3])
def test_a_strided_convolution_is_the_dense_one_on_what_is_visible(size, kernel):
    crop, shown, cells = scene(size)
    module = drawn(StridedConv3d(C, OUT, kernel))
    found = module(cells)
    assert found.stride == TWO
    alike(found.to_dense(), strided(crop, shown, module.weight, module.bias, TWO), crop, *module.parameters())


@pytest.mark.parametrize("block", [2, 4])
def test_a_kernel_of_3_with_stride_2_crosses_cells_of_few_tokens(block):
    size, visible = (6 * block, 4 * block, 5 * block), ragged(6, 4, 5, share=0.6)
    crop = crop_of(*size, channels=C).requires_grad_()
    module = drawn(StridedConv3d(C, OUT, 3))
    shown = voxels_of(visible, size, block)[:, 0]
    found = module(VisibleCells.from_dense(crop, visible, cell=block)).to_dense()
    alike(found, strided(crop, shown, module.weight, module.bias, TWO), crop, *module.parameters())


def test_a_stride_need_not_be_the_same_along_each_axis():
    crop, shown, cells = scene((19, 24, 13))
    module = drawn(StridedConv3d(C, OUT, (1, 2, 4), (1, 2, 4)))
    expected = strided(crop, shown, module.weight, module.bias, (1, 2, 4))
    alike(module(cells).to_dense(), expected, crop, *module.parameters())


@pytest.mark.parametrize("generative", [True, False], ids=["all children", "back to given sites"])
def test_a_transposed_convolution_is_the_dense_one_on_what_is_visible(size, generative):
    crop, shown, fine = scene(size)
    down, up = drawn(StridedConv3d(C, OUT)), drawn(TransposedConv3d(OUT, C, generative=generative))
    found = up(down(fine), **({} if generative else {"like": fine}))
    coarse = strided(crop, shown, down.weight, down.bias, TWO)
    expected = transposed(coarse, coarser(shown, TWO), up.weight, up.bias, TWO, shown)
    alike(found.to_dense(), expected, crop, *down.parameters(), *up.parameters())


CHAINS = {
    "submanifold": lambda: [SubmanifoldConv3d(C, C)],
    "down by 2": lambda: [StridedConv3d(C, C)],
    "down by 3": lambda: [StridedConv3d(C, C, 3)],
    "batch norm": lambda: [SparseBatchNorm(C)],
    "instance norm": lambda: [SparseInstanceNorm(C)],
    "layer norm": lambda: [SparseLayerNorm(C)],
    "max": lambda: [SparseReLU(), MaxPool3d()],
    "average": lambda: [AvgPool3d()],
    "sum": lambda: [SumPool3d()],
    "a stage": lambda: [SubmanifoldConv3d(C, C), SparseBatchNorm(C), SparseReLU(), StridedConv3d(C, C, 3),
                        SparseInstanceNorm(C), SparseGELU(), SubmanifoldConv3d(C, C, 1), AvgPool3d()],
    "back up": lambda: [SubmanifoldConv3d(C, C), StridedConv3d(C, C, 3), SparseLayerNorm(C), SparseGELU()],
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_cells_and_sparse_voxels_give_the_same_and_convert_into_each_other(size, name):
    crop, _, cells = scene(size)
    chain = drawn(torch.nn.Sequential(*CHAINS[name]()))
    found, expected = chain(cells), chain(cells.to_sparse())
    stride, extent = found.stride, found.to_dense().shape[2:]
    assert expected.stride == stride[0]
    if name == "back up":
        up = drawn(TransposedConv3d(C, C))
        found, expected = up(found, like=cells), up(expected, like=cells.to_sparse())
        extent = size
    alike(found.to_dense(), expected.to_dense(extent), crop, *chain.parameters())
    back = expected.to_cells(8, size)
    assert torch.equal(back.cells, found.cells)
    assert back.block == found.block
    assert torch.equal(back.to_dense(), expected.to_dense(extent))
    assert torch.equal(found.to_sparse().to_cells(8, size).to_dense(), found.to_dense())


@pytest.mark.parametrize("pool", [GlobalAvgPool, GlobalMaxPool])
def test_global_pooling_is_that_of_the_sparse_voxels(size, pool):
    crop, _, cells = scene(size)
    alike(pool()(cells), pool()(cells.to_sparse()), crop)


def test_of_equal_values_the_first_has_the_gradient_of_a_maximum():
    crop = torch.zeros(1, 1, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    cells = VisibleCells.from_dense(crop, torch.ones(1, 1, 1, 1, dtype=torch.bool), cell=4)
    alike(MaxPool3d()(cells).to_dense(), F.max_pool3d(crop, 2), crop)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_is_that_of_torch_over_the_active_rows_and_learns_the_same_statistics(size, training):
    crop, shown, cells = scene(size)
    ours, torchs = (drawn(norm(C)).train(training) for norm in (SparseBatchNorm, torch.nn.BatchNorm1d))
    rows = crop.movedim(1, -1)[shown]
    for norm in (ours, torchs):
        norm.running_mean.fill_(0.3), norm.running_var.fill_(1.7)
    found = ours(cells).to_dense().movedim(1, -1)[shown]
    expected = torchs(rows)
    alike(found, expected, crop)
    assert (ours.running_mean - torchs.running_mean).abs().max() <= EXACT
    assert (ours.running_var - torchs.running_var).abs().max() <= EXACT
    assert ours.num_batches_tracked == torchs.num_batches_tracked


def test_instance_norm_is_that_of_torch_over_the_active_rows_of_each_sample(size):
    crop, shown, cells = scene(size)
    norm = drawn(SparseInstanceNorm(C))
    found = norm(cells).to_dense()
    for sample, active in enumerate(shown):
        rows = crop[sample][:, active]
        expected = F.instance_norm(rows[None], weight=norm.weight, bias=norm.bias)[0]
        alike(found[sample][:, active], expected, crop, *norm.parameters())


def test_a_sample_does_not_depend_on_the_others_in_eval_mode():
    size = (19, 24, 13)
    _, _, cells = scene(size)
    stage = drawn(torch.nn.Sequential(*CHAINS["a stage"]())).eval()
    together = stage(cells).to_dense()
    for sample, n in enumerate(cells.layout.counts):
        first = sum(cells.layout.counts[:sample])
        visible = torch.zeros(1, *cells.grid, dtype=torch.bool)
        visible[0, *cells.cells[first : first + n, 1:].T] = True
        layout = CellLayout.of(visible, size=size, cell=(8, 8, 8))
        alone = stage(VisibleCells(features=cells.features[first : first + n], layout=layout)).to_dense()
        assert (alone[0] - together[sample]).abs().max() <= EXACT


def test_what_tokens_beyond_the_crop_hold_changes_nothing():
    size = (19, 24, 13)
    _, _, cells = scene(size)
    inside = cells.layout.inside(cells.block)[..., None]
    spoiled = cells.with_features(cells.features.where(inside, torch.nan).detach().requires_grad_())
    for make in CHAINS.values():
        chain = drawn(torch.nn.Sequential(*make()))
        if isinstance(chain[0], SparseLayerNorm):
            continue  # acts on each token alone
        found, expected = chain(spoiled).to_dense(), chain(cells).to_dense()
        assert torch.equal(found, expected)
        for g in torch.autograd.grad(found.sum(), [*chain.parameters(), spoiled.features]):
            assert g.isfinite().all()


def test_the_gradient_of_a_strided_convolution_is_the_same_every_time():
    crop, _, cells = scene((24, 16, 32))
    module = drawn(StridedConv3d(C, OUT, 3))
    runs = [
        torch.autograd.grad(module(cells).features.square().sum(), [crop, *module.parameters()], retain_graph=True)
        for _ in range(2)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("kernel", [2, 3])
def test_autocast_computes_in_half_precision_and_keeps_the_gradients_in_full(kernel):
    _, _, cells = scene((19, 24, 13))
    cells = cells.with_features(cells.features.detach().float().requires_grad_())
    module = drawn(StridedConv3d(C, OUT, kernel)).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = module(cells)
    assert found.features.dtype == torch.bfloat16
    assert (found.to_dense() - module(cells).to_dense()).abs().max() <= 0.2
    for g in torch.autograd.grad(found.features.float().sum(), [cells.features, *module.parameters()]):
        assert g.dtype == torch.float32


def test_batch_norm_of_a_single_token_is_refused_in_training():
    cells = VisibleCells.from_dense(torch.zeros(1, C, 1, 1, 1), torch.ones(1, 1, 1, 1, dtype=torch.bool), cell=8)
    with pytest.raises(ShapeError, match="at least 2 active tokens"):
        SparseBatchNorm(C)(cells)
    SparseBatchNorm(C).eval()(cells)


def tokens(block=4, channels=C, cell=8):
    layout = CellLayout.of(torch.ones(1, 2, 2, 2, dtype=torch.bool), size=(2 * cell,) * 3, cell=(cell,) * 3)
    return VisibleCells(features=torch.zeros(8, block, block, block, channels), layout=layout)


REFUSED = {
    "dilation": (lambda: SubmanifoldConv3d(C, C, dilation=2)(tokens()), "dilation 1"),
    "other channels": (lambda: StridedConv3d(C + 1, C)(tokens()), "takes a weight"),
    "a kernel of 2 with stride 4": (
        lambda: strided_conv(tokens(), torch.zeros(C, C, 2, 2, 2), stride=4),
        "equals its stride",
    ),
    "one token a cell": (lambda: StridedConv3d(C, C)(tokens(1)), "does not divide"),
    "an odd number of tokens": (lambda: StridedConv3d(C, C, 3)(tokens(3, cell=9)), "does not divide"),
    "pooling one token a cell": (lambda: MaxPool3d()(tokens(1)), "does not divide"),
    "overlapping even windows": (lambda: MaxPool3d(4, 2)(tokens()), "equals its stride"),
    "no way back": (lambda: TransposedConv3d(C, C)(tokens()), "choose one"),
    "both ways back": (lambda: TransposedConv3d(C, C, generative=True)(tokens(), like=tokens(8)), "choose one"),
    "back to another level": (lambda: TransposedConv3d(C, C)(tokens(), like=tokens()), "same cells"),
    "back to sparse voxels": (lambda: TransposedConv3d(C, C)(tokens(), like=tokens(8).to_sparse()), "same cells"),
    "finer than voxels": (lambda: TransposedConv3d(C, C, generative=True)(tokens(8)), "do not divide"),
    "another type": (lambda: submanifold_conv(tokens(), torch.zeros(C, C, 3, 3, 3).double()), "or use autocast"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cells_cannot_do_is_refused_in_words(case):
    attempt, words = REFUSED[case]
    with pytest.raises(ShapeError, match=words):
        attempt()


def test_a_module_for_one_channel_does_not_pass_for_a_depthwise_one():
    crop, visible = torch.zeros(1, 4, 8, 8, 8), torch.ones(1, 1, 1, 1, dtype=torch.bool)
    cells = VisibleCells.from_dense(crop, visible, cell=8)
    with pytest.raises(ShapeError, match="takes 1 input channel"):
        SubmanifoldConv3d(1, 4)(cells)


def test_the_gradient_of_a_stride_at_once_is_that_of_one_parity_after_the_other(monkeypatch):
    _, _, cells = scene((19, 24, 13))
    conv = drawn(StridedConv3d(C, OUT, 3))
    found = []
    for by_parity in (tuning.PROCESSOR, frozenset()):
        monkeypatch.setattr(tuning, "TUNING", replace(tuning.TUNING, by_parity=by_parity))
        x = cells.with_features(cells.features.detach().requires_grad_())
        y = conv(x).features
        upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        found.append(torch.autograd.grad(y, x.features, upstream)[0])
    assert (found[0] - found[1]).abs().max() <= EXACT * found[0].abs().max()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    "module",
    [
        SubmanifoldConv3d(C, OUT),
        SubmanifoldConv3d(C, C, groups=C),
        SubmanifoldConv3d(C, OUT, (3, 3, 1)),
        SubmanifoldConv3d(C, OUT, (1, 3, 5)),
        StridedConv3d(C, OUT, 3),
        StridedConv3d(C, OUT, (3, 3, 1), (2, 2, 1)),
        SparseInstanceNorm(C),
    ],
    ids=repr,
)
def test_the_forms_of_an_accelerator_are_those_of_a_processor(module, size, monkeypatch, _chunk):
    """Lines gathered in one piece, torch's fused norm: the same numbers, here where both can run."""
    _, _, cells = scene(size)
    made = drawn(module)
    found = []
    for on_accelerator in (False, True):
        if on_accelerator:
            nowhere: frozenset[str] = frozenset()
            forms = {"token_by_token": nowhere, "least_run": 2, "least_tokens": 1, "norm_in_pieces": nowhere}
            monkeypatch.setattr(tuning, "TUNING", replace(tuning.TUNING, **forms))
            monkeypatch.setattr(cell_conv, "convolution_plan", lambda x, weight: cell_conv.ConvolutionPlan("halo"))
        layout = replace(cells.layout, _cache={})
        x = VisibleCells(features=cells.features.detach().requires_grad_(), layout=layout)
        y = made(x).features
        upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        found.append((y, *torch.autograd.grad(y, [x.features, *made.parameters()], upstream)))
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).abs().max() <= EXACT * theirs.abs().max()
