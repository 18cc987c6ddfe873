from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nextlat_viz import worlds
from nextlat_viz.analysis.behaviour.reconstruction import MapReconstruction
from nextlat_viz.figures.reconstruction import reconstruction
from nextlat_viz.plotting import Figure


@pytest.fixture(scope="module")
def world() -> Any:
    return worlds.get("taxi", width=3, height=3)


@pytest.fixture(scope="module")
def result(world: Any) -> MapReconstruction:
    used = np.ones(world.streets.n_edges, bool)
    used[[0, 5]] = False
    placed = np.array([True, True, False])
    return MapReconstruction("<i>mine</i> $", used, np.array([[0, 4, 4], [8, 0, 1]]), placed, placed, 1)


def part(figure: Any, role: str) -> Any:
    (output,) = [trace for trace in figure.data if (trace.meta or {}).get("role") == role]
    return output


def lines(trace: Any) -> list[tuple[float, ...]]:
    """Return each street as x and y of its two ends."""
    x, y = (np.asarray(values, float).reshape(-1, 3) for values in (trace.x, trace.y))
    assert np.isnan(x[:, 2]).all()
    return [tuple(row) for row in np.concatenate([x[:, :2], y[:, :2]], axis=1).tolist()]


def test_every_street_is_drawn_once_by_its_kind(world: Any, result: MapReconstruction) -> None:
    figure = reconstruction(result, world)
    assert isinstance(figure, Figure)
    streets = world.streets
    edges = [tuple(edge) for edge in streets.edges.tolist()]
    expected: dict[bool, list[tuple[float, ...]]] = {True: [], False: []}
    for (a, b), used in zip(edges, result.used.tolist(), strict=True):
        share = 0.5 if (b, a) in edges else 1.0
        ends = [(at[a], at[a] + share * (at[b] - at[a])) for at in (streets.x, streets.y)]
        expected[used].append((*ends[0], *ends[1]))
    np.testing.assert_allclose(lines(part(figure, "true")), expected[True])
    np.testing.assert_allclose(lines(part(figure, "unused")), expected[False])
    bent = part(figure, "invented")
    x, y = (np.asarray(values, float).reshape(-1, 4) for values in (bent.x, bent.y))
    assert np.isnan(x[:, 3]).all()
    for at, values in ((streets.x, x), (streets.y, y)):
        np.testing.assert_array_equal(values[:, [0, 2]], at[result.invented[:, [0, 2]]])
    # The first street leads one block north and one east: its middle is south-east of the straight line.
    assert x[0, 1] > (x[0, 0] + x[0, 2]) / 2
    assert y[0, 1] < (y[0, 0] + y[0, 2]) / 2
    heads = part(figure, "heads")
    assert list(heads.hovertext) == ["invented: S from 1,1 to 2,2", "invented: N from 3,3 to 1,2"]
    np.testing.assert_allclose(heads.marker.angle, [45, np.rad2deg(np.arctan2(-2, -1))], atol=15)


def test_the_three_kinds_differ_without_colour(world: Any, result: MapReconstruction) -> None:
    figure = reconstruction(result, world)
    looks = {(part(figure, role).line.width, part(figure, role).line.dash) for role in ("true", "unused", "invented")}
    assert len(looks) == 3
    assert len({dash for _, dash in looks}) == 3


def test_names_are_escaped_and_streets_counted(world: Any, result: MapReconstruction) -> None:
    figure = reconstruction(result, world)
    assert figure.layout.title.text == "Streets implied by 3 rides of &lt;i&gt;mine&lt;/i&gt; &#36;"
    assert [note.text for note in figure.layout.annotations] == ["1 of 3 rides could not be placed on the map."]
    names = [trace.name for trace in figure.data if trace.showlegend]
    assert names == [
        "true streets, not used: 2",
        f"true streets, used: {world.streets.n_edges - 2}",
        "invented streets: 2",
    ]
    assert reconstruction(result, world, title="Mine", width=400, height=300).layout.title.text == "Mine"


def test_a_part_without_a_street_stays_in_the_legend(world: Any) -> None:
    none = np.zeros((0, 3), np.int64)
    all_used = MapReconstruction("m", np.ones(world.streets.n_edges, bool), none, np.ones(2, bool), np.ones(2, bool), 0)
    figure = reconstruction(all_used, world)
    assert len(part(figure, "unused").x) == 1
    assert part(figure, "unused").showlegend
    assert len(part(figure, "heads").x) == 0


def test_themes_and_mismatched_results(world: Any, result: MapReconstruction) -> None:
    assert reconstruction(result, world, theme="dark").layout.paper_bgcolor == "#111111"
    assert reconstruction(result, world).layout.paper_bgcolor == "rgba(0,0,0,0)"
    with pytest.raises(ValueError, match="has no streets"):
        reconstruction(result, worlds.get("rrxor"))
    with pytest.raises(ValueError, match="give the world it was made in"):
        reconstruction(result, worlds.get("taxi", width=4, height=4))
