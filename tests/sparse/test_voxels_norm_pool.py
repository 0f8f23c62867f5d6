"""Norms and pooling: active rows only, per-sample where they say so, and gradients of the dense operation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.dense_reference import coarser, gradients, relative
from wavespark.errors import ShapeError
from wavespark.sparse import (
    AvgPool3d,
    GlobalAvgPool,
    GlobalMaxPool,
    MaxPool3d,
    SparseBatchNorm,
    SparseGELU,
    SparseInstanceNorm,
    SparseLayerNorm,
    SparseReLU,
    SparseVoxels,
    SubmanifoldConv3d,
    SumPool3d,
)

Triple = tuple[int, int, int]
FEW = settings(max_examples=30, deadline=None)
SCENES = {
    "batch": st.integers(1, 3),
    "grid": st.tuples(*[st.integers(1, 6)] * 3),
    "share": st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    "seed": st.integers(0, 999),
}


def scene(batch: int, grid: Triple, share: float, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Generator]:
    g = torch.Generator().manual_seed(seed)
    active = torch.rand(batch, *grid, generator=g) < share
    dense = torch.randn(batch, 3, *grid, generator=g, dtype=torch.float64)
    return dense.where(active[:, None], torch.nan).requires_grad_(), active, g


def windows(dense: torch.Tensor, active: torch.Tensor, kernel: Triple, stride: Triple, empty: float) -> torch.Tensor:
    """[B, C, D', H', W', K]: what each window sees, `empty` where nothing is active."""
    x = dense.where(active[:, None], empty)
    for axis, (k, s) in enumerate(zip(kernel, stride, strict=True), start=2):
        size = -(-x.shape[axis] // s)
        low = k // 2 if k % 2 else 0
        x = _pad(x, axis, low, max(0, (size - 1) * s + k - low - x.shape[axis]), empty)
        x = x.unfold(axis, k, s).narrow(axis, 0, size)
    return x.flatten(5)


def _pad(x: torch.Tensor, axis: int, low: int, high: int, value: float) -> torch.Tensor:
    shape = list(x.shape)
    parts = []
    for width in (low, high):
        shape[axis] = width
        parts.append(x.new_full(shape, value))
    return torch.cat((parts[0], x, parts[1]), axis)


@FEW
@given(
    **SCENES,
    form=st.sampled_from(
        [((2, 2, 2), (2, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((3, 3, 3), (1, 1, 1)), ((1, 2, 2), (1, 2, 2))]
    ),
    kind=st.sampled_from([MaxPool3d, AvgPool3d, SumPool3d]),
)
def test_a_window_pools_its_active_sites_and_nothing_else(
    batch: int, grid: Triple, share: float, seed: int, form: tuple[Triple, Triple], kind: type
) -> None:
    (kernel, stride), (dense, active, g) = form, scene(batch, grid, share, seed)
    y = kind(kernel, stride)(SparseVoxels.from_dense(dense, active))
    out = coarser(active, stride)
    if kind is MaxPool3d:
        reference = windows(dense, active, kernel, stride, -torch.inf).amax(-1)
    else:
        reference = windows(dense, active, kernel, stride, 0.0).sum(-1)
        if kind is AvgPool3d:
            reference = reference / windows(active[:, None].double(), active, kernel, stride, 0.0).sum(-1).clamp(min=1)
    reference = reference.where(out[:, None], 0)
    mine = y.to_dense(out.shape[1:])
    assert relative(mine, reference) <= 1e-10
    upstream = torch.randn(mine.shape, generator=g, dtype=mine.dtype)
    assert relative(*(gradients(r, upstream, dense)[0] for r in (mine, reference))) <= 1e-10


def test_a_maximum_of_minus_infinity_is_not_taken_from_a_hidden_site() -> None:
    sites = torch.tensor([[0, 0, 0, 1], [0, 1, 1, 1]], dtype=torch.int32)
    x = SparseVoxels(torch.tensor([[-torch.inf, 1.0], [-torch.inf, torch.nan]], requires_grad=True), sites)
    y = MaxPool3d()(x).features
    assert y[0, 0] == -torch.inf
    assert y[0, 1].isnan()
    y[0, 0].backward()
    assert x.features.grad.tolist() == [[1, 0], [0, 0]]


@FEW
@given(**SCENES, kind=st.sampled_from(["max", "avg"]), order=st.integers(0, 99))
def test_global_pooling_is_per_sample_and_zero_without_sites(
    batch: int, grid: Triple, share: float, seed: int, kind: str, order: int
) -> None:
    dense, active, _ = scene(batch, grid, share, seed)
    x = SparseVoxels.from_dense(dense, active)
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(order))
    shuffled = SparseVoxels(x.features[rows], x.sites[rows], batch_size=batch)
    y = (GlobalMaxPool() if kind == "max" else GlobalAvgPool())(shuffled)
    for b in range(batch):
        part = dense[b].detach()[:, active[b]]
        expected = part.new_zeros(3) if not part.shape[1] else part.amax(1) if kind == "max" else part.mean(1)
        assert relative(y[b], expected) <= 1e-12


@FEW
@given(**SCENES, training=st.booleans())
def test_batch_norm_is_torchs_over_the_active_rows(
    batch: int, grid: Triple, share: float, seed: int, training: bool
) -> None:
    dense, active, g = scene(batch, grid, share, seed)
    x = SparseVoxels.from_dense(dense, active)
    if len(x) < 2:
        return
    ours, theirs = SparseBatchNorm(3).double(), torch.nn.BatchNorm1d(3).double()
    state = {
        k: torch.rand(3, generator=g, dtype=torch.float64) + 0.5
        for k in ("weight", "bias", "running_mean", "running_var")
    }
    for norm in (ours, theirs):
        norm.load_state_dict({**state, "num_batches_tracked": torch.tensor(3)})
        norm.train(training)
    upstream = torch.randn(x.features.shape, generator=g, dtype=torch.float64)
    a, b = ours(x).features, theirs(SparseVoxels.from_dense(dense, active).features)
    assert relative(a, b) <= 1e-12
    leaves = [(dense, norm.weight, norm.bias) for norm in (ours, theirs)]
    assert all(
        relative(*pair) <= 1e-12
        for pair in zip(gradients(a, upstream, *leaves[0]), gradients(b, upstream, *leaves[1]), strict=True)
    )
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())


@FEW
@given(**SCENES)
def test_instance_norm_of_a_sample_is_that_of_the_sample_alone(
    batch: int, grid: Triple, share: float, seed: int
) -> None:
    dense, active, g = scene(batch, grid, share, seed)
    x = SparseVoxels.from_dense(dense, active)
    rows = torch.randperm(len(x), generator=g)
    y = SparseInstanceNorm(3).double()(SparseVoxels(x.features[rows], x.sites[rows], batch_size=batch))
    mine = y.to_dense(grid)
    for b in range(batch):
        part = dense[b].detach()[:, active[b]]
        if part.shape[1] > 1:
            expected = torch.nn.functional.instance_norm(part[None])[0]
            assert relative(mine[b][:, active[b]], expected) <= 1e-10


def test_rows_are_normalised_and_activated_one_by_one() -> None:
    x = SparseVoxels.from_dense(torch.randn(2, 4, 3, 3, 3), torch.rand(2, 3, 3, 3) < 0.5)
    layer = torch.nn.LayerNorm(4)
    assert torch.equal(SparseLayerNorm(4)(x).features, layer(x.features))
    assert torch.equal(SparseReLU()(x).features, x.features.relu())
    assert torch.equal(SparseGELU()(x).features, torch.nn.functional.gelu(x.features))
    assert SparseReLU()(x).coordinates is x.coordinates


def test_nothing_active_is_passed_on_and_teaches_batch_norm_nothing() -> None:
    x = SparseVoxels(torch.zeros(0, 3), torch.zeros(0, 4, dtype=torch.int32), batch_size=2)
    norm = SparseBatchNorm(3)
    for module in (
        norm,
        SparseInstanceNorm(3),
        SparseLayerNorm(3),
        SparseReLU(),
        MaxPool3d(),
        AvgPool3d(),
        SubmanifoldConv3d(3, 3),
    ):
        assert module(x).features.shape == (0, 3)
    assert GlobalAvgPool()(x).tolist() == [[0, 0, 0]] * 2
    assert norm.running_mean.tolist() == [0, 0, 0]
    assert x.to_dense((2, 2, 2)).shape == (2, 3, 2, 2, 2)


def test_one_active_row_cannot_train_batch_norm_and_says_so() -> None:
    x = SparseVoxels(torch.ones(1, 3), torch.zeros(1, 4, dtype=torch.int32))
    with pytest.raises(ShapeError, match="at least 2 active rows"):
        SparseBatchNorm(3)(x)
    assert SparseBatchNorm(3).eval()(x).features.shape == (1, 3)
    with pytest.raises(ShapeError, match="SparseBatchNorm\\(4\\)"):
        SparseBatchNorm(4)(x)


def test_in_eval_a_sample_does_not_depend_on_the_others() -> None:
    active = torch.rand(3, 6, 6, 6) < 0.4
    dense = torch.randn(3, 4, 6, 6, 6)
    norms = (SparseBatchNorm(8), SparseInstanceNorm(8))
    net = torch.nn.Sequential(SubmanifoldConv3d(4, 8), norms[0], SparseReLU(), SubmanifoldConv3d(8, 8), norms[1]).eval()
    together = net(SparseVoxels.from_dense(dense, active)).to_dense((6, 6, 6))
    for b in range(3):
        alone = net(SparseVoxels.from_dense(dense[b : b + 1], active[b : b + 1])).to_dense((6, 6, 6))
        assert relative(together[b : b + 1], alone) <= 1e-6
