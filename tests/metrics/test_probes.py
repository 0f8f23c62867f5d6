"""Probes of frozen features: scikit-learn's numbers, the penalty chosen without the test rows, no patient on both sides."""

import warnings
from functools import partial

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from wavespark.errors import ShapeError
from wavespark.metrics import probes
from wavespark.metrics.folds import patient_folds
from wavespark.metrics.probes import (
    classifiers,
    knn,
    linear,
    logistic,
    majority,
    mean_target,
    out_of_fold,
    probe,
    regressors,
    ridge,
    standardised,
)


def blobs(classes, rows=60, features=6, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, features)) * 1.5
    truth = np.arange(rows) % classes
    return centres[truth] + spread * rng.standard_normal((rows, features)), truth


def slope(rows=40, features=5, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, features))
    return x, x @ np.arange(1.0, features + 1) + noise * rng.standard_normal(rows)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("features", [6, 90])
def test_rows_in_the_span_of_the_training_rows_give_the_predictions_of_all_features(classes, features):
    x, y = blobs(classes, rows=30, features=features)
    new, _ = blobs(classes, rows=25, features=features, seed=1)
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=0.1, tol=1e-9, max_iter=10_000).fit(scaler.transform(x), y)
    theirs = model.predict_proba(scaler.transform(new))
    ours = linear(x, y, range(30), new, num_classes=classes, strength=0.1)
    assert np.abs(ours - theirs).max() < 1e-3


def test_standardised_features_are_scikit_learns_and_a_constant_one_is_zero():
    x, _ = blobs(2, features=4)
    new, _ = blobs(2, features=4, seed=3)
    x[:, 2] = 7.25
    scaler = StandardScaler().fit(x)
    ours = standardised(x, new)
    assert np.abs(ours[0] - scaler.transform(x)).max() < 1e-12
    assert np.abs(np.delete(ours[1] - scaler.transform(new), 2, axis=1)).max() < 1e-12
    assert not ours[1][:, 2].any()


@pytest.mark.parametrize("features", [5, 70])
def test_ridge_takes_the_penalty_with_the_smallest_leave_one_out_error(features):
    x, y = slope(rows=30, features=features, noise=3.0)
    new, _ = slope(rows=9, features=features, seed=1)
    scaler = StandardScaler().fit(x)
    z = scaler.transform(x)

    def error(strength):
        rows = np.arange(30)
        return sum(
            (Ridge(alpha=strength * features).fit(z[rows != k], y[rows != k]).predict(z[k : k + 1])[0] - y[k]) ** 2
            for k in rows
        )

    best = min(probes.STRENGTHS, key=error)
    theirs = Ridge(alpha=best * features).fit(z, y).predict(scaler.transform(new))
    assert np.abs(ridge(x, y, range(30), new) - theirs).max() < 1e-6 * np.abs(y).max()


def test_ridge_leaves_out_patients_when_they_have_several_rows():
    """Twins: leaving out one row keeps its twin, so that the smallest penalty would look best on features that only identify."""
    rng = np.random.default_rng(2)
    patients = np.repeat(np.arange(60), 3)
    x = rng.standard_normal((60, 100))[patients] + 1e-3 * rng.standard_normal((180, 100))
    y = rng.standard_normal(60)[patients]
    new = rng.standard_normal((50, 100))
    identified = ridge(x, y, range(180), new)
    honest = ridge(x, y, patients.tolist(), new)
    assert honest.std() < 0.5 * identified.std()


def test_the_penalty_of_logistic_regression_is_chosen_by_data():
    """Noise wants the strongest penalty, clear classes the weakest one that helps."""
    rng = np.random.default_rng(3)
    noise, y = rng.standard_normal((40, 30)), np.arange(40) % 2
    shy = logistic(noise, y, range(40), rng.standard_normal((20, 30)), num_classes=2)
    x, y = blobs(2, rows=40, spread=0.2)
    sure = logistic(x, y, range(40), x, num_classes=2)
    assert np.abs(shy - 0.5).max() < 0.25
    assert sure[np.arange(40), y].min() > 0.95


def test_classes_count_the_same_however_many_rows_they_have():
    rng = np.random.default_rng(4)
    y = np.r_[np.zeros(90, int), np.ones(10, int)]
    x = rng.standard_normal((100, 1)) + y[:, None]
    chance = logistic(x, y, range(100), np.array([[0.5]]), num_classes=2)
    assert 0.3 < chance[0, 1] < 0.7


@pytest.mark.parametrize("kind", ["knn", "linear", "logistic"])
def test_a_probe_finds_what_is_there(kind):
    x, y = blobs(3, rows=60, spread=0.4)
    folds = patient_folds(range(60), y)
    chance = out_of_fold(x, y, range(60), folds, classifiers(60, 3)[kind])
    assert chance.shape == (1, 60, 3)
    assert (chance[0].argmax(1) == y).mean() > 0.95
    assert np.allclose(chance.sum(2), 1)


@pytest.mark.parametrize("kind", ["knn", "ridge"])
def test_a_regression_finds_what_is_there(kind):
    x, y = slope(rows=80, features=2)
    predicted = out_of_fold(x, y, range(80), patient_folds(range(80), y, numeric=True), regressors(80)[kind])[0]
    assert np.corrcoef(predicted, y)[0, 1] > 0.9


def test_without_signal_ridge_is_hardly_worse_than_the_mean():
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((48, 300)), rng.standard_normal(48)
    folds = patient_folds(range(48), y, numeric=True, repeats=3)
    ours, mean = (np.abs(out_of_fold(x, y, range(48), folds, fit) - y).mean() for fit in (ridge, mean_target))
    assert ours < 1.1 * mean


def test_a_patient_is_never_predicted_by_a_model_that_saw_him():
    """Features that tell patients apart and nothing else: twins in the training rows would give the label away."""
    rng = np.random.default_rng(5)
    patients = np.repeat(np.arange(40), 4)
    x = rng.standard_normal((40, 16))[patients] + 0.01 * rng.standard_normal((160, 16))
    labels = rng.integers(0, 2, 40)[patients]
    nearest = partial(knn, num_classes=2, k=1)

    def accuracy(groups):
        chance = out_of_fold(x, labels, groups, patient_folds(groups, labels), nearest)
        return (chance[0].argmax(1) == labels).mean()

    assert accuracy(patients.tolist()) < 0.7
    assert accuracy(list(range(160))) > 0.95


def test_constant_predictors_know_the_training_rows_only():
    y = np.array([2, 2, 0])
    assert majority(np.zeros((3, 1)), y, range(3), np.zeros((2, 1)), num_classes=3).tolist() == [[0, 0, 1]] * 2
    assert mean_target(np.zeros((3, 1)), np.array([1.0, 2, 6]), range(3), np.zeros((2, 1))).tolist() == [3.0, 3.0]


def test_a_class_that_no_training_row_has_gets_no_chance():
    x, y = blobs(2, rows=20)
    assert not logistic(x, y, range(20), x, num_classes=3)[:, 2].any()
    assert knn(x, np.zeros(20, int), range(20), x, num_classes=3)[0].tolist() == [1, 0, 0]
    assert linear(x, np.ones(20, int), range(20), x, num_classes=3)[0].tolist() == [0, 1, 0]


def test_the_quick_probe_names_its_classes_and_warns_of_nothing():
    x, y = blobs(3, rows=90, spread=0.4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = probe(x, [f"class {c}" for c in y], [f"patient {i}" for i in range(90)], "linear")
    assert result.accuracy.low > 0.85
    assert [result.classes[c] for c in result.predicted[:3]] == ["class 0", "class 1", "class 2"]


def test_without_signal_the_interval_holds_chance():
    x = np.random.default_rng(4).standard_normal((120, 8))
    result = probe(x, list(np.arange(120) % 2), list(range(120)))
    assert result.accuracy.low < 0.5 < result.accuracy.high


def test_what_cannot_be_probed_is_refused():
    x, _ = blobs(2, rows=6)
    with pytest.raises(ShapeError, match="1 class"):
        probe(x, ["a"] * 6, list(range(6)))
    with pytest.raises(ShapeError, match="1 patient"):
        probe(x, list("ababab"), ["p"] * 6)
    with pytest.raises(ShapeError, match="as many labels"):
        probe(x, ["a"] * 5, list(range(6)))
    x[3, 1] = np.nan
    with pytest.raises(ShapeError, match="1 of 6 rows hold a feature that is not finite"):
        probe(x, list("ababab"), list(range(6)))
