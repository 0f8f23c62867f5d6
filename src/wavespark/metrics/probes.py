"""Probes of frozen features: nearest neighbours, logistic regression and ridge of scikit-learn,
fitted without the patients they predict.

A probe standardises the features and chooses its regularisation on the training rows only.
scikit-learn is imported when a probe is first fitted, because that takes seconds.
Legend: R repeats, N training rows, M new rows, C features, K classes.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from wavespark.errors import ShapeError
from wavespark.metrics.classification import balanced_accuracy
from wavespark.metrics.folds import patient_folds
from wavespark.metrics.intervals import Interval, bootstrap

Fit = Callable[[np.ndarray, np.ndarray, Sequence[Hashable], np.ndarray], np.ndarray]
"""(training features [N, C], targets [N], patient of each training row, new features [M, C]) ->
predictions, first axis M."""

STRENGTHS = tuple(10.0**k for k in range(-3, 4))
"""Ridge penalties to choose from, as multiples of the number of features: the squared length of a
standardised row."""
LOGISTIC_STRENGTHS = tuple(10.0**k for k in range(-2, 3))
"""The same for logistic regression; fewer, because each is an iterative fit."""
_INNER_FOLDS = 3
_MAX_ITERATIONS = 1000
_SMALLEST_CHANCE = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Probe:
    """Predictions of one probe, and its balanced accuracy."""

    classes: tuple[Hashable, ...]
    probabilities: np.ndarray
    """float64 [N, K]: each row as predicted by a model that saw no row of its patient."""
    accuracy: Interval
    """Balanced accuracy; 1 / K is chance."""

    @property
    def predicted(self) -> np.ndarray:
        """int64 [N]: the likeliest class of each row, as an index into `classes`."""
        return self.probabilities.argmax(1)


def standardised(train_NC: np.ndarray, new_MC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Subtract the mean of the training rows and divide by their standard deviation; a constant
    feature becomes 0."""
    mean, deviation = train_NC.mean(0), train_NC.std(0)
    scale = np.where(deviation > 1e-12 * np.abs(mean).clip(min=1e-300), deviation, np.inf)
    return (train_NC - mean) / scale, (new_MC - mean) / scale


def knn(
    train_NC: np.ndarray,
    classes_N: np.ndarray,
    patients: Sequence[Hashable],
    new_MC: np.ndarray,
    *,
    num_classes: int,
    k: int = 5,
) -> np.ndarray:
    """Predict the share of each class among the k nearest training rows (Euclidean, standardised
    features).

    Args:
        train_NC, new_MC: features.
        classes_N: class numbers from 0.
        patients: not used; part of the signature of every probe.
        num_classes: K.
        k: neighbours; all rows if there are fewer.

    Returns:
        float64 [M, K].
    """
    from sklearn.neighbors import KNeighborsClassifier

    train, new = standardised(train_NC, new_MC)
    model = KNeighborsClassifier(min(k, len(train))).fit(train, classes_N)
    return _all_classes(model.predict_proba(new), model.classes_, num_classes)


def knn_regression(
    train_NC: np.ndarray, targets_N: np.ndarray, patients: Sequence[Hashable], new_MC: np.ndarray, *, k: int = 5
) -> np.ndarray:
    """Predict the mean target of the k nearest training rows; float64 [M]. Arguments as `knn`."""
    from sklearn.neighbors import KNeighborsRegressor

    train, new = standardised(train_NC, new_MC)
    return np.asarray(KNeighborsRegressor(min(k, len(train))).fit(train, targets_N).predict(new), np.float64)


def linear(
    train_NC: np.ndarray,
    classes_N: np.ndarray,
    patients: Sequence[Hashable],
    new_MC: np.ndarray,
    *,
    num_classes: int,
    strength: float = 1.0,
) -> np.ndarray:
    """Predict by logistic regression with a fixed penalty (scikit-learn's C = `strength`) on
    standardised features.

    Args:
        train_NC, new_MC: features.
        classes_N: class numbers from 0.
        patients: not used; part of the signature of every probe.
        num_classes: K.
        strength: weight of the data against the penalty.

    Returns:
        float64 [M, K].
    """
    train, new = _rotated(*standardised(train_NC, new_MC))
    return _logistic(train, classes_N, new, num_classes, strength, balanced=False)


def logistic(
    train_NC: np.ndarray,
    classes_N: np.ndarray,
    patients: Sequence[Hashable],
    new_MC: np.ndarray,
    *,
    num_classes: int,
    strengths: Sequence[float] = LOGISTIC_STRENGTHS,
) -> np.ndarray:
    """Predict by class-balanced logistic regression; cross-validation by patient inside the
    training rows chooses the penalty.

    Args:
        train_NC, new_MC: features.
        classes_N: class numbers from 0.
        patients: patient of each training row.
        num_classes: K.
        strengths: penalties to choose from, as multiples of C; the smallest class-balanced log loss
            wins.

    Returns:
        float64 [M, K].
    """
    train, new = standardised(train_NC, new_MC)
    width = max(1, train.shape[1])
    train, new = _rotated(train, new)
    weights = [1 / (s * width) for s in strengths]
    chosen = weights[0] if len(weights) == 1 else _best_weight(train, classes_N, patients, num_classes, weights)
    return _logistic(train, classes_N, new, num_classes, chosen)


def _best_weight(
    train: np.ndarray, classes: np.ndarray, patients: Sequence[Hashable], num_classes: int, weights: Sequence[float]
) -> float:
    """The weight of the data with the smallest log loss, each class counting the same."""
    if len(set(patients)) < 4:
        return weights[len(weights) // 2]
    fold_N = patient_folds(patients, classes, folds=_INNER_FOLDS)[0]
    share = 1 / np.maximum(np.bincount(classes, minlength=num_classes), 1)[classes]
    losses = np.zeros(len(weights))
    for fold in range(fold_N.max() + 1):
        out = fold_N == fold
        for k, weight in enumerate(weights):
            chance = _logistic(train[~out], classes[~out], train[out], num_classes, weight)
            right = chance[np.arange(out.sum()), classes[out]].clip(min=_SMALLEST_CHANCE)
            losses[k] -= float((share[out] * np.log(right)).sum())
    return weights[int(losses.argmin())]


def _logistic(
    train: np.ndarray, classes: np.ndarray, new: np.ndarray, num_classes: int, weight: float, *, balanced: bool = True
) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    present = np.unique(classes)
    if len(present) == 1:  # scikit-learn refuses it
        return np.eye(num_classes)[np.full(len(new), present[0])]
    counts = np.bincount(classes, minlength=num_classes)
    share = len(classes) / (len(present) * counts[classes]) if balanced else None
    model = LogisticRegression(C=weight, tol=1e-5, max_iter=_MAX_ITERATIONS).fit(train, classes, share)
    return _all_classes(model.predict_proba(new), model.classes_, num_classes)


def ridge(
    train_NC: np.ndarray,
    targets_N: np.ndarray,
    patients: Sequence[Hashable],
    new_MC: np.ndarray,
    *,
    strengths: Sequence[float] = STRENGTHS,
) -> np.ndarray:
    """Predict a number by ridge regression; cross-validation inside the training rows chooses the
    penalty.

    A patient with one row is left out at a time (scikit-learn's closed form). With several rows a
    patient, folds of patients are left out.

    Args:
        train_NC, new_MC: features.
        targets_N: numbers.
        patients: patient of each training row.
        strengths: penalties to choose from, as multiples of C.

    Returns:
        float64 [M].
    """
    from sklearn.linear_model import RidgeCV

    train, new = standardised(train_NC, new_MC)
    alphas = np.array(strengths) * max(1, train.shape[1])
    splits = None
    if 4 <= len(set(patients)) < len(patients):
        fold_N = patient_folds(patients, targets_N, numeric=True, folds=_INNER_FOLDS)[0]
        splits = [(np.flatnonzero(fold_N != f), np.flatnonzero(fold_N == f)) for f in range(fold_N.max() + 1)]
    train, new = _rotated(train, new)
    model = RidgeCV(alphas, scoring="neg_mean_squared_error", cv=splits).fit(train, targets_N)
    return np.asarray(model.predict(new), np.float64)


def majority(
    train_NC: np.ndarray,
    classes_N: np.ndarray,
    patients: Sequence[Hashable],
    new_MC: np.ndarray,
    *,
    num_classes: int,
) -> np.ndarray:
    """Predict the most frequent class of the training rows for every new row; float64 [M, K].

    Arguments as `knn`.
    """
    return np.eye(num_classes)[np.full(len(new_MC), np.bincount(classes_N, minlength=num_classes).argmax())]


def mean_target(
    train_NC: np.ndarray, targets_N: np.ndarray, patients: Sequence[Hashable], new_MC: np.ndarray
) -> np.ndarray:
    """Predict the mean target of the training rows for every new row; float64 [M].

    Arguments as `ridge`.
    """
    return np.full(len(new_MC), float(np.mean(targets_N)))


def _rotated(train: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows in the coordinates of the training rows' span.

    An L2-penalised linear model has its weights in that span (representer theorem), so that its
    predictions are the same and its fit costs N rather than C columns.
    """
    if train.shape[1] <= len(train):
        return train, new
    _, _, basis = np.linalg.svd(train, full_matrices=False)
    return train @ basis.T, new @ basis.T


def _all_classes(chance: np.ndarray, present: np.ndarray, num_classes: int) -> np.ndarray:
    """Probabilities with a column of 0 for each class that no training row had."""
    result = np.zeros((len(chance), num_classes))
    result[:, present.astype(np.int64)] = chance
    return result


def out_of_fold(
    features_NC: np.ndarray, targets_N: np.ndarray, patients: Sequence[Hashable], folds_RN: np.ndarray, fit: Fit
) -> np.ndarray:
    """Predict every row in every repeat by a model that saw no row of its patient.

    Args:
        features_NC: frozen features, one row a scan.
        targets_N: class numbers from 0, or numbers.
        patients: patient of each row.
        folds_RN: see `patient_folds`.
        fit: the probe.

    Returns:
        float64 [R, N, K] for classes, [R, N] for numbers.

    Raises:
        ShapeError: if the numbers of rows differ, or a feature is not finite.
    """
    features = np.asarray(features_NC, np.float64)
    targets = np.asarray(targets_N)
    if not len(features) == len(targets) == len(patients) == folds_RN.shape[1]:
        raise ShapeError(
            f"a probe needs as many labels and patients as rows, got {len(targets)}, {len(patients)}, {len(features)}"
        )
    if not np.isfinite(features).all():
        raise ShapeError(
            f"{int((~np.isfinite(features)).any(1).sum())} of {len(features)} rows hold a feature that is not finite"
        )
    codes = np.unique([str(p) for p in patients], return_inverse=True)[1]
    repeats = []
    for fold_N in folds_RN:
        parts: dict[int, np.ndarray] = {}
        for fold in np.unique(fold_N):
            out = fold_N == fold
            parts[int(fold)] = fit(features[~out], targets[~out], codes[~out].tolist(), features[out])
        first = next(iter(parts.values()))
        predictions = np.zeros((len(features), *first.shape[1:]))
        for fold, values in parts.items():
            predictions[fold_N == fold] = values
        repeats.append(predictions)
    return np.stack(repeats)


def probe(
    features_NC: np.ndarray,
    labels: Sequence[Hashable],
    patients: Sequence[Hashable],
    kind: str = "knn",
    *,
    folds: int = 5,
    seed: int = 0,
    draws: int = 1000,
) -> Probe:
    """Cross-validate one classifier once, split by patient: the quick probe of a run in training.

    Args:
        features_NC: frozen features, one row a scan.
        labels: class of each row.
        patients: patient of each row.
        kind: `knn` (5 neighbours; 1 below 25 rows), or `linear` (logistic regression with a fixed
            penalty).
        folds: parts of the patients.
        seed: random seed of the folds and of the bootstrap.
        draws: draws of the bootstrap over patients.

    Raises:
        ShapeError: if the numbers of rows differ, there is one class only, or one patient only.
    """
    if not len(features_NC) == len(labels) == len(patients):
        raise ShapeError(
            f"a probe needs as many labels and patients as rows, got {len(labels)}, {len(patients)}, {len(features_NC)}"
        )
    classes = tuple(sorted(set(labels), key=str))
    if len(classes) < 2 or len(set(patients)) < 2:
        raise ShapeError(
            f"a probe needs two classes and two patients, got {len(classes)} class(es) and {len(set(patients))} patient(s)"
        )
    truth = np.array([classes.index(label) for label in labels])
    folds_RN = patient_folds(patients, labels, folds=folds, seed=seed)
    fit = classifiers(len(labels), len(classes))[kind]
    probabilities = out_of_fold(features_NC, truth, patients, folds_RN, fit)[0]
    predicted = probabilities.argmax(1)
    accuracy = bootstrap(
        lambda rows: balanced_accuracy(predicted[rows], truth[rows]), list(patients), draws=draws, seed=seed
    )
    return Probe(classes=classes, probabilities=probabilities, accuracy=accuracy)


FEW_ROWS = 25
"""Rows below which one neighbour is asked: five would be most of a class."""


def classifiers(rows: int, num_classes: int) -> dict[str, Fit]:
    """Classification probes for so many rows: `knn`, `linear` (fixed penalty), `logistic` (chosen
    penalty), `majority`."""
    return {
        "knn": partial(knn, num_classes=num_classes, k=1 if rows < FEW_ROWS else 5),
        "linear": partial(linear, num_classes=num_classes),
        "logistic": partial(logistic, num_classes=num_classes),
        "majority": partial(majority, num_classes=num_classes),
    }


def regressors(rows: int) -> dict[str, Fit]:
    """Regression probes for so many rows: `knn`, `ridge` (chosen penalty), `mean`."""
    return {"knn": partial(knn_regression, k=1 if rows < FEW_ROWS else 5), "ridge": ridge, "mean": mean_target}
