"""What frozen features know: k nearest neighbours and a linear probe, each row predicted by models that never saw its patient.

The numbers are those of scikit-learn's `KNeighborsClassifier` and `LogisticRegression` (tested), without needing it: a run probes itself while it trains.
Legend: N rows, C features, K classes.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from scipy.special import log_softmax, softmax

from wavespark.errors import ShapeError
from wavespark.metrics.classification import balanced_accuracy
from wavespark.metrics.intervals import Interval, bootstrap
from wavespark.randomness import stream

Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
"""(training features [N, C], training classes [N], new features [M, C], number of classes) -> probabilities [M, K]."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Probe:
    """What a probe found."""

    classes: tuple[Hashable, ...]
    probabilities: np.ndarray
    """float64 [N, K]: of every row, by a model that saw no row of its patient."""
    accuracy: Interval
    """Balanced accuracy; 1 / K is chance."""

    @property
    def chosen(self) -> np.ndarray:
        """int64 [N]: the likeliest class of each row, as an index into `classes`."""
        return self.probabilities.argmax(1)


def knn(train_NC: np.ndarray, classes_N: np.ndarray, new_MC: np.ndarray, num_classes: int, *, k: int = 5) -> np.ndarray:
    """Probabilities [M, K]: the share of each class among the k nearest training rows (Euclidean).

    Args:
        train_NC, new_MC: features on a common scale; see `standardised`.
        classes_N: whole numbers from 0.
        num_classes: K.
        k: neighbours; all rows if there are fewer.
    """
    near = np.argsort(cdist(new_MC, train_NC), axis=1, kind="stable")[:, :k]
    votes = np.eye(num_classes)[classes_N[near]]
    return np.asarray(votes.mean(1))


def linear(
    train_NC: np.ndarray, classes_N: np.ndarray, new_MC: np.ndarray, num_classes: int, *, strength: float = 1.0
) -> np.ndarray:
    """Probabilities [M, K] of multinomial logistic regression with an L2 penalty: minimises |W|^2 / 2 + strength * (sum of the losses), intercepts free.

    With two classes there is one logit, as everywhere else.

    Args:
        train_NC, new_MC: features on a common scale; see `standardised`.
        classes_N: whole numbers from 0.
        num_classes: K.
        strength: of the data against the penalty (scikit-learn's C).
    """
    columns = 1 if num_classes == 2 else num_classes
    c = train_NC.shape[1]
    truth = np.eye(num_classes)[classes_N]

    def logits(w: np.ndarray, rows: np.ndarray) -> np.ndarray:
        z = rows @ w[:c] + w[c]
        return np.hstack((np.zeros((len(rows), 1)), z)) if columns == 1 else z

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(c + 1, columns)
        z = logits(w, train_NC)
        wrong = softmax(z, axis=1) - truth
        wrong = wrong[:, 1:] if columns == 1 else wrong
        gradient = np.vstack((strength * train_NC.T @ wrong + w[:c], strength * wrong.sum(0, keepdims=True)))
        value = 0.5 * (w[:c] ** 2).sum() - strength * (truth * log_softmax(z, axis=1)).sum()
        return float(value), gradient.ravel()

    start = np.zeros((c + 1) * columns)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000, "gtol": 1e-6, "ftol": 1e-12})
    return np.asarray(softmax(logits(found.x.reshape(c + 1, columns), new_MC), axis=1))


def standardised(train_NC: np.ndarray, new_MC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with the mean and standard deviation of the training rows taken out; a constant feature becomes 0."""
    mean, deviation = train_NC.mean(0), train_NC.std(0)
    scale = np.where(deviation > 1e-12 * np.abs(mean).clip(min=1e-300), deviation, np.inf)
    return (train_NC - mean) / scale, (new_MC - mean) / scale


def probe(
    features_NC: np.ndarray,
    labels: Sequence[Hashable],
    patients: Sequence[Hashable],
    fit: Fit = knn,
    *,
    folds: int = 5,
    seed: int = 0,
    draws: int = 1000,
) -> Probe:
    """Cross-validated by patient: no model sees a row of a patient whom it predicts.

    Args:
        features_NC: frozen features, one row a scan.
        labels: what to predict.
        patients: whose each row is.
        fit: `knn`, `linear`, or one of them with other settings.
        folds: parts of the patients; fewer where there are fewer patients.
        seed: of the folds and of the bootstrap.
        draws: of the bootstrap over patients.

    Raises:
        ShapeError: if the numbers of rows differ, there is one class only, or one patient only.
    """
    features = np.asarray(features_NC, np.float64)
    if not len(features) == len(labels) == len(patients):
        raise ShapeError(
            f"a probe needs as many labels and patients as rows, got {len(labels)}, {len(patients)}, {len(features)}"
        )
    classes = tuple(sorted(set(labels), key=str))
    fold_N = _folds(patients, folds, seed)
    if len(classes) < 2 or fold_N.max(initial=0) < 1:
        raise ShapeError(
            f"a probe needs two classes and two patients, got {len(classes)} class(es) and {len(set(patients))} patient(s)"
        )
    truth = np.array([classes.index(label) for label in labels])
    probabilities = np.zeros((len(features), len(classes)))
    for fold in range(fold_N.max() + 1):
        test = fold_N == fold
        train_rows, test_rows = standardised(features[~test], features[test])
        probabilities[test] = fit(train_rows, truth[~test], test_rows, len(classes))
    chosen = probabilities.argmax(1)
    accuracy = bootstrap(
        lambda rows: balanced_accuracy(chosen[rows], truth[rows]), list(patients), draws=draws, seed=seed
    )
    return Probe(classes=classes, probabilities=probabilities, accuracy=accuracy)


def _folds(patients: Sequence[Hashable], folds: int, seed: int) -> np.ndarray:
    """int64 [N]: the fold of each row; patients in random order, dealt out."""
    names = sorted(set(patients), key=str)
    order = stream(seed, purpose="probe folds").permutation(len(names))
    count = min(folds, len(names))
    fold_of = {names[name]: place % count for place, name in enumerate(order)}
    return np.array([fold_of[p] for p in patients], np.int64)
