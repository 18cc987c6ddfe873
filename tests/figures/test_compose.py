"""Figures of a paper: parts with letters, as wide as a venue's column, and legible."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from nextlat_viz import analysis, figures
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.figures.export import figure_bytes, require_new
from nextlat_viz.figures.layout import LEGEND, SIGNS, Layout, heading, legend_entries, margins
from nextlat_viz.figures.paper import LEAST_VIEW, MOST_VECTOR, SIZES, on_paper, plain_html, with_words
from nextlat_viz.figures.theme import CLASSES
from tests.synthetic import make_latents

POINTS = {name: 72 * size["inches"] / size["width"] for name, size in SIZES.items()}


def lines(*names: str) -> go.Figure:
    traces = [go.Scatter(x=[0, 1, 2], y=[i, i, i + 0.01], mode="lines", name=name) for i, name in enumerate(names)]
    return go.Figure(traces, {"height": 300, "title": {"text": "Loss"}, "xaxis": {"title": {"text": "step"}}})


def cloud(n: int) -> go.Figure:
    x, y = np.random.default_rng(0).normal(size=(2, n))
    return go.Figure(go.Scattergl(x=x, y=y, mode="markers", hovertext=["point"] * n))


def side_by_side(n: int) -> go.Figure:
    layout: dict[str, object] = {"height": 300, "margin": {"t": 30, "b": 30}}
    for i in range(n):
        number = "" if i == 0 else i + 1
        layout[f"xaxis{number}"] = {"domain": [i / n, (i + 0.8) / n], "anchor": f"y{number}"}
        layout[f"yaxis{number}"] = {"domain": [0, 1], "anchor": f"x{number}"}
    bars = [go.Bar(x=["a", "b"], y=[1, 2], xaxis=f"x{i or ''}", yaxis=f"y{i or ''}") for i in (None, *range(2, n + 1))]
    return go.Figure(bars, layout)


def texts(figure: go.Figure) -> str:
    return " ".join(note.text for note in figure.layout.annotations)


@pytest.mark.parametrize("size", SIZES)
def test_a_figure_is_as_wide_as_its_venue_with_text_that_can_be_read(size: str) -> None:
    paper = figures.compose([lines("a", "b"), cloud(50)], width=size)
    assert (paper.layout.width, paper.layout.meta["inches"]) == (SIZES[size]["width"], SIZES[size]["inches"])
    # plotly's default is 12 pixels.
    sizes = [paper.layout.font.size or 12, *(note.font.size or 12 for note in paper.layout.annotations)]
    sizes += [part.tickfont.size or 11 for part in (*paper.select_xaxes(), *paper.select_yaxes())]
    assert min(sizes) * POINTS[size] >= 6
    assert max(sizes) * POINTS[size] <= 24.01
    assert paper.layout.paper_bgcolor == "white"


def test_parts_have_letters_and_do_not_overlap() -> None:
    paper = figures.compose([lines("a", "b"), cloud(50), side_by_side(2)], width="text", columns=2)
    assert [mark in texts(paper) for mark in ("(a)", "(b)", "(c)", "(d)")] == [True, True, True, False]
    places = [tuple(axis.domain) for axis in paper.select_xaxes()]
    assert len(places) == 4
    assert places[0][1] < places[1][0]
    ups = [tuple(axis.domain) for axis in paper.select_yaxes()]
    assert ups[2][1] < ups[0][0]
    for axes in zip(paper.select_xaxes(), paper.select_yaxes(), strict=True):
        assert all(0 <= end <= 1 for axis in axes for end in axis.domain)
    assert {(trace.xaxis, trace.yaxis) for trace in paper.data} == {(f"x{i}", f"y{i}") for i in ("", 2, 3, 4)} | {
        ("x", "y")
    }
    assert "(a)" not in texts(figures.compose([cloud(5)], width="column"))


def test_few_lines_are_named_at_their_ends_and_marks_in_a_line_below() -> None:
    named = figures.compose([lines("next-token", "NextLat")], width="column")
    assert {note.text for note in named.layout.annotations if note.xref == "x domain"} == {"next-token", "NextLat"}
    heights = sorted(note.y for note in named.layout.annotations if note.xref == "x domain")
    assert heights[1] - heights[0] > 0.05
    bars = go.Figure([go.Bar(y=[1], name="mine"), go.Bar(y=[2], name="yours", marker_pattern_shape="/")])
    assert "■</span> mine" in texts(figures.compose([bars], width="column"))
    assert "▨</span> yours" in texts(figures.compose([bars], width="column"))
    assert not any(trace.showlegend for trace in named.data)
    assert legend_entries(go.Figure(layout={"showlegend": False})) == []


def bars_with_legend_row() -> go.Figure:
    layout = Layout()
    layout.view([0.0, 1.0], [0.0, 1.0], title="Next token", more="KL from exact")
    bars = [go.Bar(y=[1], name="mine"), go.Bar(y=[2], name="yours")]
    return layout.finish(bars, "auto", height=320, margin={"l": 60, "t": 90, "b": 52}, legend=LEGEND)


def names_of_corners() -> go.Figure:
    layout = Layout()
    axis = {"range": [0, 1]}
    axes = layout.view([0.0, 1.0], [0.0, 1.0], x=axis, y=axis, title="Belief")
    for x, y, shift in ((0.5, 0.93, 19), (0.5, 0.07, -19), (0.03, 0.5, 0)):
        name = {"x": x, "y": y, "yshift": shift, "text": "start", "bgcolor": "#777", "showarrow": False}
        layout.notes.append({**name, "xref": axes["xaxis"], "yref": axes["yaxis"]})
    return layout.finish([go.Scatter(x=[0.5], y=[0.5])], "auto", height=320, margin={"t": 40})


@pytest.mark.parametrize("width", [None, "column"])
def test_names_of_corners_stay_inside_their_view(width: str | None) -> None:
    paper = figures.compose([names_of_corners()], width=width)
    above, below, left = (note for note in paper.layout.annotations if note.text == "start")
    assert (above.yref, above.y, above.yanchor, above.yshift) == ("y domain", 1, "top", 0)
    assert (below.yref, below.y, below.yanchor, below.yshift) == ("y domain", 0, "bottom", 0)
    assert (left.yref, left.y, left.xanchor) == ("y", 0.5, "left")


def test_views_side_by_side_get_a_wider_column_where_a_single_view_can_still_be_read() -> None:
    first, second, single = (
        (axis.domain[1] - axis.domain[0]) * 634
        for axis in figures.compose([side_by_side(2), cloud(5)], width="single").select_xaxes()
    )
    assert first == pytest.approx(second, rel=0.01)
    # In columns of one width these views had 84 pixels.
    assert first > 95
    assert single > LEAST_VIEW
    narrow = figures.compose([side_by_side(2), cloud(5)], width="column", columns=2)
    starts = [axis.domain[0] for axis in narrow.select_xaxes()]
    assert starts[-1] - starts[0] == pytest.approx(0.5, abs=0.1)


def test_the_room_of_the_legend_is_removed() -> None:
    paper = figures.compose([bars_with_legend_row(), bars_with_legend_row()], width="column", columns=1)
    tops = [(1 - axis.domain[1]) * paper.layout.height for axis in paper.select_yaxes()]
    # Two lines of a heading, and 11 pixels around them.
    assert tops[0] == pytest.approx(2 * 12 * 1.3 + 11, abs=2)


def test_a_heading_at_the_left_edge_may_extend_over_the_axis() -> None:
    text = "Next token after position 6 of all"
    layout = Layout()
    layout.view([0.0, 1.0], [0.0, 1.0], title=text)
    figure = layout.finish([go.Scatter(y=[1])], "auto", height=300, margin={"l": 60, "r": 10, "t": 40})
    paper = figures.compose([figure, figure], width="single", columns=2)
    assert texts(paper).count(text) == 2


def test_views_that_are_too_narrow_are_stacked() -> None:
    paper = figures.compose([side_by_side(4)], width="column")
    assert len({round(axis.domain[1], 3) for axis in paper.select_yaxes()}) == 2
    assert all((axis.domain[1] - axis.domain[0]) * 374 > 90 for axis in paper.select_xaxes())
    with pytest.raises(ValueError, match=r"figures\[0\] has 2 views side by side, too small to read"):
        figures.compose([go.Figure(shared_axis())] * 9, width="column", columns=9)


def shared_axis() -> dict[str, object]:
    layout = {"xaxis": {"domain": [0, 0.4]}, "xaxis2": {"domain": [0.6, 1], "anchor": "y"}}
    return {"data": [{"y": [1]}, {"y": [1], "xaxis": "x2", "yaxis": "y"}], "layout": layout}


def test_marks_and_lines_of_a_key_in_words_are_those_of_the_figure() -> None:
    marks = [go.Scatter(y=[1], name=symbol, mode="markers", marker_symbol=symbol) for symbol in ("star-open", "circle")]
    dashes = [go.Scatter(y=[1, 2], name=dash, line_dash=dash) for dash in ("6px,2px", "solid")]
    signs = [entry.split(">")[1][:-6] for entry in legend_entries(go.Figure([*marks, *dashes]))]
    assert signs == ["☆", "●", "─ ─", "━━"]


def test_few_points_stay_vector_and_many_become_an_image() -> None:
    assert on_paper(cloud(100)).data[0].type == "scatter"
    assert on_paper(cloud(MOST_VECTOR + 1)).data[0].type == "scattergl"
    assert on_paper(cloud(100)).data[0].hovertext is None


def test_classes_have_marks_in_print_that_the_key_shows_too() -> None:
    latents = make_latents(n=20, length=8)
    figure = figures.clouds([latents], [{"pca": analysis.project(latents, "pca")}], color="state", across=True)
    paper = on_paper(figure)
    (codes,) = (np.asarray(trace.marker.color) for trace in figure.data if trace.marker.coloraxis)
    (points,) = (trace for trace in paper.data if trace.marker.coloraxis)
    names = list(latents.obs["state"].cat.categories)
    assert len(set(zip(codes.tolist(), points.marker.symbol, strict=True))) == len(set(points.marker.symbol)) == 5
    (ticks,) = (trace.marker.colorbar.ticktext for trace in paper.data if trace.marker.showscale)
    signs = [SIGNS[mark] for mark in CLASSES[:5]]
    assert list(ticks) == [f"{sign} {name}" for sign, name in zip(signs, names, strict=True)][::-1]
    # WebGL draws no open marks with a colour scale.
    assert not [mark for mark in CLASSES if "open" in mark]


def test_colours_of_another_page_become_dark_on_white() -> None:
    figure = go.Figure(go.Scatter(y=[1], marker={"color": ["#e4e6ea", "#123456"]}), {"template": "plotly_dark"})
    assert on_paper(figure).data[0].marker.color == ("#2b2f36", "#123456")


def test_bad_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="figures is empty"):
        figures.compose([])
    with pytest.raises(TypeError, match=r"write \[figure\]"):
        figures.compose(cloud(3))
    with pytest.raises(TypeError, match=r"figures\[1\] must be a plotly figure, got str"):
        figures.compose([cloud(3), "figure"])
    with pytest.raises(ValueError, match="trace of type 'pie'"):
        figures.compose([go.Figure(go.Pie(values=[1]))], width="column")
    with pytest.raises(UnknownNameError, match="unknown print size 'colum'"):
        figures.compose([cloud(3)], width="colum")
    with pytest.raises(ValueError, match=r"inches must be in 1\.\.100"):
        figures.compose([cloud(3)], width=0.1)
    with pytest.raises(ValueError, match="at most 26"):
        figures.compose([cloud(3)] * 27)
    stacked = go.Figure(go.Bar(y=[1]), {"barmode": "stack"})
    with pytest.raises(ValueError, match="bars of one figure are 'stack', of another 'group'"):
        figures.compose([stacked, go.Figure(go.Bar(y=[1]), {"barmode": "group"})], width="text")


def test_file_names_and_options_are_checked_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 10,004 characters"):
        require_new(tmp_path / ("a" * 10_000 + ".pdf"))
    with pytest.raises(UnknownNameError, match=r"unknown kind of figure file '\.bmp'"):
        require_new(tmp_path / "a.bmp")
    (tmp_path / "a.pdf").touch()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        require_new(tmp_path / "a.pdf")
    assert require_new(tmp_path / "a.pdf", overwrite=True) == tmp_path / "a.pdf"
    with pytest.raises(ValueError, match="dpi=3: give 30 to 2,400"):
        figure_bytes(cloud(3), "png", dpi=3)


def test_html_of_a_page_is_reduced_to_what_plotly_draws() -> None:
    text = plain_html('<div><span style="white-space:nowrap"><span style="color:#123456">■</span> a</span></div><br>b')
    assert text == '<span style="color:#123456">■</span> a<br><br>b'


def size(figure: go.Figure, number: str = "") -> tuple[float, float]:
    """Width and height of a view in pixels; a composed figure has no margins."""
    x, y = figure.layout[f"xaxis{number}"].domain, figure.layout[f"yaxis{number}"].domain
    return (x[1] - x[0]) * figure.layout.width, (y[1] - y[0]) * figure.layout.height


def test_a_view_of_one_scale_has_the_shape_of_its_ranges() -> None:
    layout = Layout()
    axes = layout.view(
        [0.0, 1.0], [0.0, 1.0], x={"range": [0, 2]}, y={"range": [0, 1], "scaleanchor": "x"}, title="Belief"
    )
    plane = layout.finish([go.Scatter(x=[1], y=[1], **axes)], "auto", width=300, height=500)
    plane.update_xaxes(constrain="domain")
    wide, high = size(figures.compose([plane], width="column"))
    assert high == pytest.approx(wide / 2, rel=0.02)


def test_a_part_is_not_stretched_to_the_rows_of_the_part_beside_it() -> None:
    layout = Layout()
    for row in (0, 1):
        layout.view([0.0, 1.0], [0.6 * (1 - row), 0.6 * (1 - row) + 0.4], title="row")
    stacked = layout.finish([go.Scatter(y=[1])], "auto", height=900)
    pair = figures.compose([cloud(5), stacked], width="text", columns=2)
    alone = figures.compose([cloud(5), cloud(5)], width="text", columns=2)
    assert size(pair)[1] == pytest.approx(size(alone)[1], rel=0.02)


def test_a_title_is_close_to_the_headings_below_it() -> None:
    paper = figures.compose([lines("a", "b").update_layout(margin_t=160)], width="column")
    assert (1 - paper.layout.yaxis.domain[1]) * paper.layout.height < 40


def test_short_titles_become_headings_and_long_ones_stay_below() -> None:
    for words, below in ((["one line"], False), ([f"line {i}" for i in range(9)], True)):
        part = with_words(cloud(5).update_layout(width=400, height=300), words, 400)
        paper = figures.compose([part, cloud(5)], width="text")
        (item,) = (note for note in paper.layout.annotations if words[0] in note.text)
        assert (item.yanchor == "top", "(a)" in item.text) == (below, not below)


@pytest.mark.slow
@pytest.mark.filterwarnings("default:::kaleido", "default:::choreographer")
def test_files_have_the_venues_width_and_their_text(tmp_path: Path) -> None:
    paper = figures.compose([lines("next-token", "NextLat"), cloud(MOST_VECTOR + 1)], width="column", columns=1)
    with figures.one_browser():
        pdf, svg, png = (
            figures.write_figure(paper, tmp_path / f"a.{kind}", dpi=150, transparent=True).read_bytes()
            for kind in ("pdf", "svg", "png")
        )
    box = re.search(rb"/MediaBox \[0 0 ([\d.]+)", pdf)
    assert box is not None
    assert float(box[1]) / 72 == pytest.approx(3.25, rel=0.01)
    assert pdf.count(b"/ToUnicode") >= 1
    # Drawn from the corner of the page: with a margin it would be smaller, and cut off at the bottom.
    contents = [
        zlib.decompressobj().decompress(part)
        for part in re.findall(rb"FlateDecode.*?stream\r?\n(.*?)endstream", pdf, re.S)
        if part[:1] == b"x"
    ]
    assert any(re.search(rb"cm\nq\n([\d.]+) 0 0 \1 0 0 cm", content) for content in contents)
    wide = re.search(rb'width="([\d.]+)"', svg)
    assert wide is not None
    assert float(wide[1]) / 96 == pytest.approx(3.25, rel=0.01)
    text = svg.decode()
    assert "NextLat</text>" in text
    # The points of the cloud are two images, for those in front and behind; axes and lines are not images.
    assert 1 <= text.count("<image") <= 3
    assert text.count("<path") < MOST_VECTOR
    assert len(svg) < 2_000_000
    assert 'class="xy' in text
    pixels = struct.unpack(">I", png[16:20])[0]
    per_metre = struct.unpack(">I", png[png.index(b"pHYs") + 4 :][:4])[0]
    assert pixels / per_metre / 0.0254 == pytest.approx(3.25, rel=0.01)
    # Colour type 6 has transparency.
    assert png[25] == 6


def test_headings_of_lower_views_and_titles_of_axes_have_room_in_a_column() -> None:
    title = {"text": "many words about what is measured here, in nats, and why"}
    traces, layout = list[go.Scatter](), dict[str, Any](height=500, width=900, annotations=[])
    for i, number in enumerate(("", "2")):
        up = [0.6 * (1 - i), 0.4 + 0.6 * (1 - i)]
        layout[f"xaxis{number}"] = {"anchor": f"y{number}", "title": title}
        layout[f"yaxis{number}"] = {"anchor": f"x{number}", "domain": up}
        layout["annotations"].append(heading("one line on a page and several in a column, " * 2, y=up[1]))
        traces.append(go.Scatter(x=[0, 1], y=[0, 1], xaxis=f"x{number}", yaxis=f"y{number}"))
    before = go.Figure(traces, layout)
    after = figures.compose([before], width="column")
    margin = margins(after)
    inside = after.layout.height - margin["t"] - margin["b"]
    gap = (after.layout.yaxis.domain[0] - after.layout.yaxis2.domain[1]) * inside
    assert gap >= 13 * after.layout.annotations[1].text.count("<br>") + 40
    below = after.layout.xaxis2.title.text.count("<br>") + 1
    assert below > 1
    assert after.layout.yaxis2.domain[0] * inside + margin["b"] >= 20 + 14 * below


def test_a_cloud_fills_its_view_and_its_scale_keeps_its_length_in_a_column() -> None:
    latents = make_latents(n=20, length=8)
    views = [{"pca": analysis.project(latents, "pca")}] * 2
    figure = figures.clouds([latents, latents], views, color="position", across=True).update_layout(
        height=240, width=745
    )
    paper = figures.for_print(figure, "column")
    (bar,) = (trace.marker.colorbar for trace in paper.data if trace.marker.showscale)
    assert bar.lenmode == "pixels"
    assert bar.len >= 80
    for x, y in zip(paper.select_xaxes(), paper.select_yaxes(), strict=True):
        wide, high = (np.ptp(axis.domain) * size for axis, size in ((x, paper.layout.width), (y, paper.layout.height)))
        points = np.asarray(views[0]["pca"].coordinates)
        assert high / wide == pytest.approx(np.ptp(points[:, 1]) / np.ptp(points[:, 0]), rel=0.05)


def test_bars_in_a_column_are_low() -> None:
    tall = go.Figure(go.Bar(x=["a", "b"], y=[1, 2])).update_layout(width=320, height=400)
    assert figures.for_print(tall, "column").layout.height < 280
    flat = go.Figure(go.Bar(y=["a", "b"], x=[1, 2], orientation="h")).update_layout(width=320, height=400)
    assert figures.for_print(flat, "column").layout.height > 300
