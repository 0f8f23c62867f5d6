"""Sliding windows and losses against MONAI and against themselves spelled out."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wavespark.downstream.detect import heat_map, peaks
from wavespark.downstream.losses import dice_and_cross_entropy, focal_heat, known_binary
from wavespark.downstream.sliding import sliding_window, window_starts
from wavespark.errors import ShapeError


def monai(module: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(module)


def blur(crops: torch.Tensor) -> torch.Tensor:
    """Something whose result depends on where the window lies."""
    return F.avg_pool3d(crops, 5, 1, 2).repeat(1, 2, 1, 1, 1) * torch.linspace(0.5, 1.5, crops.shape[-1])


@pytest.mark.parametrize(
    ("size", "window", "overlap"),
    [((20, 33, 27), (16, 16, 16), 0.5), ((16, 40, 18), (16, 12, 18), 0.25), ((24, 24, 24), (8, 8, 8), 0.0)],
)
def test_sliding_windows_give_the_numbers_of_monai(size: Any, window: Any, overlap: float) -> None:
    inferers = monai("monai.inferers")
    voxels = torch.randn(1, *size, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = inferers.sliding_window_inference(voxels[None], window, 3, blur, overlap=overlap, mode="gaussian")[0]
    assert (sliding_window(voxels, window, blur, overlap=overlap) - wanted).abs().max() < 1e-5


def test_what_needs_no_neighbours_comes_back_as_it_was_whatever_the_size() -> None:
    for size in ((5, 30, 16), (16, 16, 16), (7, 7, 7)):
        voxels = torch.randn(2, *size)
        assert (sliding_window(voxels, (16, 16, 16), lambda x: 2 * x, overlap=0.5) - 2 * voxels).abs().max() < 1e-5


def test_windows_cover_every_voxel_and_stay_inside() -> None:
    for overlap in (0.0, 0.3, 0.9):
        covered = np.zeros((19, 8, 31), bool)
        for start in window_starts((19, 8, 31), (8, 8, 8), overlap):
            assert all(0 <= s <= n - 8 for s, n in zip(start, covered.shape, strict=True))
            covered[tuple(slice(s, s + 8) for s in start)] = True
        assert covered.all()


def test_windows_without_foreground_are_never_computed() -> None:
    seen: list[int] = []
    needed = np.zeros((32, 8, 8), bool)
    needed[20:22] = True

    def count(crops: torch.Tensor) -> torch.Tensor:
        seen.append(len(crops))
        return crops

    found = sliding_window(torch.ones(1, 32, 8, 8), (8, 8, 8), count, overlap=0, needed_DHW=needed)
    assert sum(seen) == 1
    assert found[0, 16:24].eq(1).all()
    assert found[0, :16].eq(0).all()
    with pytest.raises(ShapeError, match="no foreground"):
        sliding_window(torch.ones(1, 8, 8, 8), (8, 8, 8), count, needed_DHW=np.zeros((8, 8, 8), bool))


def test_dice_and_cross_entropy_are_those_of_monai() -> None:
    losses = monai("monai.losses")
    g = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(2, 3, 6, 5, 4, generator=g), torch.randint(0, 3, (2, 6, 5, 4), generator=g)
    dice = losses.DiceLoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=True, smooth_nr=1, smooth_dr=1
    )
    wanted = dice(logits, labels[:, None]) + F.cross_entropy(logits, labels)
    assert float(dice_and_cross_entropy(logits, labels)) == pytest.approx(float(wanted), abs=1e-6)


def test_unknown_labels_do_not_count() -> None:
    logits = torch.tensor([[0.3, -2.0], [1.0, 5.0]], requires_grad=True)
    targets = torch.tensor([[1.0, float("nan")], [0.0, float("nan")]])
    loss = known_binary(logits, targets)
    wanted = F.binary_cross_entropy_with_logits(logits[:, 0], targets[:, 0])
    assert loss.item() == pytest.approx(wanted.item())
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[:, 1].eq(0).all()


def test_the_focal_loss_is_least_where_the_heat_is_right() -> None:
    heat = torch.from_numpy(heat_map(np.array([[4, 5, 6.0]]), (12, 12, 12), (1, 1, 1), 1.5))[None]
    assert float(heat.max()) == 1
    assert int((heat >= 1).sum()) == 1
    right = torch.where(heat >= 1, 8.0, -8.0)
    wrong = torch.where(torch.roll(heat, 4, 1) >= 1, 8.0, -8.0)
    assert focal_heat(right, heat) < 0.01 * focal_heat(wrong, heat)
    assert torch.isfinite(focal_heat(right.half(), heat))


def test_peaks_are_the_points_that_made_the_heat() -> None:
    points = np.array([[5, 5, 5], [5, 20, 9], [14, 6, 16.0]])
    heat = heat_map(points, (20, 26, 20), (1.0, 1.0, 1.5), 2.0) * np.linspace(0.5, 1, 20)[:, None, None].astype(
        np.float32
    )
    found = peaks(heat, (1.0, 1.0, 1.5), 6.0)
    assert {tuple(p) for p in np.rint(found.index_M3).astype(int)} == {tuple(p) for p in points.astype(int)} or all(
        np.linalg.norm(found.index_M3 - p, axis=1).min() <= 1.5 for p in points
    )
    assert (np.diff(found.scores_M) <= 0).all()
    close = heat_map(np.array([[5, 5, 5], [5, 8, 5.0]]), (12, 12, 12), (1, 1, 1), 0.8)
    assert len(peaks(close, (1, 1, 1), 6.0).scores_M) == 1
