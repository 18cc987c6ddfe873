"""Claims about next-latent prediction, by world: each with every seed, its controls and a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from nextlat_viz.analysis.measure.tables import results
from nextlat_viz.errors import one_of, shown

HOLDS, REVERSED, UNDECIDED = "holds", "does not hold", "undecided"
# Significance level of the one-sided test, with five seeds a side or with three.
_LEVEL = 0.05
_BEST = "true world"


@dataclass(frozen=True)
class Claim:
    """A claim about NextLat and next-token models of a world, and the results it is judged by.

    Attributes
    ----------
    text : the claim.
    world, measure : as in the table of `nextlat_viz.evaluate`; worlds of one name by their titles.
    where : settings of the measure.
    baseline : settings for next-token models, where they differ.
    objective : name of the NextLat models in the table, such as ``"nextlat, horizon 4"``.
    better : ``"higher"`` or ``"lower"``; ``"same"`` where no difference is claimed.
    unit : of the values.
    controls : by name: settings of the measure, the column of a control, or a number.
    paper : what was published, arXiv:2511.05963.
    margin : largest difference of the means that counts as none.
    """

    text: str
    world: str
    measure: str
    where: Mapping[str, Any]
    unit: str
    better: str = "higher"
    baseline: Mapping[str, Any] | None = None
    controls: Mapping[str, Mapping[str, Any] | str | float] = field(default_factory=dict)
    paper: str = "not measured"
    margin: float = 0.02
    objective: str = "nextlat"


_BELIEF: dict[str, Any] = {
    "measure": "belief",
    "where": {"reader": "hidden state"},
    "unit": "R²",
    "controls": {"untrained": {"reader": "untrained model"}, "shuffled labels": {"reader": "shuffled labels"}},
}


def _tracks(times: str, length: int) -> Claim:
    return Claim(
        f"Psi alone tracks the state at {times} the training length",
        "s3",
        "state_tracking",
        {"length": length, "reader": "psi"},
        "right products",
        baseline={"length": length, "reader": "transformer"},
        controls={
            "NextLat's transformer": {"length": length, "reader": "transformer", "objective": "nextlat"},
            "chance": 1 / 6,
        },
        paper="A5, three times: over 95 %",
    )


_GRID = "taxi:max_turns=18,width=8,height=8"
_CITY = "taxi:city=helsinki,max_turns=35"
_AHEAD: dict[str, Any] = {
    "measure": "tokens_ahead",
    "unit": "nats",
    "better": "lower",
    "controls": {"untrained": "untrained", "frequencies": "prior"},
    "paper": "lower (figure 8)",
}
# The text preset's horizon is 1.
_TEXT = {1: "nextlat", 4: "nextlat, horizon 4"}
CLAIMS = (
    Claim("NextLat's states hold the belief, at the same loss", "rrxor", **_BELIEF),
    Claim("No difference where the next token needs the belief", "z1r", better="same", **_BELIEF),
    Claim("No difference where the next token needs the belief", "mess3", better="same", **_BELIEF),
    Claim(
        "NextLat chooses the arm that leads to the goal",
        "path_star",
        "path_accuracy",
        {"part": "path", "decoding": "greedy"},
        "exact paths",
        controls={"chance": 0.5},
        paper="G(2,10): 97 against 49 %",
    ),
    Claim(
        "NextLat's equations reach the target",
        "countdown",
        "equation_validity",
        {"part": "answer"},
        "right answers",
        paper="four numbers: 57.6 against 33.1 %",
    ),
    _tracks("twice", 20),
    _tracks("three times", 30),
    Claim(
        "NextLat's states are more compact",
        _GRID,
        "latent_geometry",
        {"quantity": "effective_rank"},
        "effective rank",
        better="lower",
        paper="52.7 against 160.1",
    ),
    Claim(
        "NextLat continues alike after all routes to a state",
        _GRID,
        "compression_vafa",
        {},
        "pairs",
        controls={_BEST: 1.0},
        paper="0.71 against 0.65",
    ),
    Claim("NextLat's rides arrive more often", _GRID, "valid_trajectories", {}, "rides", paper="98.7 against 97.0 %"),
    Claim("NextLat's rides arrive more often", _CITY, "valid_trajectories", {}, "rides", paper="98.7 against 97.0 %"),
    Claim("NextLat's moves are legal more often", "othello", "next_token_test", {}, "likeliest moves"),
    Claim(
        "NextLat's states hold more of the board",
        "othello",
        "board",
        {"site": "hidden", "discs": "mine, theirs"},
        "squares",
        controls={"untrained": "untrained", "shuffled boards": "shuffled", "frequencies": "prior"},
    ),
    Claim("NextLat's states know more of the token 4 ahead", "story", where={"offset": 4}, **_AHEAD),
    Claim("NextLat's states know more of the token 20 ahead", "story", where={"offset": 20}, **_AHEAD),
    *(
        Claim(
            f"In text, NextLat's states (d = {d}) know more of the token {k} ahead",
            "text",
            where={"offset": k},
            objective=objective,
            **_AHEAD,
        )
        for d, objective in _TEXT.items()
        for k in (4, 20)
    ),
)


def claims(table: Any = None) -> pd.DataFrame:
    """Judge every claim about next-latent prediction by all seeds of a table of results.

    Parameters
    ----------
    table : Evaluation or DataFrame, optional
        What ``nextlat_viz.evaluate`` returns, or its table; by default the results of the shipped checkpoints.

    Returns
    -------
    DataFrame
        A row per claim whose results are in the table: ``claim, world, measure, unit, better``; ``next_token`` and
        ``nextlat``, tuples with the value of every seed; ``controls``, a dict of mean values by name; ``paper``, the
        published result; ``compute``, the operations of NextLat's training relative to those of next-token's, NaN where
        they were not measured; ``p``, of a one-sided Mann-Whitney test that NextLat is better; and ``verdict``. A claim
        holds if p is at most 0.05, does not hold if p of the reverse is at most 0.05, and is undecided otherwise. Two
        seeds a side cannot decide, and a claim is undecided where NextLat's mean is no better than a control. A claim
        of no difference holds if the means differ by less than 0.02.

    Raises
    ------
    TypeError
        If `table` is not one.
    UnknownNameError
        If a column is missing.

    Examples
    --------
    >>> judged = claims().set_index("world")
    >>> judged.loc["rrxor", "verdict"], len(judged.loc["rrxor", "nextlat"])
    ('holds', 5)
    """
    measured = results() if table is None else getattr(table, "table", table)
    if not isinstance(measured, pd.DataFrame):
        raise TypeError(f"table must be a table of results, such as nlv.evaluate(...).table, got {shown(table)}")
    for name in ("measure", "world", "objective", "seed", "value"):
        one_of("column of the table of results", name, measured.columns)
    rows = []
    for claim in CLAIMS:
        taken = measured[(measured["measure"] == claim.measure) & (measured["world"] == claim.world)]
        first = _values(taken, "next_token", claim.where if claim.baseline is None else claim.baseline)
        second = _values(taken, claim.objective, claim.where)
        if not (first and second):
            continue
        controls = {name: _control(taken, source, claim) for name, source in claim.controls.items()}
        p, verdict = _judged(first, second, claim)
        # The true world is an upper bound, not a control to beat.
        beaten = (_better(float(np.mean(second)), value, claim) for name, value in controls.items() if name != _BEST)
        if verdict == HOLDS and not all(beaten):
            verdict = UNDECIDED
        rows.append(
            {
                "claim": claim.text,
                "world": claim.world,
                "measure": claim.measure,
                "unit": claim.unit,
                "better": claim.better,
                "next_token": first,
                "nextlat": second,
                "controls": controls,
                "paper": claim.paper,
                "compute": _compute(measured[measured["world"] == claim.world], claim.objective),
                "p": p,
                "verdict": verdict,
            }
        )
    return pd.DataFrame(rows)


_HEADINGS = (
    *("claim", "world", "measure", "next-token, every seed", "NextLat, every seed", "controls"),
    *("compute", "paper", "verdict"),
)


def claims_markdown(judged: pd.DataFrame) -> str:
    """Write the table of `claims` as Markdown: every seed of every claim.

    Examples
    --------
    >>> print(claims_markdown(claims()).splitlines()[0])
    | claim | world | measure | next-token, every seed | NextLat, every seed | controls | compute | paper | verdict |
    """
    lines = [
        f"| {' | '.join(_HEADINGS)} |",
        "|" + "---|" * len(_HEADINGS),
    ]
    for row in judged.to_dict("records"):
        controls = ", ".join(f"{name} {_number(value)}" for name, value in row["controls"].items())
        measure = f"{row['measure'].replace('_', ' ')}, {row['unit']}"
        seeds = [" ".join(map(_number, row[name])) for name in ("next_token", "nextlat")]
        cells = [row["claim"], f"`{row['world']}`", measure, *seeds, controls or "none"]
        cells += [f"{row['compute']:.2f}", row["paper"]]
        lines.append(f"| {' | '.join(cells)} | **{row['verdict']}** |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-0.000", "0.000") if abs(value) < 10 else f"{value:.1f}"


def _where(rows: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    for name, value in settings.items():
        rows = rows[rows[name] == value] if name in rows else rows[:0]
    return rows


def _values(rows: pd.DataFrame, objective: str, settings: Mapping[str, Any]) -> tuple[float, ...]:
    chosen = _where(rows[rows["objective"] == objective], settings)
    return tuple(map(float, chosen.sort_values("seed")["value"]))


def _compute(rows: pd.DataFrame, objective: str) -> float:
    """Mean operations of NextLat's trainings over those of next-token's."""
    sides, spent = ("next_token", objective), rows[rows["measure"] == "training_cost"]
    cost = [_values(spent, name, {"quantity": "training"}) for name in sides]
    return float(np.mean(cost[1]) / np.mean(cost[0])) if all(cost) else float("nan")


def _control(rows: pd.DataFrame, source: Mapping[str, Any] | str | float, claim: Claim) -> float:
    if isinstance(source, str):
        return float(_where(rows, claim.where)[source].mean())
    return float(_where(rows, source)["value"].mean()) if isinstance(source, Mapping) else float(source)


def _better(value: float, control: float, claim: Claim) -> bool:
    return value < control if claim.better == "lower" else value > control


def _judged(first: tuple[float, ...], second: tuple[float, ...], claim: Claim) -> tuple[float, str]:
    from scipy.stats import mannwhitneyu

    if claim.better == "same":
        p = float(mannwhitneyu(second, first).pvalue)
        return p, HOLDS if abs(np.mean(second) - np.mean(first)) < claim.margin else REVERSED
    sides = ("greater", "less") if claim.better == "higher" else ("less", "greater")
    p, opposite = (float(mannwhitneyu(second, first, alternative=side).pvalue) for side in sides)
    return p, HOLDS if p <= _LEVEL else REVERSED if opposite <= _LEVEL else UNDECIDED
