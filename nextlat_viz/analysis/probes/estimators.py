"""Linear probes as scikit-learn estimators that compute with torch, for pipelines and for GPUs."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from nextlat_viz.analysis.probes.fit import ridge_path
from nextlat_viz.analysis.probes.softmax import fit_softmax
from nextlat_viz.models.torch_state import device_of


class TorchLogisticProbe(ClassifierMixin, BaseEstimator):
    """Multinomial logistic regression with an L2 penalty, as scikit-learn's ``LogisticRegression``, fitted by torch.

    The objective is the same, so the probabilities agree up to `tol`. Arithmetic is in the precision of X, float32 or
    float64. ``analysis.probe_sweep`` fits many of these at once.

    Parameters
    ----------
    C : float
        Inverse of the penalty: ``1/C`` weighs ``|coef|^2 / 2`` against the sum of the rows' cross-entropies.
    tol : float
        The fit ends when no entry of the gradient of the mean loss is larger.
    max_iter : int
        Most iterations of L-BFGS.
    random_state : int
        Order of the first passes over many rows.
    device : str
        ``"cpu"``, or ``"cuda"``.

    Attributes
    ----------
    classes_ : (k,) array
    coef_ : (k, dim) array
        Logits per unit of X; two rows for two classes, where scikit-learn has one.
    intercept_ : (k,) array
    n_iter_ : int
        Whole passes of L-BFGS over the rows.
    n_features_in_ : int

    Examples
    --------
    >>> X = np.array([[0.0, 1.0], [0.2, 0.8], [1.0, 0.1], [0.9, 0.0]])
    >>> probe = TorchLogisticProbe(C=10.0).fit(X, ["left", "left", "right", "right"])
    >>> probe.predict([[1.0, 0.0]]).tolist(), probe.predict_proba([[0.5, 0.5]]).shape
    (['right'], (1, 2))
    """

    # By scikit-learn's convention a constructor takes anything, and `fit` checks it.
    def __init__(
        self, C: Any = 1.0, tol: Any = 1e-4, max_iter: Any = 1000, random_state: Any = 0, device: Any = "cpu"
    ) -> None:
        self.C = C
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any) -> TorchLogisticProbe:
        """Fit to rows X (n, dim) of classes y (n,).

        Raises
        ------
        ValueError
            If y has a single class, `C` is not positive, or X holds NaN or infinity.
        """
        if not self.C > 0:
            raise ValueError(f"C must be positive, got {self.C}: it is the inverse of the penalty")
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y has one class ({self.classes_[0]}), and a probe needs at least 2 classes to tell apart"
            )
        fits = fit_softmax(
            torch.tensor(X, device=device_of(self.device)),
            torch.tensor(codes[:, None], device=device_of(self.device)),
            len(self.classes_),
            float(self.C),
            float(self.tol),
            self.max_iter,
            self.random_state,
        )
        self.coef_, self.intercept_ = (part[0].cpu().numpy() for part in (fits.coef, fits.intercept))
        self.n_iter_ = fits.passes
        if fits.passes == self.max_iter and float(fits.gradient) > self.tol:
            warnings.warn(
                f"the gradient is still {float(fits.gradient):.2g} after max_iter={self.max_iter} iterations: "
                "standardise the columns of X, or raise max_iter or tol",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, (n, k), in the order of ``classes_``."""
        return softmax(self._logits(X), axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row, (n,)."""
        codes = self._logits(X).argmax(1)  # raises if not fitted
        return self.classes_[codes]

    def _logits(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return X.astype(np.float64) @ self.coef_.T.astype(np.float64) + self.intercept_


class TorchRidgeProbe(RegressorMixin, BaseEstimator):
    """Linear regression with an L2 penalty, as scikit-learn's ``Ridge``, in closed form and float64 by torch.

    Parameters
    ----------
    alpha : float
        Weighs ``|coef|^2`` against the sum of squared errors; 0 for least squares.
    device : str
        ``"cpu"``, or ``"cuda"``.

    Attributes
    ----------
    coef_ : (dim,) or (m, dim) array
    intercept_ : float or (m,) array
    n_features_in_ : int

    Examples
    --------
    >>> X = np.arange(6.0)[:, None]
    >>> probe = TorchRidgeProbe(alpha=0.0).fit(X, 3 * X[:, 0] + 1)
    >>> round(float(probe.coef_[0]), 6), round(float(probe.intercept_), 6), probe.score(X, 3 * X[:, 0] + 1)
    (3.0, 1.0, 1.0)
    """

    def __init__(self, alpha: Any = 1.0, device: Any = "cpu") -> None:
        self.alpha = alpha
        self.device = device

    def fit(self, X: Any, y: Any) -> TorchRidgeProbe:
        """Fit to rows X (n, dim) and numbers y, (n,) or (n, m).

        Raises
        ------
        ValueError
            If `alpha` is negative, or X or y hold NaN or infinity.
        """
        if not self.alpha >= 0:
            raise ValueError(f"alpha must be 0 or more, got {self.alpha}: it is the penalty")
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        where = device_of(self.device)
        rows, goal = (torch.tensor(part, dtype=torch.float64, device=where) for part in (X, y.reshape(len(X), -1)))
        x, mean = rows.mean(0), goal.mean(0)
        rows = rows - x
        (coef,) = ridge_path(rows.T @ rows, rows.T @ (goal - mean), (float(self.alpha),))
        slopes, offsets = coef.T.cpu().numpy(), (mean - x @ coef).cpu().numpy()
        self.coef_: np.ndarray = slopes if y.ndim == 2 else slopes[0]
        self.intercept_: Any = offsets if y.ndim == 2 else offsets[0]
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Numbers read from rows X: (n,), or (n, m)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return X @ self.coef_.T + self.intercept_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
