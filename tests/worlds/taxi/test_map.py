"""Street maps show every street, the path of a ride, and how often each street is used."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from nextlat_viz import worlds
from nextlat_viz.plotting import CURSOR, INK, Figure
from nextlat_viz.worlds.taxi import Streets, from_networkx, grid
from nextlat_viz.worlds.taxi.map import draw_map

CITY = grid(6, 5)


def drawn(trace: go.Scatter) -> set[frozenset[tuple[float, float]]]:
    """Return the straight lines of a trace, each as its two ends."""
    lines = np.stack([np.asarray(trace.x, float), np.asarray(trace.y, float)], axis=1).reshape(-1, 3, 2)
    assert np.isnan(lines[:, 2]).all()
    return {frozenset((tuple(start), tuple(end))) for start, end in lines[:, :2].tolist()}


def streets_between(city: Streets, edges: np.ndarray) -> set[frozenset[tuple[float, float]]]:
    return {frozenset((float(city.x[node]), float(city.y[node])) for node in edge) for edge in edges.tolist()}


def lines(figure: go.Figure, **line: Any) -> list[go.Scatter]:
    return [
        trace
        for trace in figure.data
        if trace.mode == "lines" and all(trace.line[key] == value for key, value in line.items())
    ]


def a_ride(city: Streets, moves: int) -> list[int]:
    """Take the first street that does not lead straight back."""
    path = [0]
    for _ in range(moves):
        onward = [node for node in city.turns[path[-1]].tolist() if node >= 0 and node not in path[-2:]]
        path.append(onward[0])
    return path


def test_every_street_is_on_the_map_once() -> None:
    figure = CITY.draw()
    assert isinstance(figure, Figure)
    shown = [drawn(trace) for trace in lines(figure)]
    assert sum(map(len, shown)) == len(set().union(*shown))
    assert set().union(*shown) == streets_between(CITY, CITY.edges)


def test_arrows_point_along_the_streets_that_are_one_way() -> None:
    graph = CITY.to_networkx()
    one_way = [(a, b) for a, b in graph.edges() if not graph.has_edge(b, a)]
    (heads,) = [trace for trace in CITY.draw().data if trace.marker.symbol == "triangle-up"]
    assert len(heads.x) == len(one_way)
    result = {}
    for x, y, angle in zip(heads.x, heads.y, heads.marker.angle, strict=True):
        result[x, y] = angle
    places = {name: (CITY.x[index], CITY.y[index]) for index, name in enumerate(CITY.nodes)}
    for a, b in one_way:
        middle = tuple((np.array(places[a]) + places[b]) / 2)
        bearing = 45 * ("N", "NE", "E", "SE", "S", "SW", "W", "NW").index(graph.edges[a, b]["direction"])
        assert (result[middle] - bearing) % 360 == pytest.approx(0)
    assert not [trace for trace in grid(5, 5, one_way=False).draw().data if trace.marker.symbol == "triangle-up"]


def test_a_large_city_stays_light() -> None:
    figure = draw_map(grid(60, 60))
    assert len(figure.data) == 2
    assert not [trace for trace in figure.data if trace.hovertext is not None]


@pytest.mark.parametrize("at", [None, 0, 2, 6])
def test_a_ride_is_solid_up_to_its_position_and_dotted_beyond(at: int | None) -> None:
    path = a_ride(CITY, 6)
    figure = draw_map(CITY, path, at=at)
    moves = np.array(list(itertools.pairwise(path)))
    result = 6 if at is None else at
    for dash, part in ((None, moves[:result]), ("dot", moves[result:])):
        shown = [drawn(trace) for trace in lines(figure, color=CURSOR, dash=dash)]
        assert set().union(*shown) == streets_between(CITY, part)
    marks = {trace.marker.symbol: (trace.x[0], trace.y[0]) for trace in figure.data if len(trace.x) == 1}
    for symbol, node in {"circle-open": path[0], "square-open": path[-1], None: path[result]}.items():
        assert marks[symbol] == (CITY.x[node], CITY.y[node])
    # In a small map, marks at its edge reach into the margin.
    ends = [trace for trace in figure.data if trace.marker.symbol in ("circle-open", "square-open")]
    assert [trace.cliponaxis for trace in ends] == [False, False]
    assert {trace.opacity for trace in lines(figure, color=INK)} == {0.45}


def test_a_goal_not_reached_is_marked_and_a_move_without_a_street_is_dashed() -> None:
    figure = draw_map(CITY, [0, 29], goal=7)
    (leap,) = lines(figure, color=CURSOR, dash="dash")
    assert drawn(leap) == streets_between(CITY, np.array([[0, 29]]))
    text = [note.text for note in figure.layout.annotations]
    assert f"<b>to {CITY.nodes[7]}</b>" in text
    assert f"<b>from {CITY.nodes[0]}</b>" in text


@pytest.mark.parametrize(("width", "most"), [(400, 28), (720, 9)])
def test_the_names_of_a_rides_ends_are_opaque_and_rarely_lie_on_the_ride(width: int, most: int) -> None:
    world = worlds.get("taxi", width=8, height=8)
    episodes = world.sample(40, seed=3)
    covered = 0
    for i in range(40):
        episode = episodes[i : i + 1]
        figure = world.draw(episode=episode, position=int(episode.length[0]), width=width)
        ways = [np.stack([line.x, line.y], axis=1) for line in lines(figure, color=CURSOR)]
        ends = [way[k : k + 2] for way in ways for k in range(0, len(way), 3)]
        ride = np.concatenate([a + np.linspace(0, 1, 21)[:, None] * (b - a) for a, b in ends])
        layout = figure.layout
        # As small as in a narrow panel.
        pixels = 0.35 * (width - layout.margin.l - layout.margin.r) / np.ptp(layout.xaxis.range)
        for note in layout.annotations:
            if note.xref != "paper":
                assert note.bgcolor
                half = np.array([3.4 * len(re.sub("<[^>]*>", "", note.text)), 6])
                side = {"left": 1, "center": 0, "right": -1}[note.xanchor]
                middle = np.array([note.x, note.y]) + (np.array([note.xshift + side * half[0], note.yshift])) / pixels
                covered += bool((np.abs(ride - middle) < half / pixels).all(1).any())
    # Of 80 names: a ride can surround the place where it begins.
    assert covered <= most


def test_a_ride_without_turns_and_several_rides_are_drawn() -> None:
    assert not lines(draw_map(CITY, [3], goal=4), color=CURSOR)
    both = draw_map(CITY, [a_ride(CITY, 3), a_ride(CITY, 5)])
    assert [len(drawn(trace)) for trace in lines(both, color=CURSOR)] == [3, 5]
    assert draw_map(CITY, []).layout.title.text == draw_map(CITY).layout.title.text


def test_use_is_counted_over_both_ways_of_a_street() -> None:
    use = np.arange(CITY.n_edges) % 13
    figure = draw_map(CITY, use=use)
    total: dict[frozenset[int], int] = {}
    for edge, count in zip(CITY.edges.tolist(), use.tolist(), strict=True):
        total[frozenset(edge)] = total.get(frozenset(edge), 0) + count
    bands = {}
    for trace in lines(figure):
        low, _, high = trace.name.partition(" to ")
        bands[trace.name] = [count for count in total.values() if int(low) <= count <= int(high or low)]
        assert len(drawn(trace)) == len(bands[trace.name])
    assert sum(map(len, bands.values())) == len(total)
    assert figure.layout.showlegend
    widths = [trace.line.width for trace in lines(figure)]
    assert widths == sorted(widths)


@pytest.mark.parametrize("count", [0, 1, 5, 2_000_000])
def test_streets_all_used_alike_are_one_band(count: int) -> None:
    city = grid(2, 3, one_way=False)
    (band,) = lines(draw_map(city, use=np.full(city.n_edges, count)))
    assert band.name == f"{2 * count:,}"


def test_both_axes_have_the_same_scale() -> None:
    for city in (grid(4, 4), grid(30, 3), grid(3, 30)):
        figure = draw_map(city, width=600)
        assert figure.layout.yaxis.scaleanchor == "x"
        assert figure.layout.width == 600
        assert 320 <= figure.layout.height <= 720
    assert draw_map(CITY, height=444).layout.height == 444
    # Lower than its margins: 88 pixels.
    for height in (20, 84, 90):
        assert draw_map(CITY, rides=[0, 4, 8], at=1, height=height).layout.height == height


def test_names_are_shown_as_text_and_the_map_is_credited() -> None:
    graph = grid(3, 3).to_networkx()
    names = {"1,1": "<b>$a$</b>"}
    import networkx

    city = from_networkx(networkx.relabel_nodes(graph, names), "<i>x</i>", attribution="Map © <u>us</u>")
    figure = draw_map(city, a_ride(city, 2))
    text = figure.to_json()
    assert "<i>" not in text
    assert "<u>" not in text
    assert "$a$" not in text
    assert "Map © &lt;u&gt;us&lt;/u&gt;." in figure.layout.annotations[-1].text
    assert figure.layout.title.text.startswith("&lt;i&gt;x&lt;/i&gt;: 9 intersections")
    assert draw_map(city, title="a <b>").layout.title.text == "a &lt;b&gt;"


def test_long_names_of_ends_are_in_the_caption() -> None:
    import networkx

    long = {"1,1": "Rauhankatu & Snellmaninkatu"}
    city = from_networkx(networkx.relabel_nodes(grid(3, 3).to_networkx(), long), "x")
    ride = [city.nodes.index(long["1,1"])]
    *_, end, caption = draw_map(city, ride, goal=0).layout.annotations
    assert end.text == "<b>to</b>"
    assert caption.text.startswith("From Rauhankatu &amp; Snellmaninkatu to ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rides": [0, 99]}, "a ride passes intersections 0 to 29, got 99"),
        ({"rides": [[0, 1], [-1]]}, "got -1"),
        ({"rides": [0.5, 1.0]}, "a row of indices of intersections"),
        ({"rides": [[0, 1], []]}, "at least its origin"),
        ({"rides": [0, 1], "at": 2}, "at must be an integer from 0 to 1, got 2"),
        ({"rides": [0, 1], "goal": 30}, "goal must be an intersection from 0 to 29, got 30"),
        ({"at": 1}, "at belongs to one ride, got 0"),
        ({"rides": [[0, 1], [1, 2]], "goal": 3}, "goal belongs to one ride, got 2"),
        ({"use": [1, 2]}, rf"use must be {CITY.n_edges} numbers of at least 0.*got int64 of shape \(2,\)"),
        ({"use": np.full(CITY.n_edges, -1)}, "of at least 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        draw_map(CITY, **options)
