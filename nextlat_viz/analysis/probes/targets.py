"""Targets of probes: numbers, fitted by ridge regression and scored by R2, or classes, scored by accuracy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeVar

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from jaxtyping import Float, Int, Shaped

from nextlat_viz.analysis.probes.fit import Linear, fit_ridge, standard
from nextlat_viz.analysis.probes.softmax import fit_softmax
from nextlat_viz.errors import LatentsError, one_of
from nextlat_viz.latents.table import NO_WORLD, column, columns, meta, world_of
from nextlat_viz.worlds import World

T = TypeVar("T", bound="_Target")
INTERVAL = (2.5, 97.5)
TOLERANCE = 2e-3
# A sum of squared deviations below this share of the sum of squares is rounding, not variance.
ROUNDING = 1e-14
# Classes that a probe tells apart by default. A real vocabulary has thousands, most with too few rows to fit.
MOST_CLASSES = 500
# Name of the class of all rarer ones.
OTHER = "all other classes"
# More classes than this are fitted to `TOLERANCE` alone, because they would take minutes.
_MANY_CLASSES = 200
_NAMED_BY = {"belief": "state_names", "next_token_probs": "vocabulary", "next_token_probs_exact": "vocabulary"}


@dataclass(frozen=True, eq=False)
class _Target:
    """A target of one or several columns: `values` are its numbers or the codes of its classes, a row each."""

    values: Shaped[np.ndarray, "rows k"]

    def fixed(self, moved: Int[np.ndarray, " n"], source: Int[np.ndarray, " n"]) -> bool:
        """Whether rows `moved` have the very values of rows `source`."""
        return np.array_equal(self.values[moved], self.values[source], equal_nan=True)

    def swapped(self: T, moved: Int[np.ndarray, " n"], source: Int[np.ndarray, " n"]) -> T:
        """Give rows `moved` the values of rows `source`."""
        values = self.values.copy()
        values[moved] = self.values[source]
        return replace(self, values=values)

    def interval(
        self,
        mistakes: Float[np.ndarray, "n m"],
        rows: Int[np.ndarray, " n"],
        episodes: Int[np.ndarray, " n"],
        resamples: int,
        seed: int,
    ) -> tuple[float, float]:
        """Bootstrap over episodes: a score follows from sums over each episode, so nothing is fitted again."""
        summed = pd.DataFrame(self._parts(mistakes, rows)).groupby(episodes).sum().to_numpy()
        n = len(summed)
        times_drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
        scores = self._scores(times_drawn @ summed)
        if scores.size == 0:
            return float("nan"), float("nan")
        low, high = np.percentile(scores, INTERVAL)
        return float(low), float(high)

    def _parts(self, mistakes: np.ndarray, rows: np.ndarray) -> Float[np.ndarray, "n parts"]:
        """Return numbers of each row whose sums over rows give the score, by `_scores`."""
        raise NotImplementedError

    def _scores(self, sums: Float[np.ndarray, "draws parts"]) -> Float[np.ndarray, " scores"]:
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Numbers(_Target):
    """A target of K numbers per row, NaN where the world has no value."""

    metric: ClassVar[Literal["R2"]] = "R2"
    merged: ClassVar[int] = 0
    classes: ClassVar[int] = 0
    names: tuple[str, ...]

    @property
    def gaps(self) -> bool:
        """Whether some values are missing, so that each column has its own rows."""
        return bool(np.isnan(self.values).any())

    def fit(
        self, X: Float[np.ndarray, "all dim"], rows: Int[np.ndarray, " n"], groups: Int[np.ndarray, " all"], seed: int
    ) -> Linear:
        return fit_ridge(X[rows], self.values[rows], groups[rows], seed)

    def mistakes(
        self, fitted: Linear, X: Float[np.ndarray, "all dim"], rows: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n 1"]:
        """Return the squared error of each row, summed over dimensions."""
        return np.nansum(np.square(fitted(X[rows]) - self.values[rows]), axis=1, keepdims=True)

    def score(self, mistakes: Float[np.ndarray, "n 1"], rows: Int[np.ndarray, " n"]) -> float:
        total = np.square(deviations(self.values[rows])).sum()
        return float(1 - mistakes.sum() / total) if varies(self.values[rows]) else float("nan")

    def balanced(self, mistakes: Float[np.ndarray, "n 1"], rows: Int[np.ndarray, " n"]) -> None:
        return None

    def chance(self, train: Int[np.ndarray, " train"], test: Int[np.ndarray, " test"]) -> None:
        return None

    def _parts(self, mistakes: np.ndarray, rows: np.ndarray) -> Float[np.ndarray, "n parts"]:
        Y, known = deviations(self.values[rows]), ~np.isnan(self.values[rows])
        return np.column_stack([mistakes, np.square(Y).sum(1), Y, known])

    def _scores(self, sums: Float[np.ndarray, "draws parts"]) -> Float[np.ndarray, " scores"]:
        errors, squares, Y, counts = np.split(sums, [1, 2, 2 + self.values.shape[1]], axis=1)
        total = squares[:, 0] - (np.square(Y) / np.maximum(counts, 1)).sum(1)
        some = total > ROUNDING * squares[:, 0]
        return 1 - errors[some, 0] / total[some]


@dataclass(frozen=True, eq=False)
class Classes(_Target):
    """A target of classes, one or several per row, such as the squares of a board.

    Codes are places in `labels`, -1 for a class that no fitted row has; `columns` names the columns, and `merged` rare
    classes share the last label.
    """

    metric: ClassVar[Literal["accuracy"]] = "accuracy"
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    merged: int = 0

    @property
    def classes(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the logits: the classes, for several columns with the column in front."""
        if len(self.columns) == 1:
            return self.labels
        return tuple(f"{name}={label}" for name in self.columns for label in self.labels)

    def fit(
        self, X: Float[np.ndarray, "all dim"], rows: Int[np.ndarray, " n"], groups: Int[np.ndarray, " all"], seed: int
    ) -> Linear:
        mean, scale = standard(X[rows])
        Z = torch.from_numpy(((X[rows] - mean) / scale).astype(np.float32))
        tol = TOLERANCE if self.classes * len(self.columns) > _MANY_CLASSES else TOLERANCE / 20
        fits = fit_softmax(Z, torch.from_numpy(self.values[rows]), self.classes, tol=tol, seed=seed)
        coef = fits.coef.flatten(0, 1).double().numpy() / scale
        return Linear(coef, fits.intercept.flatten().double().numpy() - coef @ mean, 1.0)

    def mistakes(
        self, fitted: Linear, X: Float[np.ndarray, "all dim"], rows: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n m"]:
        """Return 1 for a wrong class, else 0."""
        logits = fitted(X[rows]).reshape(len(rows), len(self.columns), -1)
        return (logits.argmax(2) != self.values[rows]).astype(np.float64)

    def score(self, mistakes: Float[np.ndarray, "n m"], rows: Int[np.ndarray, " n"]) -> float:
        return float(1 - mistakes.mean())

    def balanced(self, mistakes: Float[np.ndarray, "n m"], rows: Int[np.ndarray, " n"]) -> float:
        return balanced_accuracy(self.values[rows], mistakes, self.classes)

    def chance(self, train: Int[np.ndarray, " train"], test: Int[np.ndarray, " test"]) -> float:
        """Accuracy on the held-out rows of always giving the most frequent class of the fitted rows."""
        frequent = [np.bincount(codes, minlength=self.classes).argmax() for codes in self.values[train].T]
        return float((self.values[test] == frequent).mean())

    def _parts(self, mistakes: np.ndarray, rows: np.ndarray) -> Float[np.ndarray, "n parts"]:
        return np.column_stack([np.ones(rows.size), mistakes.mean(1)])

    def _scores(self, sums: Float[np.ndarray, "draws parts"]) -> Float[np.ndarray, " scores"]:
        return 1 - sums[:, 1] / sums[:, 0]


def varies(values: Float[np.ndarray, "rows k"]) -> bool:
    """Tell whether numbers vary by more than rounding errors."""
    return bool(np.square(deviations(values)).sum() > ROUNDING * np.nansum(np.square(values)))


def deviations(values: Float[np.ndarray, "rows k"]) -> Float[np.ndarray, "rows k"]:
    """Return the deviations from the column means of the known values, 0 where a value is NaN."""
    known = ~np.isnan(values)
    mean = np.where(known, values, 0).sum(0) / np.maximum(known.sum(0), 1)
    return np.where(known, values - mean, 0.0)


def balanced_accuracy(codes: Int[np.ndarray, "rows m"], wrong: Float[np.ndarray, "rows m"], k: int) -> float:
    """Return the mean over classes of their accuracy, averaged over columns: rare classes count as much as others."""
    # A class that no fitted row has, code -1, counts as class 0 of k + 1.
    place = (codes + 1 + np.arange(codes.shape[1]) * (k + 1)).ravel()
    size = codes.shape[1] * (k + 1)
    counts, errors = np.bincount(place, minlength=size), np.bincount(place, wrong.ravel(), minlength=size)
    present = (counts > 0).reshape(-1, k + 1)
    right = np.where(present, 1 - errors.reshape(-1, k + 1) / np.maximum(counts.reshape(-1, k + 1), 1), 0.0)
    return float((right.sum(1) / present.sum(1)).mean())


def target_of(
    latents: AnnData,
    name: str,
    train: Int[np.ndarray, " train"],
    test: Int[np.ndarray, " test"],
    most_classes: int = MOST_CLASSES,
) -> Numbers | Classes:
    """Return a column as a target, after checking that it varies and has no gaps on these rows.

    Names are classes, and so are integers that the world gives names to, such as the discs on a board. A -1 that
    means "no value" in the world is left out. Where there are more names than `most_classes`, the most frequent are
    classes and all others together are the last class.
    """
    used = np.concatenate([train, test])
    one_of("target", name, columns(latents))
    if name in latents.obs:
        values = latents.obs[name]
        missing = int(values.isna().to_numpy()[used].sum())
        if missing:
            raise LatentsError(
                f"target {name!r} is missing in {missing} of {used.size} rows: select the rows that have it first"
            )
        if name == "token_id" or not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
            return _classes(name, column(latents, name).astype(str), train, most_classes)
    values = column(latents, name).reshape(latents.n_obs, -1)
    world = _world(latents) if values.dtype.kind in "iu" else None
    if world is not None and name in world.state_values and values[used].min() >= 0:
        return _named_classes(name, values, tuple(map(str, world.state_values[name])), train)
    values = values.astype(np.float64)
    if world is not None and name in world.optional_states:
        values[values == -1] = np.nan
    elif not np.isfinite(values[used]).all():
        raise LatentsError(f"target {name!r} holds NaN or infinity: select the rows where it is finite first")
    return _numbers(latents, name, values, train, test)


def _world(latents: AnnData) -> World | None:
    """Return the world of the latents; None where there is none, or it is not registered here."""
    if meta(latents)["world"] == NO_WORLD:
        return None
    try:
        return world_of(latents)
    except (ValueError, TypeError):
        return None


def _classes(name: str, values: np.ndarray, train: np.ndarray, most: int) -> Classes:
    known, counts = np.unique(values[train], return_counts=True)
    if known.size < 2:
        raise LatentsError(
            f"target {name!r} has one class ({known[0]}) in all {train.size} rows to fit, and a probe needs two"
        )
    codes = np.searchsorted(known, values)
    fitted = known[np.minimum(codes, known.size - 1)] == values
    if known.size > most:
        frequent = np.sort(np.argsort(-counts, kind="stable")[: most - 1])
        place = np.full(known.size, most - 1)
        place[frequent] = np.arange(most - 1)
        codes = np.where(fitted, place[np.minimum(codes, known.size - 1)], most - 1)
        labels = (*map(str, known[frequent]), OTHER)
        return Classes(codes[:, None], labels, (name,), known.size - most + 1)
    return Classes(np.where(fitted, codes, -1)[:, None], tuple(map(str, known)), (name,))


def _named_classes(name: str, codes: np.ndarray, labels: tuple[str, ...], train: np.ndarray) -> Classes:
    if (codes[train] == codes[train[0]]).all():
        raise LatentsError(f"target {name!r} is the same in all {train.size} rows to fit: a probe needs it to vary")
    return Classes(codes.astype(np.int64), labels, _numbered(name, codes.shape[1]))


def _numbers(latents: AnnData, name: str, values: np.ndarray, train: np.ndarray, test: np.ndarray) -> Numbers:
    for side, rows in {"to fit": train, "held out": test}.items():
        if not varies(values[rows]):
            raise LatentsError(f"target {name!r} is constant over the {rows.size} rows {side}: R2 needs it to vary")
    names = tuple(meta(latents).get(_NAMED_BY.get(name, ""), ()))
    return Numbers(values, names if len(names) == values.shape[1] else _numbered(name, values.shape[1]))


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return (name,) if count == 1 else tuple(f"{name}[{i}]" for i in range(count))
