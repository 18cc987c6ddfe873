from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from nextlat_viz.analysis.probes import softmax as softmax_fit
from nextlat_viz.analysis.probes.estimators import TorchLogisticProbe, TorchRidgeProbe
from nextlat_viz.analysis.probes.fit import FOLDS, fit_ridge, fit_ridges
from nextlat_viz.analysis.probes.softmax import fit_softmax


def blobs(n: int = 300, dim: int = 6, k: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    classes = rng.integers(k, size=n)
    return rng.normal(size=(k, dim))[classes] + rng.normal(size=(n, dim)), classes


# Two checks fit shuffled or nearly singular rows on purpose, which gives warnings.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([TorchLogisticProbe(), TorchRidgeProbe()])
def test_estimators_pass_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("k", [2, 3, 7])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_logistic_probe_equals_scikit_learn(k: int, C: float) -> None:
    X, y = blobs(k=k)
    ours = TorchLogisticProbe(C=C, tol=1e-7).fit(X, y)
    theirs = LogisticRegression(C=C, tol=1e-9, max_iter=10_000).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=2e-5)
    assert ours.score(X, y) == theirs.score(X, y)
    assert ours.coef_.shape == (k, 6)


@settings(max_examples=15)
@given(st.integers(2, 5), st.integers(1, 5), st.floats(-1, 1), st.integers(0, 1000))
def test_logistic_probe_is_at_the_optimum(k: int, dim: int, power: float, seed: int) -> None:
    X, y = blobs(60, dim, k, seed)
    X = X * 10**power + 5
    if len(np.unique(y)) < k:
        return
    C = 10.0
    probe = TorchLogisticProbe(C=C, tol=1e-6, max_iter=1000).fit(X, y)
    # Literally: the gradient of sum of cross-entropies + |coef|^2 / 2C, over the rows.
    wrong = probe.predict_proba(X) - np.eye(k)[y]
    penalty = (2 if k == 2 else 1) * probe.coef_ / C
    np.testing.assert_allclose((wrong.T @ X + penalty) / 60, 0, atol=3e-5 * max(1, 10**power))
    np.testing.assert_allclose(wrong.mean(0), 0, atol=3e-5)


def test_many_rows_are_fitted_well_in_single_precision() -> None:
    X, y = blobs(9000, 12, 10)
    fitted, held_out = slice(0, 6000), slice(6000, None)
    ours = TorchLogisticProbe(tol=2e-3).fit(X[fitted].astype(np.float32), y[fitted])
    theirs = LogisticRegression().fit(X[fitted], y[fitted])
    assert ours.coef_.dtype == np.float32
    assert ours.score(X[held_out], y[held_out]) == pytest.approx(theirs.score(X[held_out], y[held_out]), abs=0.005)
    losses = [log_loss(y[held_out], item.predict_proba(X[held_out])) for item in (ours, theirs)]
    assert losses[0] == pytest.approx(losses[1], abs=0.002)


def test_problems_fitted_together_equal_problems_fitted_alone() -> None:
    X, y = blobs(400, k=5)
    rng = np.random.default_rng(1)
    rare = np.where(y < 2, y, -1)
    targets = np.stack([y, rng.integers(5, size=400), np.where(rng.random(400) < 0.3, -1, y), rare], 1)
    together = fit_softmax(torch.tensor(X), torch.tensor(targets), 5, tol=1e-8, max_iter=1000)
    for i, column in enumerate(targets.T):
        used = column >= 0
        present = np.unique(column[used])
        alone = LogisticRegression(tol=1e-10, max_iter=10_000).fit(X[used], column[used])
        logits = X @ together.coef[i].numpy().T + together.intercept[i].numpy()
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(p[:, present], alone.predict_proba(X), atol=1e-5)


def test_stochastic_start_is_seeded_and_close(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs(6000, 8, 6)
    data = torch.tensor(X, dtype=torch.float32), torch.tensor(y[:, None])
    first, again, other = (fit_softmax(*data, 6, tol=1.0, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.coef, again.coef)
    assert not torch.equal(first.coef, other.coef)
    assert first.passes == 0
    assert float(first.gradient) < 5e-3
    monkeypatch.setattr(softmax_fit, "SMALL", 10**9)
    exact = fit_softmax(data[0].double(), data[1], 6, tol=1e-6, max_iter=500)
    read, expected = (
        softmax(X @ item.coef[0].numpy().T + item.intercept[0].numpy(), axis=1) for item in (first, exact)
    )
    assert np.abs(read - expected).mean() < 0.005


def test_ridge_probe_equals_scikit_learn() -> None:
    X, _ = blobs()
    Y = X @ np.arange(18.0).reshape(6, 3) + np.random.default_rng(2).normal(size=(300, 3)) + 4
    for alpha in (0.0, 1.0, 1e4):
        ours, theirs = TorchRidgeProbe(alpha=alpha).fit(X, Y), Ridge(alpha=alpha).fit(X, Y)
        np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-9)
        np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-9)
        assert ours.score(X, Y) == pytest.approx(theirs.score(X, Y))
    assert TorchRidgeProbe().fit(X, Y[:, 0]).predict(X).shape == (300,)


def test_ridges_from_moments_equal_those_fitted_on_rows() -> None:
    rng = np.random.default_rng(0)
    X, _ = blobs(240, 5)
    X = X * np.array([1, 10, 0.1, 1, 1]) + np.array([0, 100, 0, 0, 3])
    X[:, 3] = 2.0
    groups = np.repeat(np.arange(24), 10)
    fold = (np.random.default_rng(7).permutation(24) % FOLDS)[groups]
    targets = np.stack([X @ rng.normal(size=(5, 2)) + scale * rng.normal(size=(240, 2)) for scale in (0.1, 30)], 1)
    result = fit_ridges(torch.tensor(X), torch.tensor(targets), torch.tensor(fold))
    for i in range(2):
        alone = fit_ridge(X, targets[:, i], groups, 7)
        assert float(result.alpha[i]) == alone.penalty
        read = X @ result.coef[i].numpy().T + result.intercept[i].numpy()
        np.testing.assert_allclose(read, alone(X), atol=1e-8)
    assert result.alpha[0] < result.alpha[1]
    some = targets.copy()
    some[::7, 1] = np.nan
    left = fit_ridges(torch.tensor(X), torch.tensor(some), torch.tensor(fold))
    used = ~np.isnan(some[:, 1, 0])
    alone_ = make_pipeline(StandardScaler(), Ridge(float(left.alpha[1]))).fit(X[used], some[used, 1])
    np.testing.assert_allclose(X @ left.coef[1].numpy().T + left.intercept[1].numpy(), alone_.predict(X), atol=1e-8)


def test_probes_work_in_scikit_learn_pipelines() -> None:
    X, y = blobs(120)
    names = np.array(list("abcd"))[y]
    search = GridSearchCV(
        make_pipeline(StandardScaler(), TorchLogisticProbe()), {"torchlogisticprobe__C": [0.1, 10]}, cv=3
    )
    assert search.fit(X, names).predict(X[:3]).dtype.kind == "U"
    assert clone(TorchRidgeProbe(alpha=3.0)).get_params() == {"alpha": 3.0, "device": "cpu"}


def test_bad_input_is_named_in_the_error() -> None:
    X, y = blobs(50)
    with pytest.raises(ValueError, match=r"C must be positive, got 0"):
        TorchLogisticProbe(C=0).fit(X, y)
    with pytest.raises(ValueError, match=r"alpha must be 0 or more, got -1"):
        TorchRidgeProbe(alpha=-1).fit(X, y)
    with pytest.raises(ValueError, match=r"y has one class \(3\)"):
        TorchLogisticProbe().fit(X, np.full(50, 3))
    with pytest.raises(ValueError, match="NaN"):
        TorchLogisticProbe().fit(np.where(X > 2, np.nan, X), y)
    with pytest.warns(ConvergenceWarning, match="max_iter=1 "):
        TorchLogisticProbe(max_iter=1, tol=1e-9).fit(X, y)
