"""Guided hiding: exact counts, the right probabilities, and vessels where others find them."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from wavespark.errors import MaskError, ShapeError
from wavespark.masking import (
    BlockMasking,
    NestedMasking,
    blend,
    cell_mean,
    foreground_weights,
    hardness_weights,
    vesselness,
    vesselness_weights,
)
from wavespark.masking.guided import _eigenvalues


@pytest.mark.parametrize("block", [1, 2, "adaptive"])
@pytest.mark.parametrize("masking", [BlockMasking, NestedMasking])
def test_the_number_of_hidden_cells_is_exact_whatever_the_weights(masking, block):
    generator = np.random.default_rng(0)
    valid = torch.from_numpy(generator.random((20, 5, 4, 7)) < 0.7)
    weights = torch.from_numpy(generator.random((20, 5, 4, 7)) ** 30 * (generator.random((20, 5, 4, 7)) < 0.3))
    masks = masking(grid=(5, 4, 7), block=block).sample(batch=20, generator=generator, valid=valid, weights=weights)
    expected = [math.floor(0.6 * n + 0.5) for n in valid.sum((1, 2, 3)).tolist()]
    assert masks.hidden.sum((1, 2, 3)).tolist() == expected
    assert not (masks.hidden & ~valid).any()


def test_weighted_draws_follow_successive_sampling_without_replacement():
    """Against the probabilities of every pair, enumerated: first i in proportion, then j among the rest."""
    weights = np.array([1.0, 2.0, 3.0, 6.0])
    chance = dict.fromkeys(itertools.combinations(range(4), 2), 0.0)
    for i, j in itertools.permutations(range(4), 2):
        chance[min(i, j), max(i, j)] += weights[i] / 12 * weights[j] / (12 - weights[i])
    draws = 10_000
    hidden = BlockMasking(grid=(1, 1, 4), ratio=0.5).sample(
        batch=draws,
        generator=torch.Generator().manual_seed(1),
        weights=torch.from_numpy(weights).expand(draws, 1, 1, 4),
    ).hidden.reshape(draws, 4)
    seen = [int(hidden[:, pair].all(1).sum()) for pair in chance]
    assert stats.chisquare(seen, [p * draws for p in chance.values()]).pvalue > 1e-3


def test_cells_without_weight_are_hidden_only_when_nothing_else_is_left():
    weights = torch.zeros(50, 3, 3, 3)
    weights[:, 1] = torch.rand(50, 3, 3, generator=torch.Generator().manual_seed(0)) + 0.1
    few = BlockMasking(grid=(3, 3, 3), ratio=0.3).sample(batch=50, generator=np.random.default_rng(0), weights=weights)
    assert few.hidden.sum((1, 2, 3)).eq(8).all()
    assert not few.hidden[:, [0, 2]].any()
    most = BlockMasking(grid=(3, 3, 3), ratio=0.6).sample(batch=50, generator=np.random.default_rng(0), weights=weights)
    assert most.hidden[:, 1].all()
    assert most.hidden[:, 0].any()
    assert most.hidden[:, 2].any()


def test_a_block_weighs_the_mean_of_its_valid_cells():
    weights, valid = torch.zeros(40, 2, 2, 4), torch.ones(40, 2, 2, 4, dtype=torch.bool)
    weights[..., 2:] = 1.0
    weights[:, 0, 0, 0], valid[:, 0, 0, 0] = 1e9, False
    masking = BlockMasking(grid=(2, 2, 4), block=2, ratio=0.5)
    hidden = masking.sample(batch=40, generator=np.random.default_rng(0), weights=weights, valid=valid).hidden
    assert hidden[..., 2:].all()


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_no_probability_is_refused(bad):
    weights = torch.ones(1, 2, 2, 2)
    weights[0, 1, 1, 1] = bad
    with pytest.raises(MaskError, match="weights"):
        BlockMasking(grid=(2, 2, 2)).sample(draws=[(0, 0, "a")], weights=weights)
    with pytest.raises(MaskError, match="scores"):
        blend(weights, 0.5)


def test_the_mean_of_a_cell_counts_its_voxels_inside_the_crop():
    voxels = torch.rand(2, 9, 6, 4, generator=torch.Generator().manual_seed(0))
    means = cell_mean(voxels, (4, 3, 4))
    assert means.shape == (2, 3, 2, 1)
    for d, h in itertools.product(range(3), range(2)):
        block = voxels[:, 4 * d : 4 * d + 4, 3 * h : 3 * h + 3]
        torch.testing.assert_close(means[:, d, h, 0], block.mean((1, 2, 3)))
    with pytest.raises(ShapeError):
        cell_mean(voxels[0], 4)


def test_foreground_is_hidden_more_often_and_strength_zero_is_unguided():
    foreground = torch.zeros(200, 32, 32, 32, dtype=torch.bool)
    foreground[:, 8:24, 8:24, 8:24] = True
    weights = foreground_weights(foreground, 8, strength=0.8)
    torch.testing.assert_close(weights.mean((1, 2, 3)), torch.ones(200))
    draws = [(0, step, "a") for step in range(200)]
    masking = BlockMasking(grid=(4, 4, 4), ratio=0.3)
    inside = masking.sample(draws=draws, weights=weights).hidden[:, 1:3, 1:3, 1:3].float().mean()
    assert inside > 0.7
    unguided = masking.sample(draws=draws, weights=foreground_weights(foreground, 8, strength=0.0)).hidden
    assert torch.equal(unguided, masking.sample(draws=draws).hidden)
    empty = foreground_weights(torch.zeros_like(foreground), 8)
    assert torch.equal(masking.sample(draws=draws, weights=empty).hidden, masking.sample(draws=draws).hidden)


def test_hard_cells_are_hidden_more_often_and_unknown_errors_count_as_the_mean():
    errors = torch.full((1, 2, 2, 2), 0.2)
    errors[0, 0, 0, 0], errors[0, 1, 1, 1] = 1.8, float("nan")
    weights = hardness_weights(errors, strength=1.0).reshape(-1)
    known_mean = (6 * 0.2 + 1.8) / 7
    torch.testing.assert_close(weights, torch.tensor([1.8, *[0.2] * 6, known_mean]) / known_mean)
    torch.testing.assert_close(hardness_weights(errors * 1000, strength=1.0).reshape(-1), weights)
    assert hardness_weights(torch.full((1, 2, 2, 2), torch.nan)).eq(1).all()
    for bad in (-1.0, float("inf")):
        with pytest.raises(MaskError, match="scores"):
            hardness_weights(torch.full((1, 2, 2, 2), bad))


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_outside_0_to_1_is_refused(strength):
    with pytest.raises(MaskError, match="strength"):
        blend(torch.ones(1, 2, 2, 2), strength)


def test_the_closed_form_gives_the_eigenvalues_of_lapack():
    entries = np.random.default_rng(0).normal(size=(6, 500))
    entries[:, :4] = 0
    entries[:3, 1], entries[0, 2], entries[:2, 3] = 2.0, 5.0, -3.0
    xx, yy, zz, xy, xz, yz = entries
    matrices = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]).transpose(2, 0, 1)
    ours = _eigenvalues(torch.from_numpy(entries)).sort(0).values.T
    np.testing.assert_allclose(ours, np.linalg.eigvalsh(matrices), atol=1e-7)


def shapes_volume() -> torch.Tensor:
    """A bright tube along x, a plate and a ball, in a weak ramp: [40, 40, 40]."""
    x, y, z = torch.meshgrid(*[torch.arange(40.0)] * 3, indexing="ij")
    volume = 0.02 * x
    volume += 3.0 * torch.exp(-((y - 10) ** 2 + (z - 10) ** 2) / (2 * 1.5**2))
    volume += 3.0 * torch.exp(-((y - 28) ** 2) / (2 * 1.5**2)) * (z > 20)
    return volume + 3.0 * torch.exp(-((x - 20) ** 2 + (y - 14) ** 2 + (z - 30) ** 2) / (2 * 1.5**2))


def test_vesselness_finds_tubes_not_plates_and_not_balls():
    found = vesselness(shapes_volume())
    assert found.min() >= 0
    assert found.max() <= 1
    tube, plate, ball = found[20, 10, 10], found[20, 28, 31], found[20, 14, 30]
    assert tube > 0.5
    assert plate < 0.05 * tube
    assert ball < 0.3 * tube
    dark = vesselness(-shapes_volume(), bright=False)
    torch.testing.assert_close(dark, found)
    assert vesselness(-shapes_volume())[20, 10, 10] == 0


def test_vesselness_at_one_scale_is_that_of_simpleitk():
    sitk = pytest.importorskip("SimpleITK")
    from scipy import ndimage

    volume, spacing, scale = shapes_volume().numpy(), (1.0, 0.8, 1.3), 1.5
    smooth = ndimage.gaussian_filter(volume, [scale / s for s in spacing], mode="nearest")
    image = sitk.GetImageFromArray(smooth)
    image.SetSpacing(spacing[::-1])
    ours = vesselness(torch.from_numpy(volume), spacing=spacing, scales=(scale,)).numpy()
    norms = np.sqrt(sum(np.square(hessian_entry(smooth, spacing, i, j)) for i in range(3) for j in range(3)))
    theirs = sitk.GetArrayFromImage(
        sitk.ObjectnessMeasure(
            image, alpha=0.5, beta=0.5, gamma=float(norms.max()) / 2, scaleObjectnessMeasure=False, objectDimension=1
        )
    )
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(ours[inner], theirs[inner], atol=2e-3)
    assert theirs[inner].max() > 0.4


def hessian_entry(smooth: np.ndarray, spacing: tuple[float, ...], i: int, j: int) -> np.ndarray:
    if i == j:
        kernel = np.zeros((3, 3, 3))
        kernel[1, 1, 1] = -2
        for end in (0, 2):
            place = [1, 1, 1]
            place[i] = end
            kernel[tuple(place)] = 1
        from scipy import ndimage

        return ndimage.correlate(smooth, kernel, mode="nearest") / spacing[i] ** 2
    return np.gradient(np.gradient(smooth, spacing[i], axis=i), spacing[j], axis=j)


def test_vesselness_does_not_depend_on_the_units_of_intensity_nor_on_a_constant():
    volume = shapes_volume()
    torch.testing.assert_close(vesselness(1000 * volume), vesselness(volume), atol=1e-3, rtol=0)
    assert vesselness(torch.full((8, 8, 8), 40.0)).eq(0).all()


def test_cells_with_vessels_weigh_most():
    volume = shapes_volume()[None]
    weights = vesselness_weights(volume, 8, strength=1.0)
    assert weights.shape == (1, 5, 5, 5)
    along_tube = weights[0, :, 1, 1]
    others = weights.sum() - along_tube.sum()
    assert along_tube.min() > 5 * others / 120
