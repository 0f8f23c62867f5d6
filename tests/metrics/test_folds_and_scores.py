"""Folds by patient, and figures over weighted draws: equal to scikit-learn's on the rows that the weights stand for."""

import math

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, mean_absolute_error, r2_score, roc_auc_score

from wavespark.errors import ShapeError
from wavespark.metrics.folds import patient_folds
from wavespark.metrics.scores import (
    auc_figure,
    balanced_accuracy_figure,
    class_figures,
    gain_figure,
    interval_of,
    mae_figure,
    mean_figure,
    patient_weights,
    r2_figure,
)


def test_all_rows_of_a_patient_are_in_one_fold_and_each_repeat_deals_again():
    patients = [f"p{k // 3}" for k in range(90)]
    folds = patient_folds(patients, [k % 2 for k in range(90)], repeats=4)
    assert folds.shape == (4, 90)
    for repeat in folds:
        assert all(len({f for f, p in zip(repeat, patients, strict=True) if p == name}) == 1 for name in set(patients))
        assert set(repeat) == set(range(6))
    assert len({tuple(r) for r in folds}) == 4


def test_classes_are_spread_evenly_over_the_folds():
    labels = ["a"] * 36 + ["b"] * 12
    for repeat in patient_folds(range(48), labels, repeats=5, seed=3):
        for fold in range(6):
            assert [int((repeat[:36] == fold).sum()), int((repeat[36:] == fold).sum())] == [6, 2]


def test_numbers_are_spread_evenly_over_the_folds():
    ages = np.random.default_rng(0).permutation(np.arange(48.0))
    for repeat in patient_folds(range(48), ages, numeric=True, repeats=5):
        means = [ages[repeat == fold].mean() for fold in range(6)]
        assert all((repeat == fold).sum() == 8 for fold in range(6))
        assert max(means) - min(means) < 5.1


@pytest.mark.parametrize(("patients", "folds"), [(2, 2), (3, 2), (5, 2), (8, 4), (11, 5), (12, 6), (40, 6)])
def test_a_fold_holds_two_patients_where_there_are_four(patients, folds):
    dealt = patient_folds(range(patients), [k % 2 for k in range(patients)])[0]
    assert dealt.max() + 1 == folds
    assert patients < 4 or np.bincount(dealt).min() >= 2


def test_folds_need_two_patients_and_a_target_a_row():
    with pytest.raises(ShapeError, match="1 patient"):
        patient_folds(["p", "p"], [0, 1])
    with pytest.raises(ShapeError, match="one target a row"):
        patient_folds(["p", "q"], [0])


def drawn(weights):
    """Rows as often as their weight says."""
    return np.repeat(np.arange(len(weights)), weights.astype(int))


@pytest.fixture
def weights():
    return patient_weights([f"p{k // 2}" for k in range(40)], draws=30, seed=1)


def test_a_draw_takes_whole_patients_and_as_many_as_there_are(weights):
    assert (weights[0] == 1).all()
    assert (weights[:, ::2] == weights[:, 1::2]).all()
    assert (weights.sum(1) == 40).all()
    assert len({tuple(w) for w in weights}) > 25


def test_figures_are_scikit_learns_on_the_drawn_rows(weights):
    rng = np.random.default_rng(2)
    truth, folds = np.arange(40) % 3, np.zeros((1, 40), int)
    chance = rng.dirichlet(np.ones(3), 40).round(1)[None]  # with ties
    numbers, predicted = rng.standard_normal(40), rng.standard_normal((1, 40))
    accuracy = balanced_accuracy_figure(chance.argmax(2), truth)(weights)
    auc = auc_figure(chance, truth, folds)(weights)
    mae, r2 = mae_figure(predicted, numbers)(weights), r2_figure(predicted, numbers)(weights)
    for k, weight in enumerate(weights):
        rows = drawn(weight)
        assert accuracy[k] == pytest.approx(balanced_accuracy_score(truth[rows], chance[0].argmax(1)[rows]))
        theirs = np.mean([roc_auc_score(truth[rows] == c, chance[0][rows, c]) for c in range(3)])
        assert auc[k] == pytest.approx(theirs)
        assert mae[k] == pytest.approx(mean_absolute_error(numbers[rows], predicted[0, rows]))
        assert r2[k] == pytest.approx(r2_score(numbers[rows], predicted[0, rows]))


def test_figures_of_repeats_are_the_mean_over_the_repeats(weights):
    rng = np.random.default_rng(3)
    truth, numbers = np.arange(40) % 2, rng.standard_normal(40)
    chance, predicted = rng.dirichlet(np.ones(2), (5, 40)), rng.standard_normal((5, 40))
    for figure in (
        lambda rows: balanced_accuracy_figure(chance[rows].argmax(2), truth),
        lambda rows: mae_figure(predicted[rows], numbers),
        lambda rows: r2_figure(predicted[rows], numbers),
    ):
        each = mean_figure([figure(slice(k, k + 1)) for k in range(5)])
        assert np.allclose(figure(slice(0, 5))(weights), each(weights))


def test_only_rows_of_one_fold_are_compared_so_that_a_constant_has_an_auc_of_one_half():
    """Predicting the share of the training rows ranks every fold with few positives above one with many: pooled, it is below 0.5."""
    truth = np.arange(20) % 2
    truth[:5] = 1
    folds = (np.arange(20) // 5)[None]
    share = np.array([truth[folds[0] != f].mean() for f in folds[0]])
    chance = np.stack([1 - share, share], 1)[None]
    one = np.ones((1, 20))
    assert roc_auc_score(truth, share) < 0.4
    assert auc_figure(chance, truth, folds)(one)[0] == 0.5


def test_an_auc_without_a_pair_is_not_a_number_and_has_no_interval():
    figures = class_figures(np.full((1, 4, 2), 0.5), np.array([0, 1, 0, 1]), np.array([[0, 1, 2, 3]]))
    weights = patient_weights(range(4), draws=20)
    assert math.isnan(figures["auc"](weights)[0])
    assert math.isnan(interval_of(figures["auc"], weights, 4).low)


def test_an_interval_covers_what_it_should():
    rng = np.random.default_rng(6)
    covered = 0
    for k in range(60):
        error = rng.exponential(1.0, 50)
        interval = interval_of(mae_figure(error[None], np.zeros(50)), patient_weights(range(50), draws=200, seed=k), 50)
        covered += interval.low < 1 < interval.high
    assert 50 <= covered <= 60


def test_a_gain_is_positive_where_the_first_is_better_for_errors_too():
    truth = np.zeros(10)
    small, large = mae_figure(np.full((1, 10), 1.0), truth), mae_figure(np.full((1, 10), 3.0), truth)
    weights = patient_weights(range(10), draws=10)
    assert (gain_figure("mae", small, large)(weights) == 2).all()
    high, low = (lambda w: np.full(len(w), 0.9)), (lambda w: np.full(len(w), 0.6))
    assert np.allclose(gain_figure("auc", high, low)(weights), 0.3)


def test_one_patient_has_no_interval():
    interval = interval_of(mae_figure(np.ones((1, 3)), np.zeros(3)), patient_weights(["p"] * 3, draws=5), 1)
    assert interval.value == 1 and math.isnan(interval.low)
