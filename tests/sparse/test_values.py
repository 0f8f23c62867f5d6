"""What sparse values share with tensors: copies, pickles, types, arithmetic, pytrees; and what they refuse in words."""

import copy
import pickle

import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten
from torch.utils.data import DataLoader

from laws.tiny import crop_of, ragged
from wavespark.errors import ShapeError, SitesError
from wavespark.sparse import (
    AvgPool3d,
    CellLayout,
    GlobalAvgPool,
    GlobalMaxPool,
    GlobalSumPool,
    MaxPool3d,
    SparseBatchNorm,
    SparseDropout,
    SparseGELU,
    SparseGRN,
    SparseGroupNorm,
    SparseInstanceNorm,
    SparseLayerNorm,
    SparseLeakyReLU,
    SparseLinear,
    SparseReLU,
    SparseSiLU,
    SparseVoxels,
    StridedConv3d,
    SubmanifoldConv3d,
    SumPool3d,
    VisibleCells,
    cat,
)

KINDS = ["cells", "voxels"]


def value_of(kind, size=(7, 8, 5), channels=4, dtype=torch.float64):
    cells = VisibleCells.from_dense(crop_of(*size, channels=channels, dtype=dtype), ragged(2, 2, 2), cell=4)
    return cells if kind == "cells" else cells.to_sparse()


def siteless(kind, channels=4, batch=2):
    if kind == "voxels":
        return SparseVoxels(torch.zeros(0, channels), torch.zeros(0, 4, dtype=torch.int32), batch_size=batch)
    layout = CellLayout.of(torch.ones(batch, 2, 2, 2, dtype=torch.bool), size=(8, 8, 8), cell=(4, 4, 4))
    return VisibleCells(
        features=torch.zeros(0, 4, 4, 4, channels), layout=layout.only(torch.zeros(batch, 2, 2, 2, dtype=torch.bool))
    )


def same(a, b):
    return torch.equal(a.features, b.features) and torch.equal(a.to_dense(), b.to_dense()) and repr(a) == repr(b)


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_is_pickled_and_copied_without_what_was_derived_from_its_sites(kind):
    value = value_of(kind)
    fresh = len(pickle.dumps(value))
    SubmanifoldConv3d(4, 4).double()(value)
    assert same(pickle.loads(pickle.dumps(value)), value)
    assert len(pickle.dumps(value)) == fresh
    for other in (copy.copy(value), copy.deepcopy(value)):
        assert same(other, value)
    assert copy.deepcopy(value).features.data_ptr() != value.features.data_ptr()


class _Values(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return value_of(KINDS[index])


def test_a_worker_of_a_data_loader_returns_values():
    loader = DataLoader(_Values(), batch_size=None, num_workers=1, timeout=120)
    for kind, value in zip(KINDS, loader, strict=True):
        assert same(value, value_of(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_has_the_types_and_devices_of_its_features(kind):
    value = value_of(kind)
    assert value.dtype == torch.float64
    assert value.device == torch.device("cpu")
    assert value.half().dtype == value.to(torch.float16).dtype == value.to(dtype=torch.float16).dtype == torch.float16
    assert value.float().dtype == torch.float32
    assert value.bfloat16().to("cpu", torch.float64).dtype == torch.float64
    assert value.to(torch.float64) is value
    assert value.to("meta").device.type == "meta"
    assert value.requires_grad_().requires_grad
    assert not value.detach().requires_grad
    assert value.detach().features.data_ptr() == value.features.data_ptr()
    assert value.clone().features.data_ptr() != value.features.data_ptr()
    with pytest.raises(ShapeError, match=r"cannot become torch\.int32"):
        value.to(torch.int32)


@pytest.mark.parametrize("kind", KINDS)
def test_arithmetic_acts_on_the_features(kind):
    x, scale = value_of(kind), torch.arange(1.0, 5.0, dtype=torch.float64)
    f = x.features
    for found, expected in {
        x * 2: f * 2, 2 * x: f * 2, x / 4: f / 4, 1 / (x + 10): 1 / (f + 10), x + 1: f + 1, 1 + x: f + 1, x - 1: f - 1,
        1 - x: 1 - f, -x: -f, x * scale: f * scale, scale * x: f * scale, x * x: f * f, x / (x + 9): f / (f + 9),
        x + x: f + f, x - x: f - f, sum([x, x]): f + f,
    }.items():  # fmt: skip
        assert torch.equal(found.features, expected)
    with pytest.raises(ShapeError, match=r"does not broadcast.*of_samples"):
        x * torch.ones(3)
    for wrong in ("a", None, True, [1.0]):
        with pytest.raises(TypeError):
            x + wrong


def test_sparse_voxels_on_other_sites_have_a_sum_and_a_difference_but_no_product():
    a = SparseVoxels(torch.ones(1, 1), torch.tensor([[0, 0, 0, 0]], dtype=torch.int32))
    b = SparseVoxels(torch.ones(1, 1), torch.tensor([[0, 0, 0, 1]], dtype=torch.int32))
    assert (a - b).features.flatten().tolist() == [1, -1]
    with pytest.raises(SitesError, match="same sites"):
        a * b


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_is_a_pytree_whose_leaf_is_its_features(kind):
    x = value_of(kind)
    leaves, tree = tree_flatten(x)
    assert len(leaves) == 1
    assert leaves[0] is x.features
    assert same(tree_unflatten(leaves, tree), x)
    assert same(tree_map(lambda t: 2 * t, {"a": [x]})["a"][0], 2 * x)
    assert tree_map(lambda t: t.shape, x).features == x.features.shape
    assert tree_map(lambda t: t.to("meta"), x).features.device.type == "meta"
    gradient = torch.func.grad(lambda value: value.features.square().sum())(x)
    assert same(gradient, 2 * x)


@pytest.mark.parametrize("kind", KINDS)
def test_one_value_a_sample_reaches_each_of_its_tokens(kind):
    x = value_of(kind)
    gate = torch.tensor([[1.0, 2, 3, 4], [10, 20, 30, 40]], dtype=torch.float64)
    assert torch.equal((x * x.of_samples(gate)).to_dense(), x.to_dense() * gate[:, :, None, None, None])
    means = GlobalAvgPool()(x)
    assert torch.allclose(GlobalAvgPool()(x - x.of_samples(means)), torch.zeros_like(means), atol=1e-12)
    with pytest.raises(ShapeError, match=r"\[2, C\], one row a sample, got \(3, 4\)"):
        x.of_samples(torch.ones(3, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_any_site_keeps_every_weight_in_the_graph(kind):
    """A process with an empty batch must not stop the others, which wait for its gradients."""
    norms = [SparseBatchNorm(4), SparseInstanceNorm(4), SparseLayerNorm(4), SparseGroupNorm(2, 4), SparseGRN(4)]
    layers = [*norms, SubmanifoldConv3d(4, 4), StridedConv3d(4, 4, 3), StridedConv3d(4, 4, 2), SparseLinear(4, 4)]
    for layer in layers:
        x = siteless(kind)
        y = layer(x)
        assert len(y) == 0
        y.features.sum().backward()
        assert all(p.grad is not None and not p.grad.any() for p in layer.parameters()), layer
    for pool in (GlobalAvgPool(), GlobalMaxPool(), GlobalSumPool()):
        linear = SubmanifoldConv3d(4, 3)
        y = pool(linear(siteless(kind)))
        assert y.shape == (2, 3)
        assert not y.any()
        y.sum().backward()
        assert not linear.weight.grad.any()
    assert len(AvgPool3d(2)(MaxPool3d(1)(SumPool3d(1)(siteless(kind))))) == 0


def test_a_sample_without_cells_adds_nothing_to_a_norm():
    x = value_of("cells", size=(8, 8, 8))
    layout = x.layout.only(torch.stack([torch.ones(2, 2, 2), torch.zeros(2, 2, 2)]).bool())
    norm = SparseInstanceNorm(4).double()
    y = norm(VisibleCells(features=crop_of(4, 4, 4, batch=8, channels=4).movedim(1, -1), layout=layout))
    y.features.square().sum().backward()
    assert y.features.isfinite().all()
    assert norm.weight.grad.isfinite().all()
    assert GlobalAvgPool()(y)[1].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_averages_of_half_precision_are_summed_in_single_precision(kind, dtype):
    x = VisibleCells.from_dense(torch.full((1, 2, 8, 8, 8), 3e4).to(dtype), torch.ones(1, 2, 2, 2).bool(), cell=4)
    x = x if kind == "cells" else x.to_sparse()
    expected = x.features.flatten()[0]
    for pool in (AvgPool3d(2), AvgPool3d(3, 2), GlobalAvgPool(), GlobalMaxPool()):
        found = pool(x)
        found = found if isinstance(found, torch.Tensor) else found.features
        assert found.dtype == dtype
        assert (found == expected).all()
    for norm in (SparseGroupNorm(1, 2), SparseInstanceNorm(2), SparseGRN(2)):
        assert norm(x).features.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_used_under_inference_mode_can_be_trained_on(kind):
    modules = [
        SubmanifoldConv3d(4, 4), SubmanifoldConv3d(4, 4, groups=4), StridedConv3d(4, 4, 3), StridedConv3d(4, 4, 2),
        MaxPool3d(2), AvgPool3d(3, 2), SparseInstanceNorm(4), SparseBatchNorm(4), SparseGroupNorm(2, 4),
    ]  # fmt: skip
    for form in ("halo", "faces", "columns"):
        modules.append(SubmanifoldConv3d(4, 4, form=form))
    for module in modules:
        x, made = value_of(kind), module.double()
        with torch.inference_mode():
            other = value_of(kind)
            made(x)
            made(other)
        for value in (x, other.with_features(x.features)):
            leaf = value.with_features(value.features.clone().requires_grad_())
            made(leaf).features.square().sum().backward()
            assert leaf.features.grad.isfinite().all()


def test_neither_sites_nor_dense_results_share_memory_with_the_caller():
    sites = torch.tensor([[0, 0, 0, 0]], dtype=torch.int32)
    x = SparseVoxels(torch.ones(1, 1), sites)
    sites[0, 3] = 7
    assert x.sites.tolist() == [[0, 0, 0, 0]]
    for cell, grid in ((8, (1, 1, 1)), (1, (8, 8, 8)), (4, (2, 2, 2))):
        cells = VisibleCells.from_dense(torch.ones(1, 1, 8, 8, 8), torch.ones(1, *grid, dtype=torch.bool), cell=cell)
        cells.to_dense().zero_()
        assert cells.features.min() == 1


def test_a_union_of_sites_that_are_too_far_apart_is_refused():
    far, ones = 2**31 - 1, torch.ones(1, 1)
    a = SparseVoxels(ones, torch.tensor([[0, far, 0, 0]]), batch_size=1)
    b = SparseVoxels(ones, torch.tensor([[0, 0, far, far - 1]]), batch_size=1) if far < 2**30 else None
    b = b or SparseVoxels(ones, torch.tensor([[0, 0, 2**29, 2**29]]), batch_size=1)
    with pytest.raises(SitesError, match=r"more positions than 2\^60"):
        a + b


@pytest.mark.parametrize("momentum", [0.1, 0.3, None])
@pytest.mark.parametrize("tracked", [True, False])
def test_batch_norm_takes_the_arguments_of_torch(momentum, tracked):
    ours = SparseBatchNorm(4, momentum=momentum, track_running_stats=tracked)
    theirs = torch.nn.BatchNorm1d(4, momentum=momentum, track_running_stats=tracked)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for step in range(3):
        x = SparseVoxels(crop_of(4, 1, 1, batch=6, seed=step).float().view(6, 4), _line(6))
        assert torch.allclose(ours(x).features, theirs(x.features), atol=1e-6)
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.allclose(a.double(), b.double(), atol=1e-6)
    ours.eval(), theirs.eval()
    assert torch.allclose(ours(x).features, theirs(x.features), atol=1e-6)


def _line(n):
    return torch.tensor([[0, 0, 0, i] for i in range(n)], dtype=torch.int32)


def test_torchs_conversion_to_synced_batch_norm_says_that_it_does_not_take_sparse_values():
    model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(torch.nn.Sequential(SparseBatchNorm(4)))
    with pytest.raises(ShapeError, match="sync_batch_norm instead"):
        model(value_of("voxels", dtype=torch.float32))


POINTWISE = {
    SparseReLU(): torch.nn.ReLU(),
    SparseLeakyReLU(0.2): torch.nn.LeakyReLU(0.2),
    SparseGELU(): torch.nn.GELU(),
    SparseGELU("tanh"): torch.nn.GELU("tanh"),
    SparseSiLU(): torch.nn.SiLU(),
    SparseDropout(0.5).eval(): torch.nn.Identity(),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("ours", "theirs"), POINTWISE.items(), ids=lambda m: repr(m))
def test_an_activation_is_that_of_torch_on_each_row(kind, ours, theirs):
    x = value_of(kind)
    assert torch.equal(ours(x).features, theirs(x.features))


def test_dropout_zeroes_its_share_and_scales_the_rest():
    torch.manual_seed(0)
    found = SparseDropout(0.25)(value_of("voxels").map(torch.ones_like)).features
    assert set(found.unique().tolist()) == {0, 1 / 0.75}
    assert abs((found == 0).double().mean() - 0.25) < 0.05
    with pytest.raises(ShapeError, match=r"between 0 and 1, got 1\.5"):
        SparseDropout(1.5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_norm_is_that_of_torch_over_the_active_rows(kind, groups):
    x = value_of(kind)
    ours, theirs = SparseGroupNorm(groups, 4).double(), torch.nn.GroupNorm(groups, 4).double()
    with torch.no_grad():
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            q.copy_(p.copy_(torch.randn(p.shape, dtype=torch.float64)))
    rows, found = (v if kind == "voxels" else v.to_sparse() for v in (x, ours(x)))
    for sample in range(2):
        own = rows.sites[:, 0] == sample
        expected = theirs(rows.features[own].T[None])[0].T
        assert torch.allclose(found.features[own], expected, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_global_response_normalisation_is_its_formula_over_the_active_rows(kind):
    x, grn = value_of(kind), SparseGRN(4).double()
    assert torch.equal(grn(x).features, x.features)
    with torch.no_grad():
        grn.weight.copy_(torch.arange(4.0)), grn.bias.fill_(0.5)
    dense = x.to_dense()
    response = dense.flatten(2).norm(dim=2)
    ratio = (response / (response.mean(1, keepdim=True) + 1e-6))[:, :, None, None, None]
    active = x.map(torch.ones_like)
    active = (active.zero_outside()).to_dense() > 0
    expected = (dense + torch.arange(4.0)[:, None, None, None] * dense * ratio + 0.5).where(active, 0)
    assert torch.allclose(grn(x).to_dense(), expected, atol=1e-10)
    zeros = grn(x.map(lambda t: (0 * t).requires_grad_()))
    zeros.features.sum().backward()
    assert grn.weight.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_linear_layer_is_that_of_torch_on_each_row(kind):
    x, ours, theirs = value_of(kind), SparseLinear(4, 6).double(), torch.nn.Linear(4, 6).double()
    ours.load_state_dict(theirs.state_dict())
    expected = x.with_features(theirs(x.features)).zero_outside()
    assert torch.allclose(ours(x).features, expected.features, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sum_over_each_sample_is_that_of_its_dense_form(kind):
    x = value_of(kind)
    assert torch.allclose(GlobalSumPool()(x), x.to_dense().sum((2, 3, 4)), atol=1e-10)


LAYERS = [
    SubmanifoldConv3d(4, 4), StridedConv3d(4, 4), SparseBatchNorm(4), SparseInstanceNorm(4), SparseLayerNorm(4),
    SparseGroupNorm(2, 4), SparseGRN(4), SparseReLU(), SparseGELU(), SparseLinear(4, 4), MaxPool3d(2), GlobalAvgPool(),
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
@pytest.mark.parametrize("wrong", [torch.ones(2, 4), [1.0], None], ids=["tensor", "list", "None"])
def test_a_layer_refuses_what_is_no_sparse_value_by_its_kind(layer, wrong):
    with pytest.raises(ShapeError, match=f"VisibleCells or SparseVoxels, got {type(wrong).__name__}"):
        layer(wrong)


ONES, GRID = torch.ones(1, 1, 8, 8, 8), torch.ones(1, 2, 2, 2, dtype=torch.bool)
REFUSED = {
    "a crop that is a list": lambda: VisibleCells.from_dense([1.0], GRID, cell=4),
    "visible that is a list": lambda: VisibleCells.from_dense(ONES, [True], cell=4),
    "visible without axes": lambda: VisibleCells.from_dense(ONES, torch.tensor(True), cell=4),
    "a cell of zero": lambda: VisibleCells.from_dense(ONES, GRID, cell=0),
    "a negative cell": lambda: VisibleCells.from_dense(ONES, GRID, cell=-4),
    "no channel": lambda: VisibleCells.from_dense(ONES[:, :0], GRID, cell=4),
    "features that are a list": lambda: SparseVoxels([1.0], _line(1)),
    "sites that are a list": lambda: SparseVoxels(torch.ones(1, 1), [[0, 0, 0, 0]]),
    "features without channels": lambda: SparseVoxels(torch.ones(1, 0), _line(1)),
    "a stride of zero": lambda: SparseVoxels(torch.ones(1, 1), _line(1), stride=0),
    "cells of zero": lambda: SparseVoxels(torch.ones(1, 1), _line(1)).to_cells(0),
    "a crop of zero": lambda: SparseVoxels(torch.ones(1, 1), _line(1)).to_cells(1, (0, 0, 0)),
    "a dense tensor that is a list": lambda: SparseVoxels.from_dense([1.0]),
    "a dense shape of zero": lambda: SparseVoxels(torch.ones(1, 1), _line(1)).to_dense((0, 1, 1)),
    "a kernel of zero": lambda: SubmanifoldConv3d(4, 4, 0),
    "no channels to convolve": lambda: SubmanifoldConv3d(0, 4),
    "a dilation of zero": lambda: SubmanifoldConv3d(4, 4, dilation=0),
    "a strided convolution by zero": lambda: StridedConv3d(4, 4, 3, 0),
    "pooling by zero": lambda: MaxPool3d(0),
    "pooling with a stride of zero": lambda: MaxPool3d(3, 0),
    "a norm of no channels": lambda: SparseBatchNorm(0),
    "groups that do not divide": lambda: SparseGroupNorm(3, 4),
    "nothing to join": lambda: cat([]),
    "tensors to join": lambda: cat([torch.ones(1)]),
    "a value that is no list": lambda: cat(SparseVoxels(torch.ones(1, 1), _line(1))),
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_wrong_types_and_zeros_are_refused_in_words_of_our_own(make):
    with pytest.raises((ShapeError, SitesError)) as refusal:
        make()
    assert "object is not" not in str(refusal.value)
    assert len(str(refusal.value)) > 20
