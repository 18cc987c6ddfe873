"""Figures of measures show every run, and objectives differ without colour."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from nextlat_viz.analysis import Measure
from nextlat_viz.analysis.measure import record
from nextlat_viz.figures import measure_figure

SETTINGS = {
    "none": {},
    "numbers": {"p": (0.0, 0.25, 0.5)},
    "names": {"site": ("embed", "hidden")},
    "both": {"p": (0.0, 0.5), "kind": ("random", "second", "<b>")},
}


def found(settings: dict[str, tuple[object, ...]]) -> Measure:
    rows: list[dict[str, object]] = [{}]
    for name, values in settings.items():
        rows = [{**row, name: value} for row in rows for value in values]
    runs = [("nextlat", 0), ("nextlat", 1), ("next_token", 0)]
    table = [record("w", name, seed, value=0.5 + 0.1 * seed, error=0.01, trials=9, **row) for row in rows
             for name, seed in runs]  # fmt: skip
    return Measure("m", pd.DataFrame(table), by=tuple(settings), references={"true world": 1.0})


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("theme", ["auto", "light", "dark"])
def test_every_run_and_the_means_are_drawn(settings: dict[str, tuple[object, ...]], theme: str) -> None:
    first = found(settings)
    figure = first.plot(theme=theme)
    views = 3 if "kind" in settings else 1
    roles = [trace.meta["role"] for trace in figure.data]
    assert roles.count("run") == 3 * views
    assert roles.count("mean") == 2 * views
    drawn = [value for trace in figure.data if trace.meta["role"] == "run" for value in trace.y]
    assert sorted(drawn) == sorted(first.table["value"])
    assert len(figure.layout.shapes) == views
    assert figure.layout.yaxis.title.text == "share"
    assert measure_figure(first, theme=theme).to_json() == figure.to_json()


def test_objectives_differ_in_symbol_and_dash() -> None:
    figure = found(SETTINGS["numbers"]).plot()
    looks = {
        trace.meta["objective"]: (trace.marker.symbol, trace.line.dash)
        for trace in figure.data
        if trace.meta["role"] == "mean"
    }
    assert len(set(looks.values())) == 2
    assert len({symbol for symbol, _ in looks.values()}) == 2


def test_names_are_text() -> None:
    text = json.dumps(found(SETTINGS["both"]).plot().to_plotly_json(), default=str)
    assert "<b>&lt;b&gt;</b>" in text
    assert "<b><b>" not in text


def test_titles_state_the_finding() -> None:
    assert "NextLat 0.55, next-token 0.5" in found({}).plot().layout.title.text
    figure = found({"k": (1, 2), "quantity": ("kl", "merge_distance")}).plot(title="")
    assert [note.text for note in figure.layout.annotations[:2]] == ["<b>KL divergence</b>", "<b>merge distance</b>"]
    assert figure.layout.xaxis.title.text == "steps ahead"


def test_two_values_are_compared_in_a_sentence() -> None:
    two = replace(found({}), table=found({}).table.iloc[[0, 2]])
    (note,) = two.plot().layout.annotations
    assert "NextLat: 0.5 ± 0.01 (share, 9 trials)<br>next-token: 0.5" in note.text


def test_an_outlier_does_not_set_the_scale() -> None:
    rows = [record("w", "nextlat", seed, k=k, value=1.0 + seed + k) for seed in range(3) for k in (1, 2)]
    rows += [record("w", "next_token", 7, k=k, value=90.0 * k) for k in (1, 2)]
    figure = Measure("m", pd.DataFrame(rows), by=("k",), unit="nats").plot()
    assert figure.layout.yaxis.range[1] < 6
    assert any("next-token, seed 7" in note.text for note in figure.layout.annotations)
    assert 180.0 in [value for trace in figure.data for value in trace.y]


@pytest.mark.parametrize(("last", "place"), [(1.0, (1.0, "right")), (0.2, (0.0, "left"))])
def test_the_name_of_a_level_is_placed_away_from_marks(last: float, place: tuple[float, str]) -> None:
    values = np.where(np.arange(40) < 20, 1.2 - last, last)
    rows = [record("w", "nextlat", 0, length=i + 1, value=value) for i, value in enumerate(values)]
    measure = Measure("m", pd.DataFrame(rows), by=("length",), unit="share", references={"chance": 0.18})
    name = next(note for note in measure.plot().layout.annotations if note.text == "chance")
    assert (name.x, name.xanchor) == place


def test_the_name_of_a_level_is_placed_in_the_emptiest_view() -> None:
    rows = [
        record("w", "nextlat", 0, length=i + 1, reader=reader, value=0.18 + 0.02 * (i % 3) if reader == "a" else 0.9)
        for reader in ("a", "b")
        for i in range(40)
    ]
    measure = Measure("m", pd.DataFrame(rows), by=("length", "reader"), unit="share", references={"chance": 0.18})
    name = next(note for note in measure.plot().layout.annotations if note.text == "chance")
    assert (name.xref, name.yref) == ("x2 domain", "y2")


def test_a_finding_mentions_means_only_for_several_seeds() -> None:
    measure = replace(found({"p": (0.0, 0.5)}), better="higher")
    single = replace(measure, table=measure.table[measure.table["seed"] == 0])
    texts = [part.plot().layout.title.text for part in (measure, single)]
    assert ["Means over seeds" in text for text in texts] == [True, False]
