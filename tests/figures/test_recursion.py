"""Figures of recursive models, from answers made by hand."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pandas as pd
import pytest

from nextlat_viz import figures, worlds
from nextlat_viz.analysis.measure import Measure, record
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.latents import Thinking
from nextlat_viz.worlds import Episodes


def thinking() -> Thinking:
    """Three answers to the board with a queen on a1: two queens that attack each other, one missing, solved."""
    world = worlds.get("queens:size=5,unique=false")
    answers = ["a1 b2 e4", "a1 c2 e3 b4", "a1 c2 e3 b4 d5"]
    cells = np.zeros((1, 3, 25), np.int64)
    for step, names in enumerate(answers):
        cells[0, step, [world.cells.index(name) for name in names.split()]] = 1
    logits = np.stack([1.0 - cells, cells * 3.0], axis=-1)
    board = (np.arange(25) == 0).astype(np.int64)[None]
    return Thinking(world, Episodes(board, targets=cells[:, -1]), logits, None, trained=2)


def by_role(figure, role):
    return [trace for trace in figure.data if trace.meta["role"] == role]


def test_boards_show_answers_conflicts_and_changes():
    figure = figures.thinking_boards({"mine": thinking()})
    headings = [note.text for note in figure.layout.annotations[:3]]
    assert headings == [
        "<b>step 1</b><br>2 changed<br>1 conflict",
        "<b>step 2</b><br>5 changed<br>1 cell off",
        "<b>step 3†</b><br>1 changed<br>solved",
    ]
    assert figure.layout.annotations[-1].text.endswith("† Not taken in training.")
    lines = by_role(figure, "conflicts")
    assert [int(np.isfinite(trace.x).sum()) for trace in lines] == [2, 0, 0]
    frames = by_role(figure, "changed")
    assert [int(np.isnan(trace.x).sum()) for trace in frames] == [2, 5, 1]
    # Answered queens without the given one, each with a gap after its crown.
    assert [int(np.isnan(trace.x).sum()) for trace in by_role(figure, "answer")] == [2, 3, 4]
    assert {int(np.isnan(trace.x).sum()) for trace in by_role(figure, "given")} == {1}
    heat = by_role(figure, "queen")[0]
    assert heat.z[0][0] == pytest.approx(1 / (1 + np.exp(-3)))
    assert heat.z[0][1] == pytest.approx(1 / (1 + np.exp(1)))


def test_boards_of_several_models_at_a_step():
    figure = figures.thinking_boards({"<b>mine": thinking(), "other": thinking()}, steps=2)
    assert [note.text.split("<br>")[0] for note in figure.layout.annotations[:2]] == [
        "<b>&lt;b&gt;mine</b>",
        "<b>other</b>",
    ]
    assert figure.layout.xaxis2.domain[0] > figure.layout.xaxis.domain[1]


def test_missing_boards_are_refused():
    with pytest.raises(ValueError, match="puzzle=1: there are 1, from 0"):
        figures.thinking_boards({"mine": thinking()}, 1)
    with pytest.raises(ValueError, match="step 4 of mine: there are steps 1 to 3"):
        figures.thinking_boards({"mine": thinking()}, steps=[1, 4])
    other = Thinking(worlds.get("rrxor"), thinking().puzzles, thinking().logits, None, 2)
    with pytest.raises(ValueError, match="the answers of mine are to world 'rrxor', and boards are of 'queens'"):
        figures.thinking_boards({"mine": other})


def measures() -> tuple[Measure, Measure]:
    solved, margins = [], []
    for seed in (0, 1):
        for step, (share, margin) in enumerate([(0.1, 4.0), (0.5, -1.0), (0.5, 0.001)], start=1):
            row = {"step": step, "trained": step < 3}
            solved.append(record("queens", "dis", seed, quantity="solved", passes=3 * step, value=share, **row))
            margins.append(record("queens", "dis", seed, cells="all", value=margin, **row))
    solved.append(record("queens", "one_pass", 0, quantity="solved", step=1, passes=3, trained=True, value=0.2))
    solved.append(record("queens", "one_pass", 0, quantity="distance", step=1, passes=3, trained=True, value=9.0))
    margins.append(record("queens", "one_pass", 0, cells="all", step=1, trained=True, value=5.0))
    return (
        Measure("solved by step", pd.DataFrame(solved), ("step", "quantity")),
        Measure("advantage margin", pd.DataFrame(margins), ("step", "cells")),
    )


def test_curves_are_dotted_past_training_and_mark_its_last_step():
    figure = figures.thinking_curves(*measures(), cursor=2)
    runs = by_role(figure, "run")
    assert [list(trace.x) for trace in runs] == [[1, 2], [1, 2], [1]]
    later = by_role(figure, "untrained")
    assert [(list(trace.x), trace.line.dash) for trace in later] == [([2, 3], "dot")] * 2
    assert [(trace.x[0], trace.y[0]) for trace in by_role(figure, "end")] == [(2, 0.5), (2, 0.5), (1, 0.2)]
    assert [list(trace.y) for trace in by_role(figure, "mean")] == [[0.1, 0.5]]
    assert [trace.name for trace in figure.data if trace.showlegend] == ["DIS", "one pass"]
    assert [shape.x0 for shape in figure.layout.shapes if shape.line.color == "#DC267F"] == [2, 2]


def test_margins_are_shares_of_the_largest_and_open_where_negative():
    figure = figures.thinking_curves(*measures())
    first, *_, last = by_role(figure, "margin")
    assert list(first.y) == pytest.approx([1, 0.25, 0.00025])
    assert list(first.marker.symbol) == ["circle", "circle-open", "circle"]
    assert list(first.customdata) == [4.0, -1.0, 0.001]
    assert list(last.y) == [1]


def test_curves_at_equal_compute(monkeypatch):
    figure = figures.thinking_curves(measures()[0], x="passes", cursor=2)
    assert list(by_role(figure, "run")[0].x) == [3, 6]
    assert figure.layout.xaxis.title.text == "forward passes of the network"
    # Steps of different models are not at the same pass.
    assert not figure.layout.shapes
    # Without shape checks, as a user runs it, so that our own error is raised.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(UnknownNameError, match="unknown x 'seconds'"):
        figures.thinking_curves(measures()[0], x="seconds")
