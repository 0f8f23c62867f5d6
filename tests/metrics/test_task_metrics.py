"""Dice, surface distances, AUC, the RSNA score and FROC, against MONAI, scikit-learn and brute force."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from wavespark.errors import ShapeError
from wavespark.metrics.classification import auc, aucs, balanced_accuracy
from wavespark.metrics.detection import Scan, froc, match, sensitivity_at
from wavespark.metrics.intervals import bootstrap, mean_interval, paired_interval
from wavespark.metrics.rsna import rsna_score
from wavespark.metrics.segmentation import dice, hausdorff, surface_dice, surface_distances

SPACING = (1.0, 0.7, 2.5)


def blob(seed: int, shape: tuple[int, int, int] = (17, 22, 13)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.standard_normal(shape), 2) > 0.03


def monai_metrics() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("monai.metrics")


@pytest.mark.parametrize("seed", range(4))
def test_dice_and_surface_distances_are_those_of_monai(seed: int) -> None:
    monai, torch = monai_metrics(), pytest.importorskip("torch")
    a, b = blob(seed), blob(seed + 10)
    x, y = (torch.from_numpy(np.stack([~m, m])[None].astype(np.float32)) for m in (a, b))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert dice(a, b) == pytest.approx(float(monai.compute_dice(x, y, include_background=False)), abs=1e-6)
        distance = monai.compute_hausdorff_distance(x, y, percentile=95, spacing=SPACING)
        assert hausdorff(a, b, SPACING) == pytest.approx(float(distance), rel=1e-5)
        share = monai.compute_surface_dice(x, y, [1.2], spacing=SPACING)
        assert surface_dice(a, b, SPACING, 1.2) == pytest.approx(float(share), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_surface_distances_are_the_smallest_over_all_pairs_of_surface_voxels(seed: int) -> None:
    a, b = blob(seed, (9, 11, 8)), blob(seed + 5, (9, 11, 8))

    def surface(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, 1)
        inner = [np.roll(padded, s, axis) for axis in range(3) for s in (1, -1)]
        return np.argwhere((padded & ~np.all(inner, axis=0))[1:-1, 1:-1, 1:-1]) * SPACING

    pairs = cdist(surface(a), surface(b))
    there, back = surface_distances(a, b, SPACING)
    np.testing.assert_allclose(np.sort(there), np.sort(pairs.min(1)), rtol=1e-6)
    np.testing.assert_allclose(np.sort(back), np.sort(pairs.min(0)), rtol=1e-6)


def test_an_empty_segmentation_is_told_from_a_perfect_one() -> None:
    empty, full = np.zeros((4, 4, 4), bool), blob(0, (4, 4, 4)) | True
    assert dice(empty, full) == 0
    assert math.isinf(hausdorff(empty, full, SPACING))
    assert surface_dice(empty, full, SPACING) == 0
    assert all(
        math.isnan(f)
        for f in (dice(empty, empty), hausdorff(empty, empty, SPACING), surface_dice(empty, empty, SPACING))
    )
    assert (dice(full, full), hausdorff(full, full, SPACING), surface_dice(full, full, SPACING)) == (1, 0, 1)
    with pytest.raises(ShapeError, match=r"\(4, 4, 4\) and \(4, 4, 5\)"):
        dice(empty, np.zeros((4, 4, 5), bool))


@pytest.mark.parametrize("seed", range(5))
def test_auc_and_accuracy_are_those_of_scikit_learn_with_ties(seed: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    scores, positive = rng.integers(0, 6, 40) / 5, rng.integers(0, 2, 40)
    assert auc(scores, positive) == pytest.approx(sklearn.roc_auc_score(positive, scores), abs=1e-12)
    table, truth = rng.random((30, 3)), rng.integers(0, 2, (30, 3))
    np.testing.assert_allclose(
        aucs(table, truth), [sklearn.roc_auc_score(t, s) for s, t in zip(table.T, truth.T, strict=True)]
    )
    chosen, classes = rng.integers(0, 3, 50), rng.integers(0, 3, 50)
    assert balanced_accuracy(chosen, classes) == pytest.approx(sklearn.balanced_accuracy_score(classes, chosen))


def test_an_auc_without_both_classes_is_not_a_number_and_bad_scores_are_refused() -> None:
    assert math.isnan(auc(np.array([0.1, 0.2]), np.array([1, 1])))
    with pytest.raises(ShapeError, match="1 of 2 are not"):
        auc(np.array([0.1, np.nan]), np.array([0, 1]))
    with pytest.raises(ShapeError):
        auc(np.zeros(3), np.zeros(2))


def test_the_rsna_score_is_half_the_present_auc_and_half_the_mean_of_the_locations() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, truth = rng.random((60, 14)), rng.integers(0, 2, (60, 14))
    each = [sklearn.roc_auc_score(truth[:, i], scores[:, i]) for i in range(14)]
    assert rsna_score(scores, truth) == pytest.approx(0.5 * (each[13] + np.mean(each[:13])), abs=1e-12)
    weights = [1] * 13 + [13]
    assert rsna_score(scores, truth) == pytest.approx(np.average(each, weights=weights), abs=1e-12)
    truth[:, 3] = 0  # a location nobody has: left out, with its weight
    rest = [i for i in range(14) if i != 3]
    assert rsna_score(scores, truth) == pytest.approx(
        np.average([each[i] for i in rest], weights=[weights[i] for i in rest])
    )
    with pytest.raises(ShapeError):
        rsna_score(scores[:, :13], truth[:, :13])


def _random_scan(rng: np.random.Generator) -> Scan:
    m, t = int(rng.integers(0, 8)), int(rng.integers(0, 4))
    return Scan(
        found_M3=rng.uniform(0, 30, (m, 3)),
        scores_M=rng.integers(0, 10, m) / 10,
        lesions_T3=rng.uniform(0, 30, (t, 3)),
        reach_T=rng.uniform(3, 12, t),
    )


def _brute_force(scans: list[Scan], threshold: float) -> tuple[float, float]:
    """False positives a scan and sensitivity when points below the threshold are thrown away first."""
    false = found = total = 0
    for scan in scans:
        hit = set()
        for point, score in zip(scan.found_M3, scan.scores_M, strict=True):
            if score < threshold:
                continue
            near = [
                (math.dist(point, c), i)
                for i, c in enumerate(scan.lesions_T3)
                if math.dist(point, c) <= scan.reach_T[i]
            ]
            hit |= {min(near)[1]} if near else set()
            false += not near
        found, total = found + len(hit), total + len(scan.reach_T)
    return false / len(scans), found / total


@pytest.mark.parametrize("seed", range(4))
def test_froc_is_what_counting_at_every_threshold_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scans = [_random_scan(rng) for _ in range(12)]
    hits = [match(s) for s in scans]
    curve = {(round(r, 9), round(s, 9)) for r, s in zip(*froc(hits), strict=True)}
    counted = [_brute_force(scans, k / 10) for k in range(11)]
    assert {(round(r, 9), round(s, 9)) for r, s in counted} | {(0.0, 0.0)} == curve
    for limit in (0.0, 0.5, 1.0, 100.0):
        assert sensitivity_at(hits, limit) == pytest.approx(max([s for r, s in counted if r <= limit], default=0))


def test_a_second_hit_of_a_lesion_is_no_false_positive_and_no_lesion_has_no_sensitivity() -> None:
    scan = Scan(
        found_M3=np.array([[0, 0, 0], [0, 0, 1], [9, 9, 9.0]]),
        scores_M=np.array([0.3, 0.8, 0.5]),
        lesions_T3=np.zeros((1, 3)),
        reach_T=np.ones(1) * 2,
    )
    hits = match(scan)
    assert hits.lesion_scores.tolist() == [0.8]
    assert hits.false_scores.tolist() == [0.5]
    none = match(Scan(found_M3=np.ones((1, 3)), scores_M=np.ones(1), lesions_T3=np.zeros((0, 3)), reach_T=np.zeros(0)))
    assert math.isnan(sensitivity_at([none], 0.5))
    with pytest.raises(ShapeError, match="finite"):
        Scan(found_M3=np.ones((1, 3)), scores_M=np.array([np.nan]), lesions_T3=np.zeros((0, 3)), reach_T=np.zeros(0))


def test_an_interval_of_independent_rows_is_that_of_scipy() -> None:
    from scipy.stats import bootstrap as theirs

    values = np.random.default_rng(1).normal(3, 1, 60)
    found = mean_interval(values, range(60))
    wanted = theirs((values,), np.mean, n_resamples=4000, method="percentile", random_state=0).confidence_interval
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.04)


def test_scans_of_one_patient_are_not_independent_evidence() -> None:
    rng = np.random.default_rng(2)
    of_patient = rng.normal(0, 1, 8)
    values, patients = np.repeat(of_patient, 10), np.repeat(np.arange(8), 10).tolist()
    whole, naive = mean_interval(values, patients), mean_interval(values, range(80))
    assert whole.high - whole.low > 2 * (naive.high - naive.low)
    once = mean_interval(of_patient, range(8))
    assert (whole.low, whole.high) == pytest.approx((once.low, once.high), abs=1e-9)


def test_a_95_percent_interval_covers_the_truth_about_that_often() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for k in range(200):
        values = rng.normal(1, 1, 40)
        found = bootstrap(lambda rows, v=values: float(v[rows].mean()), range(40), draws=300, seed=k)
        hits += found.low <= 1 <= found.high
    assert 0.89 <= hits / 200 <= 0.985


def test_pairing_removes_what_both_share() -> None:
    rng = np.random.default_rng(4)
    shared = rng.normal(0, 5, 30)
    ours, theirs = shared + 0.5 + rng.normal(0, 0.1, 30), shared
    paired = paired_interval(ours, theirs, range(30))
    assert paired.low > 0.4
    assert mean_interval(ours, range(30)).low < mean_interval(theirs, range(30)).high
    with pytest.raises(ShapeError, match="same rows"):
        paired_interval(ours, theirs[:-1], range(30))


def test_what_cannot_be_computed_has_no_interval() -> None:
    assert str(mean_interval([math.nan], ["a"])) == "not computable"
    assert "no interval: 1 patient" in str(mean_interval([1.0, 2.0], ["a", "a"]))
    assert mean_interval([1.0], ["a"]).to_json() == {"value": 1.0, "low": None, "high": None, "patients": 1}
    labels = np.array([0] * 19 + [1])
    mostly_none = bootstrap(
        lambda rows: auc(np.arange(20.0)[rows], labels[rows]) if labels[rows].sum() > 3 else math.nan, range(20)
    )
    assert math.isnan(mostly_none.low)
