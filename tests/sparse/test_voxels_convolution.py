"""Law I5: a sparse convolution is the dense one with hidden positions zeroed, forward and in all gradients."""

from itertools import product
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.dense_reference import coarser, gradients, relative, strided, submanifold, transposed
from wavespark.errors import SettingsError, ShapeError, SitesError
from wavespark.sparse import (
    SparseBatchNorm,
    SparseReLU,
    SparseVoxels,
    StridedConv3d,
    SubmanifoldConv3d,
    TransposedConv3d,
)
from wavespark.sparse.layers.conv import strided_conv, submanifold_conv, transposed_conv

Triple = tuple[int, int, int]
GRIDS = st.tuples(*[st.integers(1, 6)] * 3)
SCENES = {
    "batch": st.integers(1, 3),
    "grid": GRIDS,
    "share": st.sampled_from([0.0, 0.05, 0.4, 0.8, 1.0]),
    "seed": st.integers(0, 999),
}
FEW = settings(max_examples=30, deadline=None)


class Scene:
    """A dense tensor, which of it is active, and random weights; NaN where hidden."""

    def __init__(self, batch: int, grid: Triple, share: float, seed: int, dtype: torch.dtype = torch.float64) -> None:
        self.g = torch.Generator().manual_seed(seed)
        self.dtype, self.grid = dtype, grid
        self.active = torch.rand(batch, *grid, generator=self.g) < share
        self.dense = self.randn(batch, 3, *grid).where(self.active[:, None], torch.nan).requires_grad_()

    def randn(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.g, dtype=self.dtype)

    def weights(self, *shape: int, out: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.randn(*shape).requires_grad_(), self.randn(out).requires_grad_()

    @property
    def voxels(self) -> SparseVoxels:
        return SparseVoxels.from_dense(self.dense, self.active)


def check(
    ours: SparseVoxels, reference: torch.Tensor, scene: Scene, *leaves: torch.Tensor, tolerance: float = 1e-10
) -> None:
    size = reference.shape[2:]
    mine = ours.to_dense(size)
    assert relative(mine, reference) <= tolerance
    upstream = torch.randn(reference.shape, generator=scene.g, dtype=scene.dtype)
    leaves = (scene.dense, *leaves)
    for a, b in zip(gradients(mine, upstream, *leaves), gradients(reference, upstream, *leaves), strict=True):
        assert relative(a, b) <= tolerance


@FEW
@given(**SCENES, kernel=st.sampled_from([1, 3, 5, (1, 3, 3), (3, 1, 5)]), dilation=st.sampled_from([1, 2]))
def test_submanifold_convolution_is_the_dense_one_at_the_active_sites(
    batch: int, grid: Triple, share: float, seed: int, kernel: int | Triple, dilation: int
) -> None:
    s = Scene(batch, grid, share, seed)
    sizes = (kernel,) * 3 if isinstance(kernel, int) else kernel
    weight, bias = s.weights(4, 3, *sizes, out=4)
    x = s.voxels
    y = submanifold_conv(x, weight, bias, dilation)
    assert torch.equal(y.sites, x.sites)
    check(y, submanifold(s.dense, s.active, weight, bias, dilation), s, weight, bias)


@FEW
@given(**SCENES, kernel=st.sampled_from([1, 3, 5, (1, 3, 3)]), dilation=st.sampled_from([1, 2]))
def test_a_depthwise_convolution_is_the_dense_one_of_as_many_groups_as_channels(
    batch: int, grid: Triple, share: float, seed: int, kernel: int | Triple, dilation: int
) -> None:
    s = Scene(batch, grid, share, seed)
    module = SubmanifoldConv3d(3, 3, kernel, dilation, groups=3, dtype=torch.float64)
    padding = [k // 2 * dilation for k in module.kernel_size]
    y = torch.nn.functional.conv3d(
        s.dense.where(s.active[:, None], 0), module.weight, module.bias, 1, padding, dilation, groups=3
    )
    check(module(s.voxels), y.where(s.active[:, None], 0), s, *module.parameters())


def test_a_depthwise_convolution_is_that_of_torch_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SubmanifoldConv3d(4, 4, groups=4).weight.shape == torch.nn.Conv3d(4, 4, 3, groups=4).weight.shape
    assert "SubmanifoldConv3d(4, 4, kernel_size=3, dilation=1, groups=4" in repr(SubmanifoldConv3d(4, 4, groups=4))
    for groups, channels in ((2, (4, 4)), (4, (4, 8)), (0, (4, 4))):
        with pytest.raises(ShapeError, match="groups must be 1 or"):
            SubmanifoldConv3d(*channels, groups=groups)
    x = Scene(1, (3, 3, 3), 0.5, 0).voxels
    monkeypatch.setattr("wavespark.sparse.voxels.conv.current_engine", lambda: SimpleNamespace(name="spconv"))
    with pytest.raises(SettingsError, match="'spconv' has no depthwise convolution"):
        SubmanifoldConv3d(3, 3, groups=3, dtype=torch.float64)(x)


@FEW
@given(
    **SCENES,
    form=st.sampled_from(
        [
            ((2, 2, 2), (2, 2, 2)),
            ((3, 3, 3), (2, 2, 2)),
            ((1, 3, 3), (1, 2, 2)),
            ((1, 2, 2), (1, 2, 2)),
            ((3, 3, 3), (2, 1, 2)),
        ]
    ),
)
def test_strided_convolution_is_the_dense_one_where_any_site_of_the_cell_is_active(
    batch: int, grid: Triple, share: float, seed: int, form: tuple[Triple, Triple]
) -> None:
    kernel, stride = form
    s = Scene(batch, grid, share, seed)
    weight, bias = s.weights(4, 3, *kernel, out=4)
    y = strided_conv(s.voxels, weight, bias, stride)
    expected = coarser(s.active, stride).nonzero() * torch.tensor((1, *stride))
    assert torch.equal(y.sites, expected.int())
    assert y.coordinates.stride == stride
    check(y, strided(s.dense, s.active, weight, bias, stride), s, weight, bias)


@FEW
@given(**SCENES, kernel=st.sampled_from([2, 3]), other=st.floats(0, 1))
def test_transposed_convolution_is_the_dense_one_at_the_sites_of_like(
    batch: int, grid: Triple, share: float, seed: int, kernel: int, other: float
) -> None:
    s = Scene(batch, grid, share, seed)
    weight, bias = s.weights(3, 4, kernel, kernel, kernel, out=4)
    coarse = SparseVoxels(s.voxels.features, s.voxels.sites * torch.tensor([1, 2, 2, 2]), stride=2, batch_size=batch)
    fine = torch.rand(batch, *(2 * n - 1 for n in grid), generator=s.g) < other
    like = SparseVoxels.from_dense(torch.zeros(batch, 1, *fine.shape[1:]), fine)
    y = transposed_conv(coarse, weight, bias, 2, like)
    assert y.coordinates is like.coordinates
    check(y, transposed(s.dense, s.active, weight, bias, (2, 2, 2), fine), s, weight, bias)


@FEW
@given(**SCENES)
def test_generative_convolution_makes_every_child(batch: int, grid: Triple, share: float, seed: int) -> None:
    s = Scene(batch, grid, share, seed)
    weight, bias = s.weights(3, 4, 2, 2, 2, out=4)
    coarse = SparseVoxels(s.voxels.features, s.voxels.sites * torch.tensor([1, 2, 2, 2]), stride=2, batch_size=batch)
    y = transposed_conv(coarse, weight, bias, generative=True)
    fine = s.active.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert (len(y), y.stride) == (8 * len(coarse), 1)
    check(y, transposed(s.dense, s.active, weight, bias, (2, 2, 2), fine), s, weight, bias)


@pytest.mark.parametrize(("share", "size"), list(product([0.05, 0.4, 0.9], [9, 24])))
def test_fp32_stays_within_one_in_a_hundred_thousand_of_dense(share: float, size: int) -> None:
    s = Scene(2, (size, size, size), share, 5, torch.float32)
    weight, bias = s.weights(8, 3, 3, 3, 3, out=8)
    reference = submanifold(s.dense, s.active, weight, bias)
    check(submanifold_conv(s.voxels, weight, bias), reference, s, weight, bias, tolerance=1e-5)


def test_sites_far_apart_convolve_like_sites_in_a_small_grid() -> None:
    near = torch.tensor([[0, 5, 5, 5], [0, 5, 5, 6], [0, 6, 5, 6], [1, 5, 5, 5]], dtype=torch.int32)
    far = near + torch.tensor([0, 90_000, 80_000, 70_000], dtype=torch.int32)
    features, conv = torch.randn(4, 3, dtype=torch.float64), SubmanifoldConv3d(3, 2).double()
    for a, b in ((near, far), (near.flip(0), far.flip(0))):
        x, y = SparseVoxels(features, a), SparseVoxels(features, b)
        assert x.coordinates._table is not None
        assert y.coordinates._table is None
        assert torch.equal(conv(x).features, conv(y).features)
        down = StridedConv3d(3, 2, 3).double()
        assert (
            relative(
                down(y).features,
                down(SparseVoxels(features, a + torch.tensor([0, 2, 2, 2], dtype=torch.int32))).features,
            )
            < 1e-12
        )


def test_a_crowded_and_a_scattered_map_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    s = Scene(2, (7, 6, 5), 0.5, 3)
    weight, bias = s.weights(4, 3, 3, 3, 3, out=4)
    results = []
    for crowded in (0.0, 2.0):
        monkeypatch.setattr("wavespark.sparse.voxels.kernel_map._CROWDED", crowded)
        y = submanifold_conv(s.voxels, weight, bias)
        results.append((y.features, *gradients(y.features.square().sum(), None, s.dense, weight, bias)))
    assert all(relative(a, b) < 1e-12 for a, b in zip(*results, strict=True))


def test_columns_never_exceed_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    s = Scene(1, (6, 6, 6), 1.0, 3)
    weight, bias = s.weights(4, 3, 3, 3, 3, out=4)
    whole = submanifold_conv(s.voxels, weight, bias).features
    monkeypatch.setattr("wavespark.sparse.gather_gemm._COLUMN_BYTES_CPU", 1)
    largest, select = [], torch.index_select
    monkeypatch.setattr(torch, "index_select", lambda *a, **k: largest.append(len(a[2])) or select(*a, **k))
    assert relative(submanifold_conv(s.voxels, weight, bias).features, whole) < 1e-12
    assert largest
    assert max(largest) <= 64 * 27


def test_running_twice_gives_the_same_bits() -> None:
    s = Scene(2, (9, 9, 9), 0.4, 1, torch.float32)
    weight, bias = s.weights(8, 3, 3, 3, 3, out=8)
    runs = []
    for _ in range(2):
        y = submanifold_conv(s.voxels, weight, bias)
        runs.append((y.features, *gradients(y.features, torch.ones_like(y.features), s.dense, weight, bias)))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_half_precision_and_keeps_fp32_parameters(dtype: torch.dtype) -> None:
    s = Scene(1, (8, 8, 8), 0.5, 2, torch.float32)
    conv, down = SubmanifoldConv3d(3, 8), StridedConv3d(8, 4, 3)
    exact = down(conv(s.voxels)).features
    with torch.autocast("cpu", dtype=dtype):
        y = down(conv(s.voxels))
    assert y.features.dtype == dtype
    assert relative(y.features.float(), exact) < 0.05
    y.features.float().sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.dtype == torch.float32
    assert conv.weight.grad.isfinite().all()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # the compiler itself looks at it
def test_a_network_under_compile_gives_the_same_numbers() -> None:
    s = Scene(1, (6, 6, 6), 0.5, 2, torch.float32)
    net = torch.nn.Sequential(SubmanifoldConv3d(3, 8), SparseBatchNorm(8), SparseReLU(), StridedConv3d(8, 4, 3)).eval()
    compiled = torch.compile(net, backend="eager")
    assert torch.equal(compiled(s.voxels).features, net(s.voxels).features)


def test_parameters_have_the_shape_and_the_start_of_torch_convolutions() -> None:
    torch.manual_seed(0)
    ours, up = SubmanifoldConv3d(4, 6), TransposedConv3d(4, 6)
    torch.manual_seed(0)
    theirs, theirs_up = torch.nn.Conv3d(4, 6, 3), torch.nn.ConvTranspose3d(4, 6, 2, 2)
    for a, b in ((ours, theirs), (up, theirs_up)):
        assert {k: v.tolist() for k, v in a.state_dict().items()} == {k: v.tolist() for k, v in b.state_dict().items()}
    assert repr(up) == "TransposedConv3d(4, 6, kernel_size=2, stride=2, generative=False, bias=True)"
    assert SubmanifoldConv3d(2, 2, bias=False).bias is None


def test_what_cannot_be_convolved_is_refused_with_the_way_out() -> None:
    x = SparseVoxels(torch.ones(1, 2), torch.zeros(1, 4, dtype=torch.int32))
    with pytest.raises(ShapeError, match="odd"):
        SubmanifoldConv3d(2, 2, kernel_size=2)
    with pytest.raises(ShapeError, match="even kernel"):
        StridedConv3d(2, 2, kernel_size=4, stride=2)(x)
    with pytest.raises(ShapeError, match="input channel"):
        SubmanifoldConv3d(3, 2)(x)
    with pytest.raises(ShapeError, match="generative=True"):
        TransposedConv3d(2, 2)(x)
    with pytest.raises(SitesError, match="like="):
        TransposedConv3d(2, 2)(x, like=x)
    with pytest.raises(SitesError, match="children"):
        TransposedConv3d(2, 2, generative=True)(x)
    with pytest.raises(ShapeError, match="autocast"):
        SubmanifoldConv3d(2, 2).double()(x)
    with pytest.raises(ShapeError, match="Tensor"):
        SubmanifoldConv3d(2, 2)(x.features)


def test_samples_do_not_meet() -> None:
    a = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 1]], dtype=torch.int32)
    conv = SubmanifoldConv3d(2, 2)
    features = torch.randn(2, 2)
    both = conv(SparseVoxels(features, a, batch_size=4)).features
    assert torch.equal(both[:1], conv(SparseVoxels(features[:1], a[:1], batch_size=4)).features)
