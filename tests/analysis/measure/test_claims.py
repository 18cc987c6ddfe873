"""Claims: which rows they read, how seeds are judged, and the table and the figure of them."""

from __future__ import annotations

import html

import pandas as pd
import pytest

import nextlat_viz as nlv
from nextlat_viz import evaluation, figures
from nextlat_viz.analysis.measure.claims import CLAIMS, HOLDS, REVERSED, UNDECIDED
from nextlat_viz.errors import UnknownNameError


def results(first: list[float], second: list[float], **more: object) -> pd.DataFrame:
    """A table of results of Path-Star."""
    rows = [
        {"measure": "path_accuracy", "world": "path_star", "objective": objective, "seed": seed, "value": value}
        | {"part": "path", "decoding": "greedy"}
        | more
        for objective, values in (("next_token", first), ("nextlat", second))
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ([0.5, 0.51, 0.49, 0.5, 0.52], [0.97, 0.99, 0.5, 0.98, 0.99], HOLDS),
        ([0.97, 0.99, 0.96, 0.98, 0.99], [0.5, 0.51, 0.49, 0.5, 0.52], REVERSED),
        ([0.5, 0.6, 0.7, 0.8, 0.9], [0.55, 0.65, 0.75, 0.85, 0.95], UNDECIDED),
        ([0.1, 0.2, 0.3], [0.6, 0.7, 0.8], HOLDS),
        # Two seeds a side cannot decide.
        ([0.1, 0.2], [0.8, 0.9], UNDECIDED),
    ],
)
def test_the_verdict_is_judged_by_all_seeds(first: list[float], second: list[float], verdict: str) -> None:
    (row,) = evaluation.claims(results(first, second)).to_dict("records")
    assert row["verdict"] == verdict
    assert row["next_token"] == tuple(first)
    assert row["nextlat"] == tuple(second)
    assert row["controls"] == {"chance": 0.5}


def test_a_claim_reads_the_runs_of_its_horizon() -> None:
    table = results([3.5, 3.75, 4.0], [3.0, 2.5, 2.0], measure="tokens_ahead", world="text", offset=4)
    table = pd.concat([table, table.assign(objective=table["objective"] + ", horizon 4", value=table["value"] - 1)])
    table = table[table["objective"] != "next_token, horizon 4"].assign(untrained=5.0, prior=6.0)
    near, far = evaluation.claims(table).to_dict("records")
    assert (near["nextlat"], far["nextlat"]) == ((3.0, 2.5, 2.0), (2.0, 1.5, 1.0))
    assert near["next_token"] == far["next_token"] == (3.5, 3.75, 4.0)
    assert near["verdict"] == far["verdict"] == HOLDS


def test_only_rows_of_the_claim_count() -> None:
    table = pd.concat(
        [
            results([0.5] * 5, [0.9] * 5),
            results([0.1] * 5, [0.2] * 5, decoding="sampled"),
            results([0.1] * 5, [0.2] * 5, part="branch"),
            results([0.1] * 5, [0.2] * 5, world="other"),
        ]
    ).sample(frac=1, random_state=0)
    (row,) = evaluation.claims(table).to_dict("records")
    assert row["nextlat"] == (0.9,) * 5
    assert evaluation.claims(results([], [0.9])).empty
    assert evaluation.claims(pd.DataFrame(columns=["measure", "world", "objective", "seed", "value"])).empty


def test_better_than_next_token_but_not_than_chance_is_undecided() -> None:
    judged = evaluation.claims(results([0.3, 0.31, 0.32, 0.33, 0.34], [0.4, 0.41, 0.42, 0.43, 0.44]))
    assert judged["p"].item() < 0.01
    assert judged["verdict"].item() == UNDECIDED


def test_no_difference_holds_within_the_margin() -> None:
    def belief(low: float) -> pd.DataFrame:
        rows = results([0.99] * 5, [low] * 5, measure="belief", world="mess3", reader="hidden state")
        controls = [
            results([score] * 5, [score] * 5, measure="belief", world="mess3", reader=reader)
            for reader, score in (("untrained model", 0.9), ("shuffled labels", -0.01))
        ]
        return pd.concat([rows, *controls])

    (row,) = evaluation.claims(belief(0.985)).to_dict("records")
    assert row["verdict"] == HOLDS
    assert row["controls"] == {"untrained": pytest.approx(0.9), "shuffled labels": pytest.approx(-0.01)}
    assert evaluation.claims(belief(0.95))["verdict"].item() == REVERSED


def test_every_claim_is_measured_on_shipped_checkpoints() -> None:
    judged = nlv.claims()
    assert list(zip(judged["claim"], judged["world"], strict=True)) == [(claim.text, claim.world) for claim in CLAIMS]
    shown = evaluation.claims_markdown(judged).splitlines()
    assert len(shown) == 2 + len(CLAIMS)
    assert all(line.count("|") == 10 for line in shown)


def test_the_figure_shows_every_seed_and_every_control() -> None:
    judged = nlv.claims()
    figure = figures.claims_figure(judged)
    dots = [trace for trace in figure.data if trace.name in ("next-token", "NextLat")]
    assert sorted(value for trace in dots for value in trace.x) == pytest.approx(
        sorted(value for side in ("next_token", "nextlat") for values in judged[side] for value in values)
    )
    controls = {name for row in judged["controls"] for name in row}
    assert controls < {html.unescape(trace.name) for trace in figure.data}
    text = " ".join(note.text for note in figure.layout.annotations)
    assert all(verdict in text for verdict in judged["verdict"])
    with pytest.raises(UnknownNameError, match="column of the table of claims"):
        figures.claims_figure(judged.drop(columns="verdict"))
