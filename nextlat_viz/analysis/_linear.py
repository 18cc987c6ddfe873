"""The two linear maps a probe can be: ridge regression and multinomial logistic regression."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from nextlat_viz.analysis._threads import few_threads

ALPHAS = tuple(float(alpha) for alpha in np.logspace(-3, 4, 8))
FOLDS = 5
LOGISTIC_C = 1.0


class Linear(NamedTuple):
    """``y = X @ coef.T + intercept`` in raw units of X; `penalty` is ridge's alpha or logistic regression's 1/C."""

    coef: Float[np.ndarray, "k dim"]
    intercept: Float[np.ndarray, " k"]
    penalty: float

    def __call__(self, X: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows k"]:
        return X.astype(np.float64) @ self.coef.T + self.intercept


def fit_ridge(
    X: Float[np.ndarray, "rows dim"],
    Y: Float[np.ndarray, "rows k"],
    groups: Int[np.ndarray, " rows"],
    seed: int,
) -> Linear:
    """Fit ridge regression on standardised columns; alpha from `ALPHAS` by 5-fold cross-validation over groups.

    The numbers are those of scikit-learn's ``make_pipeline(StandardScaler(), Ridge(alpha))``. The closed form shares
    one eigendecomposition between all alphas of a fold (30 times faster than a grid search), and does not make a
    notebook wait for scikit-learn to load.
    """
    with few_threads(X):
        return _fit_ridge(X, Y, groups, seed)


def _fit_ridge(X: np.ndarray, Y: np.ndarray, groups: np.ndarray, seed: int) -> Linear:
    mean, scale = _standard(X)
    Z = (X - mean) / scale
    distinct, which = np.unique(groups, return_inverse=True)
    folds = min(FOLDS, distinct.size)
    fold = (np.random.default_rng(seed).permutation(distinct.size) % folds)[which]
    errors = np.zeros(len(ALPHAS))
    for held_out in range(folds):
        inside, outside = fold != held_out, fold == held_out
        for i, (B, b) in enumerate(_ridge_path(Z[inside], Y[inside], ALPHAS)):
            errors[i] += np.square(Y[outside] - Z[outside] @ B - b).sum()
    alpha = ALPHAS[int(errors.argmin())]
    ((B, b),) = _ridge_path(Z, Y, (alpha,))
    coef = B.T / scale
    return Linear(coef, b - coef @ mean, alpha)


def fit_logistic(X: Float[np.ndarray, "rows dim"], classes: Int[np.ndarray, " rows"], k: int) -> Linear:
    """Fit multinomial logistic regression (scikit-learn, ``C = 1``) on standardised columns; `Linear` gives k logits.

    A class that does not occur in `classes` gets a logit of minus infinity.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    present = np.unique(classes)
    coef, intercept = np.zeros((k, X.shape[1])), np.full(k, -np.inf)
    intercept[present] = 0.0
    if present.size > 1:
        mean, scale = _standard(X)
        model = LogisticRegression(C=LOGISTIC_C, max_iter=300, tol=1e-3)
        with warnings.catch_warnings(), few_threads(X):
            # What is scored is the classifier on held-out rows, whether or not the last decimals have settled.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit((X - mean) / scale, classes)
        # Two classes come as one row of logits: the second class against the first.
        rows = present if present.size > 2 else present[1:]
        coef[rows] = model.coef_ / scale
        intercept[rows] = model.intercept_ - coef[rows] @ mean
    return Linear(coef, intercept, 1 / LOGISTIC_C)


def softmax(logits: Float[np.ndarray, "rows k"]) -> Float[np.ndarray, "rows k"]:
    """Turn logits into probabilities."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _standard(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    X = X.astype(np.float64)
    mean, scale = X.mean(0), X.std(0)
    # A constant column carries nothing; rounding alone would otherwise blow it up.
    return mean, np.where(scale > 1e-10 * np.maximum(1, np.abs(mean)), scale, 1.0)


def _ridge_path(Z: np.ndarray, Y: np.ndarray, alphas: tuple[float, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    mean_z, mean_y = Z.mean(0), Y.mean(0)
    Zc = Z - mean_z
    values, vectors = np.linalg.eigh(Zc.T @ Zc)
    projected = vectors.T @ (Zc.T @ (Y - mean_y))
    path = []
    for alpha in alphas:
        B = vectors @ (projected / (np.maximum(values, 0) + alpha)[:, None])
        path.append((B, mean_y - mean_z @ B))
    return path
