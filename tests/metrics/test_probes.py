"""Probes of frozen features: scikit-learn's numbers, and no patient on both sides."""

from functools import partial

import numpy as np
import pytest

from wavespark.errors import ShapeError
from wavespark.metrics.probes import knn, linear, probe, standardised

sklearn = pytest.importorskip("sklearn", reason="the oracle is scikit-learn (extra eval)")


def blobs(classes, rows=60, features=6, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, features)) * 1.5
    truth = np.arange(rows) % classes
    return centres[truth] + spread * rng.standard_normal((rows, features)), truth


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("strength", [0.05, 1.0, 20.0])
def test_the_linear_probe_is_scikit_learns_logistic_regression(classes, strength):
    from sklearn.linear_model import LogisticRegression

    x, y = blobs(classes)
    new, _ = blobs(classes, rows=25, seed=1)
    theirs = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(x, y).predict_proba(new)
    assert np.abs(linear(x, y, new, classes, strength=strength) - theirs).max() < 1e-4


@pytest.mark.parametrize("k", [1, 5, 9])
def test_nearest_neighbours_are_scikit_learns(k):
    from sklearn.neighbors import KNeighborsClassifier

    x, y = blobs(3)
    new, _ = blobs(3, rows=40, seed=2)
    theirs = KNeighborsClassifier(k).fit(x, y).predict_proba(new)
    assert np.array_equal(knn(x, y, new, 3, k=k), theirs)


def test_standardised_features_are_scikit_learns_and_a_constant_one_is_zero():
    from sklearn.preprocessing import StandardScaler

    x, _ = blobs(2, features=4)
    new, _ = blobs(2, features=4, seed=3)
    x[:, 2] = 7.25
    scaler = StandardScaler().fit(x)
    ours = standardised(x, new)
    assert np.abs(ours[0] - scaler.transform(x)).max() < 1e-12
    assert np.abs(np.delete(ours[1] - scaler.transform(new), 2, axis=1)).max() < 1e-12
    assert not ours[1][:, 2].any()


@pytest.mark.parametrize("fit", [knn, linear])
def test_a_probe_finds_what_is_there(fit):
    x, y = blobs(3, rows=90, spread=0.4)
    found = probe(x, [f"class {c}" for c in y], [f"patient {i}" for i in range(90)], fit)
    assert found.accuracy.value > 0.95 and found.accuracy.low > 0.85
    assert [found.classes[c] for c in found.chosen[:3]] == ["class 0", "class 1", "class 2"]
    assert np.allclose(found.probabilities.sum(1), 1)


def test_without_signal_the_interval_holds_chance():
    x = np.random.default_rng(4).standard_normal((120, 8))
    found = probe(x, list(np.arange(120) % 2), list(range(120)))
    assert found.accuracy.low < 0.5 < found.accuracy.high


def test_a_patient_is_never_predicted_by_a_model_that_saw_him():
    """Features that tell patients apart and nothing else: twins in the training rows would give the label away."""
    rng = np.random.default_rng(5)
    patients = np.repeat(np.arange(40), 4)
    x = rng.standard_normal((40, 16))[patients] + 0.01 * rng.standard_normal((160, 16))
    labels = list(rng.integers(0, 2, 40)[patients])
    assert probe(x, labels, list(patients), partial(knn, k=1)).accuracy.value < 0.7
    assert probe(x, labels, list(range(160)), partial(knn, k=1)).accuracy.value > 0.95


def test_what_cannot_be_probed_is_refused():
    x, _ = blobs(2, rows=6)
    with pytest.raises(ShapeError, match="1 class"):
        probe(x, ["a"] * 6, list(range(6)))
    with pytest.raises(ShapeError, match="1 patient"):
        probe(x, list("ababab"), ["p"] * 6)
    with pytest.raises(ShapeError, match="as many labels"):
        probe(x, ["a"] * 5, list(range(6)))
