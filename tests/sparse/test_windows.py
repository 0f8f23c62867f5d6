"""Kernels and strides of medical networks on visible cells: each equal to dense torch on what is visible, and to the same sparse voxels."""

import pytest
import torch
import torch.nn.functional as F

from laws.tiny import crop_of, grid_of, ragged, voxels_of
from oracles.dense_reference import coarser, strided, submanifold, transposed
from wavespark.errors import ShapeError
from wavespark.sparse import (
    AvgPool3d,
    MaxPool3d,
    StridedConv3d,
    SubmanifoldConv3d,
    SumPool3d,
    TransposedConv3d,
    VisibleCells,
)

EXACT = 1e-10
STRIDED = [
    ((1, 2, 2), (1, 2, 2)),
    ((1, 3, 3), (1, 2, 2)),
    ((3, 2, 2), (1, 2, 2)),
    ((3, 3, 3), (1, 2, 2)),
    ((5, 5, 5), (2, 2, 2)),
    ((7, 7, 7), (4, 4, 4)),
    ((3, 3, 3), (3, 3, 3)),
    ((1, 1, 1), (2, 2, 2)),
    ((3, 3, 3), (4, 2, 1)),
]
TRANSPOSED = [(kernel, stride) for kernel, stride in STRIDED if max(stride) < 4]


def scene(size=(27, 24, 22), cell=12, channels=3, dtype=torch.float64):
    """A crop that ends inside its last cells, NaN where hidden; which voxels are visible; its cells."""
    visible = ragged(*grid_of(size, cell), share=0.6)
    shown = voxels_of(visible, size, cell)[:, 0]
    crop = crop_of(*size, channels=channels, dtype=dtype).where(shown[:, None], torch.nan).requires_grad_()
    return crop, shown, VisibleCells.from_dense(crop, visible, cell=cell)


def drawn(module):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in module.double().parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return module


def alike(found, expected, *leaves):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= EXACT * expected.abs().max()
    upstream = crop_of(*found.shape[2:], batch=found.shape[0], channels=found.shape[1], seed=4)
    pairs = zip(*(torch.autograd.grad(y, leaves, upstream, retain_graph=True) for y in (found, expected)), strict=True)
    for a, b in pairs:
        assert (a - b).abs().max() <= EXACT * b.abs().max().clamp(min=1)


@pytest.mark.parametrize("kernel", [(1, 3, 3), (3, 1, 3), (5, 5, 5), (7, 7, 7), (1, 1, 5)], ids=str)
@pytest.mark.parametrize("groups", [1, 3], ids=["ordinary", "depthwise"])
@pytest.mark.parametrize("cell", [3, 12], ids=["a kernel wider than a cell", "large cells"])
def test_an_odd_kernel_reads_visible_neighbours_only(kernel, groups, cell):
    size = (27, 24, 22) if cell == 12 else (9, 8, 12)
    crop, shown, cells = scene(size, cell)
    conv = drawn(SubmanifoldConv3d(3, 3 if groups == 3 else 4, kernel, groups=groups))
    zeroed, padding = crop.where(shown[:, None], 0), [k // 2 for k in kernel]
    expected = F.conv3d(zeroed, conv.weight, conv.bias, padding=padding, groups=groups).where(shown[:, None], 0)
    alike(conv(cells).to_dense(), expected, crop, *conv.parameters())


@pytest.mark.parametrize(("kernel", "stride"), STRIDED, ids=str)
def test_a_strided_convolution_is_the_dense_one(kernel, stride):
    crop, shown, cells = scene()
    conv = drawn(StridedConv3d(3, 4, kernel, stride))
    alike(conv(cells).to_dense(), strided(crop, shown, conv.weight, conv.bias, stride), crop, *conv.parameters())


@pytest.mark.parametrize(("kernel", "stride"), STRIDED, ids=str)
def test_a_strided_convolution_gives_cells_and_voxels_the_same_values(kernel, stride):
    _, _, cells = scene()
    conv = drawn(StridedConv3d(3, 4, kernel, stride))
    on_cells = conv(cells).to_sparse()
    on_voxels = conv(cells.to_sparse())
    assert len(on_cells) == len(on_voxels)
    assert on_cells.stride == on_voxels.stride
    difference = on_cells + (-on_voxels)
    assert len(difference) == len(on_cells)
    assert difference.features.abs().max() <= EXACT * on_cells.features.abs().max()


@pytest.mark.parametrize(("kernel", "stride"), TRANSPOSED, ids=str)
def test_a_transposed_convolution_is_the_adjoint_of_the_strided_one(kernel, stride):
    _, _, fine = scene((24, 24, 24))
    down, up = (
        drawn(StridedConv3d(3, 4, kernel, stride, bias=False)),
        TransposedConv3d(4, 3, kernel, stride, bias=False),
    )
    up.double().load_state_dict({"weight": down.weight.detach()})
    fine = fine.with_features(crop_of(*fine.block, batch=len(fine), channels=3).movedim(1, -1))
    coarse = down(fine)
    other = coarse.with_features(crop_of(*coarse.block, batch=len(coarse), channels=4, seed=9).movedim(1, -1))
    left = (coarse.features * other.features).sum()
    right = (fine.features * up(other, like=fine).features).sum()
    assert (left - right).abs() <= 1e-9 * left.abs().clamp(min=1)


def test_a_transposed_convolution_of_kernel_3_and_stride_2_is_the_dense_one():
    crop, shown, fine = scene((24, 24, 24))
    up = drawn(TransposedConv3d(3, 4, 3, 2))
    coarse = AvgPool3d(2)(fine)
    dense, active = coarse.to_dense(), coarser(shown, (2, 2, 2))
    found = up(coarse, like=fine).to_dense()
    y = F.conv_transpose3d(dense, up.weight, up.bias, stride=2, padding=1, output_padding=1)
    alike(found, y.where(shown[:, None], 0), crop, *up.parameters())
    assert active.shape[1:] == (12, 12, 12)
    with pytest.raises(ValueError, match="output size"):  # the oracle needs the output padding above
        transposed(dense, active, up.weight, up.bias, (2, 2, 2), shown)


@pytest.mark.parametrize("pooling", [MaxPool3d, AvgPool3d, SumPool3d])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (3, 3), ((1, 3, 3), (1, 2, 2)), ((1, 2, 2), (1, 2, 2)), (5, 1)])
def test_pooling_gives_cells_and_voxels_the_same_values_and_gradients(pooling, kernel, stride):
    crop, _, cells = scene()
    results = []
    for value in (cells, cells.to_sparse()):
        pooled = pooling(kernel, stride)(value)
        dense = pooled.to_dense() if isinstance(pooled, VisibleCells) else pooled.to_dense(results[0][0].shape[2:])
        weight = crop_of(*dense.shape[2:], batch=dense.shape[0], channels=dense.shape[1], seed=6)
        results.append((dense, torch.autograd.grad((dense * weight).sum(), crop, retain_graph=True)[0]))
    for a, b in zip(*results, strict=True):
        assert (a - b).abs().max() <= EXACT * b.abs().max()


def test_a_largest_value_never_is_a_hidden_zero():
    crop, visible = -torch.ones(1, 1, 8, 8, 8), torch.tensor([True, False, True, True, True, True, True, True])
    cells = VisibleCells.from_dense(crop, visible.view(1, 2, 2, 2), cell=4)
    assert MaxPool3d(3, 2)(cells).features.max() == -1
    assert AvgPool3d(3, 2)(cells).features.max() == -1


@pytest.mark.parametrize(("kernel", "stride"), [(2, 1), (4, 2), ((2, 3, 3), (1, 2, 2))])
def test_an_even_kernel_that_is_not_its_stride_is_refused(kernel, stride):
    _, _, cells = scene()
    for layer in (StridedConv3d(3, 4, kernel, stride).double(), MaxPool3d(kernel, stride)):
        for value in (cells, cells.to_sparse()):
            with pytest.raises(ShapeError, match="kernel"):
                layer(value)


@pytest.mark.parametrize(
    ("form", "message"),
    [("faces", "kernel of 3"), ("whole", "every cell visible"), ("pointwise", "kernel 1"), ("fastest", "no form")],
)
def test_a_form_that_cannot_compute_a_convolution_is_refused(form, message):
    _, _, cells = scene()
    with pytest.raises(ShapeError, match=message):
        SubmanifoldConv3d(3, 4, (1, 3, 3), form=form).double()(cells)


def test_a_form_can_be_forced_and_gives_the_same_values():
    crop, shown, cells = scene()
    conv = drawn(SubmanifoldConv3d(3, 4))
    expected = submanifold(crop, shown, conv.weight, conv.bias)
    for form in ("halo", "faces", "columns"):
        conv.form = form
        assert (conv(cells).to_dense() - expected).abs().max() <= EXACT * expected.abs().max()
