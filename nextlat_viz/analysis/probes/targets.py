"""Targets of probes: numbers, fitted by ridge regression and scored by R2, or classes, scored by accuracy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int

from nextlat_viz.analysis.probes.fit import Linear, fit_logistic, fit_ridge
from nextlat_viz.errors import LatentsError, unknown
from nextlat_viz.latents.table import column, columns, meta

INTERVAL = (2.5, 97.5)
# A sum of squared deviations below this share of the sum of squares is rounding, not variance.
ROUNDING = 1e-14
_NAMED_BY = {"belief": "state_names", "next_token_probs": "vocabulary", "next_token_probs_exact": "vocabulary"}


@dataclass(frozen=True, eq=False)
class Numbers:
    """A target of K numbers per row."""

    metric: ClassVar[Literal["R2"]] = "R2"
    values: Float[np.ndarray, "rows k"]
    names: tuple[str, ...]

    def swapped(self, moved: Int[np.ndarray, " n"], source: Int[np.ndarray, " n"]) -> Numbers:
        """Give rows `moved` the values of rows `source`."""
        values = self.values.copy()
        values[moved] = self.values[source]
        return replace(self, values=values)

    def fit(
        self, X: Float[np.ndarray, "all dim"], rows: Int[np.ndarray, " n"], groups: Int[np.ndarray, " all"], seed: int
    ) -> Linear:
        return fit_ridge(X[rows], self.values[rows], groups[rows], seed)

    def mistakes(
        self, fitted: Linear, X: Float[np.ndarray, "all dim"], rows: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """Return each row's squared error, summed over dimensions."""
        return np.square(fitted(X[rows]) - self.values[rows]).sum(1)

    def score(self, mistakes: Float[np.ndarray, " n"], rows: Int[np.ndarray, " n"]) -> float:
        total = np.square(self.values[rows] - self.values[rows].mean(0)).sum()
        varies = total > ROUNDING * np.square(self.values[rows]).sum()
        return float(1 - mistakes.sum() / total) if varies else float("nan")

    def interval(
        self,
        mistakes: Float[np.ndarray, " n"],
        rows: Int[np.ndarray, " n"],
        episodes: Int[np.ndarray, " n"],
        resamples: int,
        seed: int,
    ) -> tuple[float, float]:
        """Bootstrap over episodes: R2 follows from sums over each episode, so nothing is fitted again."""
        Y = self.values[rows] - self.values[rows].mean(0)
        summed = _per_episode(episodes, np.column_stack([np.ones(rows.size), mistakes, np.square(Y).sum(1), Y]))
        drawn = _resample(summed, resamples, seed)
        count, errors, squares, sums = drawn[:, 0], drawn[:, 1], drawn[:, 2], drawn[:, 3:]
        total = squares - np.square(sums).sum(1) / count
        varies = total > ROUNDING * squares
        return _percentiles(1 - errors[varies] / total[varies])

    def chance(self, train: Int[np.ndarray, " train"], test: Int[np.ndarray, " test"]) -> float | None:
        return None


@dataclass(frozen=True, eq=False)
class Classes:
    """A target of one class per row, as its number in `names`; -1 for a class that no fitted row has."""

    metric: ClassVar[Literal["accuracy"]] = "accuracy"
    codes: Int[np.ndarray, " rows"]
    names: tuple[str, ...]

    def swapped(self, moved: Int[np.ndarray, " n"], source: Int[np.ndarray, " n"]) -> Classes:
        codes = self.codes.copy()
        codes[moved] = self.codes[source]
        return replace(self, codes=codes)

    def fit(
        self, X: Float[np.ndarray, "all dim"], rows: Int[np.ndarray, " n"], groups: Int[np.ndarray, " all"], seed: int
    ) -> Linear:
        return fit_logistic(X[rows], self.codes[rows], len(self.names))

    def mistakes(
        self, fitted: Linear, X: Float[np.ndarray, "all dim"], rows: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """Return 1 for a row given the wrong class, else 0."""
        return (fitted(X[rows]).argmax(1) != self.codes[rows]).astype(np.float64)

    def score(self, mistakes: Float[np.ndarray, " n"], rows: Int[np.ndarray, " n"]) -> float:
        return float(1 - mistakes.mean())

    def interval(
        self,
        mistakes: Float[np.ndarray, " n"],
        rows: Int[np.ndarray, " n"],
        episodes: Int[np.ndarray, " n"],
        resamples: int,
        seed: int,
    ) -> tuple[float, float]:
        summed = _per_episode(episodes, np.column_stack([np.ones(rows.size), mistakes]))
        drawn = _resample(summed, resamples, seed)
        return _percentiles(1 - drawn[:, 1] / drawn[:, 0])

    def chance(self, train: Int[np.ndarray, " train"], test: Int[np.ndarray, " test"]) -> float | None:
        """Accuracy on the held-out rows of always giving the most frequent class of the fitted rows."""
        commonest = np.bincount(self.codes[train], minlength=len(self.names)).argmax()
        return float((self.codes[test] == commonest).mean())


def target_of(
    latents: AnnData, name: str, train: Int[np.ndarray, " train"], test: Int[np.ndarray, " test"]
) -> Numbers | Classes:
    """Return a column as a target, after checking that it varies and has no gaps on these rows."""
    used = np.concatenate([train, test])
    if name in latents.obs:
        values = latents.obs[name]
        missing = int(values.isna().to_numpy()[used].sum())
        if missing:
            raise LatentsError(
                f"target {name!r} is missing in {missing} of {used.size} rows: select the rows that have it first"
            )
        if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
            return _classes(name, column(latents, name).astype(str), train)
    elif name not in latents.obsm:
        raise unknown("target", name, columns(latents))
    return _numbers(latents, name, train, test)


def _classes(name: str, values: np.ndarray, train: np.ndarray) -> Classes:
    known = np.unique(values[train])
    if known.size < 2:
        raise LatentsError(
            f"target {name!r} has one class ({known[0]}) in all {train.size} rows to fit, and a probe needs two"
        )
    codes = np.searchsorted(known, values)
    fitted = known[np.minimum(codes, known.size - 1)] == values
    return Classes(np.where(fitted, codes, -1), tuple(map(str, known)))


def _numbers(latents: AnnData, name: str, train: np.ndarray, test: np.ndarray) -> Numbers:
    values = column(latents, name).astype(np.float64).reshape(latents.n_obs, -1)
    if not np.isfinite(values[np.concatenate([train, test])]).all():
        raise LatentsError(f"target {name!r} holds NaN or infinity: select the rows where it is finite first")
    for side, rows in {"to fit": train, "held out": test}.items():
        if np.square(values[rows] - values[rows].mean(0)).sum() <= ROUNDING * np.square(values[rows]).sum():
            raise LatentsError(f"target {name!r} is constant over the {rows.size} rows {side}: R2 needs it to vary")
    names = tuple(meta(latents).get(_NAMED_BY.get(name, ""), ()))
    if len(names) != values.shape[1]:
        names = (name,) if values.shape[1] == 1 else tuple(f"{name}[{i}]" for i in range(values.shape[1]))
    return Numbers(values, names)


def _per_episode(episodes: np.ndarray, values: np.ndarray) -> np.ndarray:
    _, which = np.unique(episodes, return_inverse=True)
    summed = np.zeros((which.max() + 1, values.shape[1]))
    np.add.at(summed, which, values)
    return summed


def _resample(summed: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    n = len(summed)
    times_drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return times_drawn @ summed


def _percentiles(scores: np.ndarray) -> tuple[float, float]:
    if scores.size == 0:
        return float("nan"), float("nan")
    low, high = np.percentile(scores, INTERVAL)
    return float(low), float(high)
