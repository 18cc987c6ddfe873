from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from nextlat_viz.analysis.measure import Measure, record
from nextlat_viz.analysis.probes.sweep import ProbeSweep
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.figures.measures import measure_figure, probe_offsets


@pytest.fixture(scope="module")
def swept() -> ProbeSweep:
    rng = np.random.default_rng(0)
    rows = [
        record(
            "story", objective, seed, offset=offset, site=site, value=1 + 0.1 * offset + rng.random() / 10, error=0.01,
            trials=500, shuffled=3.0, prior=2.9, accuracy=0.4, chance=0.2,
        )
        for objective in ("next_token", "nextlat", "mtp") for seed in range(3) for site in ("block0", "hidden")
        for offset in (1, 2, 5)
    ]  # fmt: skip
    return ProbeSweep("token read ahead", pd.DataFrame(rows), ("offset", "site"), unit="nats", better="lower")


def having(figure: Any, role: str, **meta: Any) -> list[Any]:
    return [trace for trace in figure.data if trace.meta["role"] == role and meta.items() <= trace.meta.items()]


def test_every_seed_of_every_site_is_drawn(swept: ProbeSweep) -> None:
    figure = probe_offsets(swept)
    runs = having(figure, "run")
    assert len(runs) == 3 * 3 * 2
    (trace, *_) = having(figure, "run", objective="nextlat", view=1)
    rows = swept.table.query("objective == 'nextlat' and seed == 0 and site == 'hidden'")
    np.testing.assert_allclose(trace.y, rows["value"])
    assert list(trace.x) == [1, 2, 5]
    (mean,) = having(figure, "mean", objective="mtp", view=0)
    np.testing.assert_allclose(
        mean.y, swept.table.query("objective == 'mtp' and site == 'block0'").groupby("offset")["value"].mean()
    )
    assert figure.layout.xaxis2.title.text == "steps ahead"
    assert figure.layout.yaxis.title.text == "cross-entropy, nats"


def test_objectives_differ_without_colour(swept: ProbeSweep) -> None:
    means = having(probe_offsets(swept), "mean", view=0)
    assert len({trace.line.dash for trace in means}) == len({trace.marker.symbol for trace in means}) == 3


def test_controls_are_drawn_with_absolute_scores_only(swept: ProbeSweep) -> None:
    controls = having(probe_offsets(swept), "control")
    assert [trace.name for trace in controls] == ["shuffled targets", "frequencies only"] * 2
    assert list(controls[0].y) == [3.0, 3.0, 3.0]
    assert [trace.showlegend for trace in controls] == [True, True, False, False]
    accuracies = having(probe_offsets(swept.scored_by("accuracy")), "control")
    assert [trace.name for trace in accuracies] == ["frequencies only"] * 2
    assert list(accuracies[0].y) == [0.2, 0.2, 0.2]
    assert not having(probe_offsets(swept.scored_by("chance")), "control")
    figure = probe_offsets(swept.relative_to("next_token"), title="ahead of <b>")
    assert not having(figure, "control")
    assert {trace.meta["objective"] for trace in figure.data} == {"nextlat", "mtp"}
    assert figure.layout.yaxis.title.text == "nats minus next-token's"
    assert [shape.y0 for shape in figure.layout.shapes] == [0.0, 0.0]
    assert figure.layout.title.text == "ahead of &lt;b&gt;"


def test_differences_are_drawn_beside_scores_and_controls(swept: ProbeSweep) -> None:
    table = swept.table[swept.table["site"] == "hidden"]
    # A table of results, as `nlv.results()` gives it, is no sweep.
    figure = probe_offsets(Measure("tokens ahead", table, ("offset", "site"), "nats"), baseline="next_token")
    assert [note.text for note in figure.layout.annotations] == [
        "<b>cross-entropy, nats</b>", "<b>minus next-token, seed by seed</b>",
    ]  # fmt: skip
    assert [trace.name for trace in having(figure, "control")] == ["shuffled targets", "frequencies only"]
    assert {trace.meta["objective"] for trace in having(figure, "run", view=0)} == {"next_token", "nextlat", "mtp"}
    differences = having(figure, "run", view=1)
    assert len(differences) == 2 * 3
    trace, other = (
        table.query(f"objective == '{name}' and seed == 0")["value"].array for name in ("nextlat", "next_token")
    )
    np.testing.assert_allclose(differences[0].y, trace - other)
    assert (figure.layout.yaxis2.zeroline, figure.layout.yaxis.zeroline) == (True, None)
    assert figure.layout.xaxis2.title.text == "steps ahead"


def test_a_legend_of_many_names_has_room() -> None:
    names = ["next_token", *(f"{name}, horizon 4" for name in ("nextlat", "mtp", "jtp")), "nextlat"]
    rows = [
        record("text", name, 0, offset=i, value=1.0 + i, untrained=2.0, shuffled=3.0, prior=3.0)
        for name in names
        for i in (1, 2)
    ]
    few, many = (
        measure_figure(Measure("ahead", pd.DataFrame(some), ("offset",), "nats"), title="t")
        for some in (rows[:4], rows)
    )
    assert many.layout.height > few.layout.height


def test_every_view_names_its_runs_outside_the_scale() -> None:
    rows = [
        record("w", "nextlat", seed, p=p, quantity=name, value=seed * 0.01 + (9 if (name, seed) == ("b", 4) else 0))
        for name in ("a", "b") for seed in range(5) for p in (1.0, 2.0)
    ]  # fmt: skip
    figure = measure_figure(Measure("m", pd.DataFrame(rows), ("p", "quantity"), {"a": "x", "b": "y"}))
    (note,) = [note for note in figure.layout.annotations if "outside this scale" in note.text]
    assert "seed 4" in note.text
    assert note.x == 1


def test_other_tables_are_refused() -> None:
    other = Measure("m", pd.DataFrame([record("w", "nextlat", 0, value=1.0, p=0.5)]), by=("p",))
    with pytest.raises(UnknownNameError, match=r"'p'\. Known: offset"):
        probe_offsets(other)


def test_controls_are_drawn_with_layers_too() -> None:
    rows = [
        record("othello", objective, seed, site=site, discs=discs, value=0.8, untrained=0.6 + 0.1 * seed)
        for discs in ("mine, theirs", "black, white") for objective in ("next_token", "nextlat")
        for seed in (0, 1) for site in ("embed", "block_0", "hidden")
    ]  # fmt: skip
    figure = measure_figure(Measure("board", pd.DataFrame(rows), by=("site", "discs"), better="higher"))
    first, second = having(figure, "control")
    assert (list(first.x), list(first.y), first.name) == ([0, 1, 2], [pytest.approx(0.65)] * 3, "untrained model")
    assert (first.showlegend, second.showlegend, second.xaxis) == (True, False, "x2")
