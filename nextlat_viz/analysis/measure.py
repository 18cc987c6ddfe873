"""What a measure found: a row per model and setting, with its uncertainty, over every seed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from nextlat_viz.analysis._report import html_table
from nextlat_viz.errors import unknown

if TYPE_CHECKING:
    from nextlat_viz.plotting import Figure

WHO = ("model", "world", "objective", "seed")
FOUND = ("value", "error", "trials")
QUANTITY = "quantity"
CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Measure:
    """One measure over one or several models.

    Attributes
    ----------
    name : str
        Such as ``"detour robustness"``.
    table : DataFrame
        A row per model and setting: ``model, world, objective, seed`` (NA for what is no run), a column for each
        setting in `by`, ``value``, its standard ``error`` (NaN where there is none) from ``trials``, and whatever else
        the measure counts. Nothing is left out: every seed, and every trial that failed.
    by : tuple of str
        Names of the settings, the one drawn along the axis first, such as ``("p", "kind")``.
    unit : str or dict of str to str
        What ``value`` is in: ``"share"``, ``"nats"``, ``"directions"``. Of several quantities, one each by its name in
        the setting ``quantity``.
    better : {"higher", "lower", ""}
        Which way is good; "" where neither is.
    references : dict of str to float
        Values to see it beside: what the true world scores, chance.
    solved : float, optional
        A run is counted as one that solves the task from this value on.
    note : str
        How to read it, and where it comes from.

    Examples
    --------
    >>> rows = [record("w", "nextlat", s, value=v, trials=100) for s, v in enumerate([0.9, 1.0])]
    >>> rows += [record("w", "next_token", s, value=v, trials=100) for s, v in enumerate([0.5, 0.7])]
    >>> found = Measure("valid trajectories", pd.DataFrame(rows), better="higher", solved=0.99)
    >>> found.summary()[["objective", "seeds", "mean", "solved"]].values.tolist()
    [['nextlat', 2, 0.95, 0.5], ['next_token', 2, 0.6, 0.0]]
    >>> round(float(found.compare("nextlat", "next_token")["difference"].iloc[0]), 3)
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
        for column in (*WHO, *self.by, "value"):
            if column not in table:
                raise unknown("column of a measure's table", column, map(str, table.columns))
        for column, value in {"error": np.nan, "trials": 0}.items():
            if column not in table:
                table[column] = value
        table["seed"] = table["seed"].astype("Int64")
        rest = [column for column in table if column not in (*WHO, *self.by, *FOUND)]
        object.__setattr__(self, "table", table[[*WHO, *self.by, *FOUND, *rest]])

    def to_frame(self) -> pd.DataFrame:
        """Return the table, the measure's name and unit beside every row; of several measures it can be stacked."""
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
            ``lowest`` and ``highest`` seed, and, where the measure has a mark for it, the share of runs ``solved``.
        """
        rows = []
        keys = ["world", "objective", *self.by]
        for values, its in self.table.groupby(keys, sort=False, dropna=False):
            scores = its["value"].to_numpy(float)
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
        """Compare two objectives seed by seed: runs of one seed saw the same episodes from the same first weights.

        Returns
        -------
        DataFrame
            A row per world and setting: ``seeds`` that both have, mean ``difference`` (objective minus baseline), its
            interval ``low`` to ``high`` by Student's t over the pairs, and in how many of the seeds it is ``above``.

        Raises
        ------
        UnknownNameError
            If the measure has no run of one of the two.
        ValueError
            If they have no seed in common.
        """
        known = self.table["objective"].unique()
        for name in (objective, baseline):
            if name not in known:
                raise unknown("objective", name, map(str, known))
        keys = ["world", *self.by, "seed"]
        # Of what is measured several times for a seed, such as snapshots left out of `by`, the mean is paired.
        one, other = (
            self.table[self.table["objective"] == name].groupby(keys, sort=False)["value"].mean()
            for name in (objective, baseline)
        )
        both = pd.concat([one, other], axis=1, keys=["one", "other"], join="inner").reset_index()
        if both.empty:
            raise ValueError(
                f"{objective} and {baseline} have no seed in common, so their runs cannot be paired: measure runs of "
                "the same seeds"
            )
        both["difference"] = both["one"] - both["other"]
        rows = []
        for values, its in both.groupby(keys[:-1], sort=False, dropna=False):
            mean, low, high = interval(its["difference"].to_numpy(float), confidence)
            row = dict(zip(keys[:-1], values, strict=True)) | {"seeds": len(its), "difference": mean}
            rows.append(row | {"low": low, "high": high, "above": int((its["difference"] > 0).sum())})
        return pd.DataFrame(rows)

    def plot(self, **options: Any) -> Figure:
        """Draw every run, and the mean of each objective; ``figures.measure`` says what can be asked for."""
        # Figures come after analysis: the one arrow back, followed only when a result is asked to show itself.
        figure: Figure = importlib.import_module("nextlat_viz.figures").measure(self, **options)
        return figure

    def __add__(self, other: Measure) -> Measure:
        """The same measure of other models, one table."""
        if (self.name, self.by, self.unit) != (other.name, other.by, other.unit):
            raise ValueError(f"{self.name!r} and {other.name!r} are different measures: they do not add")
        return replace(self, table=pd.concat([self.table, other.table], ignore_index=True))

    def __repr__(self) -> str:
        shown = self.table.to_string(index=False, float_format=lambda value: f"{value:.4g}", max_rows=30)
        return f"{self.name} ({self._said()})\n{shown}"

    def _said(self) -> str:
        unit = self.unit if isinstance(self.unit, str) else "each in its own unit"
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
        return html_table(f"{self.name} ({self._said()})", rows, self.note)


def interval(scores: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Mean and its interval by Student's t; the interval of a single score is unknown, NaN.

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


def record(world: str, objective: str, seed: int | None, model: str = "", **found: Any) -> dict[str, Any]:
    """Return a row of a measure's table; the model is called by world, objective and seed unless it has a name."""
    name = model or "/".join([world, objective] + ([] if seed is None else [f"seed{seed}"]))
    return {"model": name, "world": world, "objective": objective, "seed": pd.NA if seed is None else seed, **found}


def share(hits: int, trials: int) -> dict[str, float | int]:
    """Return ``value``, ``error`` and ``trials`` of a share, with its binomial standard error.

    Examples
    --------
    >>> {key: round(value, 3) for key, value in share(3, 4).items()}
    {'value': 0.75, 'error': 0.217, 'trials': 4}
    """
    value = hits / trials if trials else float("nan")
    return {"value": value, "error": float(np.sqrt(value * (1 - value) / trials)) if trials else float("nan")} | {
        "trials": trials
    }


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
