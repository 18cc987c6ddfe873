"""Measure: a table with a row per model and setting, its uncertainty, and comparisons over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from nextlat_viz import display
from nextlat_viz.errors import one_of

if TYPE_CHECKING:
    from nextlat_viz.plotting import Figure

RUN = ("model", "world", "objective", "seed")
SCORE = ("value", "error", "trials")
QUANTITY = "quantity"
"""Name of the setting of a measure that has several quantities."""
CONFIDENCE = 0.95
# Columns of controls' scores, in the unit of ``value``.
CONTROLS = ("untrained", "shuffled", "prior")


@dataclass(frozen=True, eq=False)
class Measure:
    """One measure over one or several models.

    Attributes
    ----------
    name : str
        Such as ``"detour robustness"``.
    table : DataFrame
        A row per model and setting: ``model, world, objective, seed`` (NA for a predictor that is not a run), a column
        for each setting in `by`, ``value``, its standard ``error`` (NaN where there is none) over ``trials``, and the
        further counts of the measure. It holds every seed and every failed trial.
    by : tuple of str
        Names of the settings, the one drawn along the x axis first, such as ``("p", "kind")``.
    unit : str or dict of str to str
        Unit of ``value``: ``"share"``, ``"nats"``, ``"directions"``. A measure of several quantities has a unit for
        each name in its setting ``quantity``.
    better : {"higher", "lower", ""}
        Which direction is good; "" where neither is.
    references : dict of str to float
        Values to compare with: the score of the true world, chance.
    solved : float, optional
        A run with at least this value counts as having solved the task.
    note : str
        How to read the values, and their source.

    Examples
    --------
    >>> rows = [record("w", "nextlat", s, value=v, trials=100) for s, v in enumerate([0.9, 1.0])]
    >>> rows += [record("w", "next_token", s, value=v, trials=100) for s, v in enumerate([0.5, 0.7])]
    >>> valid = Measure("valid trajectories", pd.DataFrame(rows), better="higher", solved=0.99)
    >>> valid.summary()[["objective", "seeds", "mean", "solved"]].values.tolist()
    [['nextlat', 2, 0.95, 0.5], ['next_token', 2, 0.6, 0.0]]
    >>> round(float(valid.compare("nextlat", "next_token")["difference"].iloc[0]), 3)
    0.35
    """

    name: str
    table: pd.DataFrame
    by: tuple[str, ...] = ()
    unit: str | Mapping[str, str] = "share"
    better: Literal["higher", "lower", ""] = ""
    references: Mapping[str, float] = field(default_factory=dict)
    solved: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        table = self.table.reset_index(drop=True)
        for column in (*RUN, *self.by, "value"):
            one_of("column of a measure's table", column, table.columns)
        for column, value in {"error": np.nan, "trials": 0}.items():
            if column not in table:
                table[column] = value
        table["seed"] = table["seed"].astype("Int64")
        rest = [column for column in table if column not in (*RUN, *self.by, *SCORE)]
        object.__setattr__(self, "table", table[[*RUN, *self.by, *SCORE, *rest]])

    def to_frame(self) -> pd.DataFrame:
        """Return the table with the measure's name and unit in every row, so that several measures can be stacked."""
        table = self.table.copy()
        table.insert(0, "measure", self.name)
        unit = self.unit if isinstance(self.unit, str) else table[QUANTITY].map(self.unit)
        table.insert(table.columns.get_loc("value") + 1, "unit", unit)
        return table

    def summary(self, confidence: float = CONFIDENCE) -> pd.DataFrame:
        """Return a row per world, objective and setting, over its seeds.

        Returns
        -------
        DataFrame
            ``seeds``, ``mean``, its interval ``low`` to ``high`` by Student's t over seeds (NaN for one seed), the
            ``lowest`` and ``highest`` seed, and, where the measure says what solves the task, the share ``solved``.
        """
        rows = []
        keys = ["world", "objective", *self.by]
        for values, runs in self.table.groupby(keys, sort=False, dropna=False):
            scores = runs["value"].to_numpy(float)
            mean, low, high = interval(scores, confidence)
            row = dict(zip(keys, values, strict=True)) | {"seeds": scores.size, "mean": mean, "low": low, "high": high}
            row |= {"lowest": scores.min(), "highest": scores.max()}
            if self.solved is not None:
                row["solved"] = float((scores >= self.solved).mean())
            rows.append(row)
        return pd.DataFrame(rows)

    def compare(
        self, objective: str = "nextlat", baseline: str = "next_token", confidence: float = CONFIDENCE
    ) -> pd.DataFrame:
        """Compare two objectives seed by seed: runs of one seed share their episodes and their first weights.

        Returns
        -------
        DataFrame
            A row per world and setting: the number of ``seeds`` that both have, mean ``difference`` (objective minus
            baseline), its interval ``low`` to ``high`` by Student's t over the pairs, and ``above``, the number of
            seeds with a difference over 0.

        Raises
        ------
        UnknownNameError
            If the measure has no run of one of the two objectives.
        ValueError
            If the two have no seed in common.
        """
        keys = ["world", *self.by, "seed"]
        mine, other = (self._by_seed(name, dropna=True) for name in (objective, baseline))
        both = pd.concat([mine, other], axis=1, keys=["mine", "other"], join="inner").reset_index()
        if both.empty:
            raise ValueError(
                f"{objective} and {baseline} have no seed in common, so their runs cannot be paired: measure runs of "
                "the same seeds"
            )
        both["difference"] = both["mine"] - both["other"]
        rows = []
        for values, pairs in both.groupby(keys[:-1], sort=False, dropna=False):
            mean, low, high = interval(pairs["difference"].to_numpy(float), confidence)
            row = dict(zip(keys[:-1], values, strict=True)) | {"seeds": len(pairs), "difference": mean}
            rows.append(row | {"low": low, "high": high, "above": int((pairs["difference"] > 0).sum())})
        return pd.DataFrame(rows)

    def relative_to(self, baseline: str = "next_token") -> Measure:
        """Subtract the value of the baseline, seed by seed. Of `probe_sweep` it is figure 8 of the paper.

        Returns
        -------
        Measure
            A row for each run of another objective. The error is NaN, because runs of one seed share their held-out
            rows.

        Raises
        ------
        UnknownNameError
            No run of objective `baseline`.
        ValueError
            Only runs of `baseline`, or none of a seed that another objective has.
        """
        reference = self._by_seed(baseline, dropna=False).rename("_baseline").reset_index()
        others = self.table[self.table["objective"] != baseline]
        others = others.merge(reference, on=["world", *self.by, "seed"], how="left")
        if others.empty:
            raise ValueError(f"all runs are of {baseline}: give runs of another objective too, of the same seeds")
        unpaired = others[others["_baseline"].isna()]
        if len(unpaired):
            world, seed, objective = unpaired[["world", "seed", "objective"]].iloc[0]
            raise ValueError(
                f"{baseline} has no run of world {world!r} and seed {seed}, which {objective} has: give "
                f"runs of {baseline} with the same seeds, sites and offsets"
            )
        others["value"] -= others.pop("_baseline")
        return Measure(
            f"{self.name}, minus {baseline}",
            others.assign(error=np.nan).drop(columns=[name for name in CONTROLS if name in others]),
            self.by,
            self.unit if self.unit == "nats" else f"{self.unit}, difference",
            self.better,
            {baseline: 0.0},
            note=f"Each run minus the run of {baseline} with its seed, on the same held-out rows. {self.note}",
        )

    def _by_seed(self, objective: str, dropna: bool) -> pd.Series:
        """Return the values of an objective by world, setting and seed."""
        one_of("objective", objective, self.table["objective"].unique())
        rows = self.table[self.table["objective"] == objective]
        # A seed may have several rows, such as snapshots that are not in `by`: their mean is paired.
        return rows.groupby(["world", *self.by, "seed"], sort=False, dropna=dropna)["value"].mean()

    def plot(self, **options: Any) -> Figure:
        """Draw every run and the mean of each objective. Options as for ``figures.measure_figure``."""
        return display.drawer("measure", "nextlat_viz.figures.measures")(self, **options)

    def __add__(self, other: Measure) -> Measure:
        """Join two tables of the same measure."""
        if (self.name, self.by, self.unit) != (other.name, other.by, other.unit):
            raise ValueError(f"{self.name!r} and {other.name!r} are different measures and cannot be added")
        return replace(self, table=pd.concat([self.table, other.table], ignore_index=True))

    def __repr__(self) -> str:
        shown = self.table.to_string(index=False, float_format=lambda value: f"{value:.4g}", max_rows=30)
        return f"{self.name} ({self._units()})\n{shown}"

    def _units(self) -> str:
        unit = self.unit if isinstance(self.unit, str) else "one unit per quantity"
        return unit + (f", {self.better} is better" if self.better else "")

    def _repr_html_(self) -> str:
        summary = self.summary()
        rows = {}
        for _, row in summary.iterrows():
            setting = ", ".join(f"{name} {_short(row[name])}" for name in self.by)
            key = " · ".join(part for part in (str(row["objective"]), setting) if part)
            value = f"{row['mean']:.4g}"
            if row["seeds"] > 1:
                value += f"  ({row['lowest']:.4g} to {row['highest']:.4g}, {row['seeds']} seeds)"
            if self.solved is not None:
                value += f", solved by {row['solved']:.0%}"
            rows[key] = value
        rows |= {name: f"{value:.4g}" for name, value in self.references.items()}
        return display.table(f"{self.name} ({self._units()})", rows, self.note)


def interval(scores: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Return the mean and its confidence interval by Student's t; the interval of a single score is NaN.

    Examples
    --------
    >>> [round(x, 3) for x in interval([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484]
    """
    scores = np.asarray(scores, dtype=np.float64)
    mean = float(scores.mean())
    if scores.size < 2:
        return mean, float("nan"), float("nan")
    from scipy.stats import t

    half = float(t.ppf((1 + confidence) / 2, scores.size - 1) * scores.std(ddof=1) / np.sqrt(scores.size))
    return mean, mean - half, mean + half


def record(world: str, objective: str, seed: int | None, model: str = "", **values: Any) -> dict[str, Any]:
    """Return a row of a measure's table; a model without a name is named by world, objective and seed."""
    name = model or "/".join([world, objective] + ([] if seed is None else [f"seed{seed}"]))
    return {"model": name, "world": world, "objective": objective, "seed": pd.NA if seed is None else seed, **values}


def share(hits: int, trials: int) -> dict[str, float | int]:
    """Return ``value``, ``error`` and ``trials`` of a share, with its binomial standard error.

    Examples
    --------
    >>> {key: round(value, 3) for key, value in share(3, 4).items()}
    {'value': 0.75, 'error': 0.217, 'trials': 4}
    """
    if not trials:
        return {"value": float("nan"), "error": float("nan"), "trials": 0}
    value = hits / trials
    return {"value": value, "error": float(np.sqrt(value * (1 - value) / trials)), "trials": trials}


def clustered(sums: Float[np.ndarray, " n"], counts: Float[np.ndarray, " n"]) -> dict[str, float | int]:
    """Return ``value = sum(sums) / sum(counts)`` over episodes, its standard ``error`` and the number of episodes.

    Positions of one episode are not independent, so the error is that of a ratio of two sums over episodes (delta
    method).

    Examples
    --------
    >>> clustered(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    {'value': 2.0, 'error': 1.0, 'trials': 2}
    """
    if not np.isfinite(sums).all():
        raise ValueError(
            f"{int((~np.isfinite(sums)).sum())} of {len(sums)} episodes or puzzles give NaN or infinity: was the "
            "learning rate too high? Measure an earlier snapshot, or another run"
        )
    # An episode whose states never move has a count of 0, and its errors count all the same.
    used = (counts > 0) | (sums != 0)
    sums, counts, n = sums[used], counts[used], int(used.sum())
    if n == 0:
        return {"value": float("nan"), "error": float("nan"), "trials": 0}
    if counts.sum() == 0:
        raise ValueError("the states of this model never change, so its error cannot be compared with no change")
    value = float(sums.sum() / counts.sum())
    if n == 1:
        return {"value": value, "error": float("nan"), "trials": 1}
    spread = np.square(sums - value * counts).sum() / (n * (n - 1))
    return {"value": value, "error": float(np.sqrt(spread) / counts.mean()), "trials": n}


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
