"""Figures as files: whole or not there, self-contained, and with a note of where they came from."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest

from nextlat_viz import figures
from nextlat_viz.errors import UnknownNameError
from tests.synthetic import make_latents


@pytest.fixture
def figure() -> go.Figure:
    return go.Figure(go.Scatter(x=[0, 1], y=[1, 0])).update_layout(height=200, title="drawn")


def test_a_page_works_offline_and_says_where_it_came_from(tmp_path: Path, figure: go.Figure) -> None:
    latents = make_latents(n=5, length=4)
    path = figures.write(
        figure,
        tmp_path / "new" / "a.html",
        {"color": "state", "rows": latents.X[:1, :2], **figures.provenance_of(latents)},
    )
    page = path.read_text(encoding="utf-8")
    assert "Plotly.newPlot" in page
    assert len(page) > 1_000_000
    assert "<script src=" not in page
    note = json.loads(path.with_suffix(".json").read_text())
    assert note["figure"] == "a.html"
    assert note["parameters"]["color"] == "state"
    (model,) = note["parameters"]["models"]
    assert model["weights_sha256"] == latents.uns["nextlat_viz"]["weights_sha256"]
    assert model["world"]["name"] == "rrxor"
    assert {"python", "plotly", "numpy"} <= set(note["versions"])
    assert sorted(one.name for one in path.parent.iterdir()) == ["a.html", "a.json"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default:::kaleido", "default:::choreographer")
def test_a_picture(tmp_path: Path, figure: go.Figure) -> None:
    path = figures.write(figure, tmp_path / "a.png", width=300, scale=2.0)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert struct.unpack(">II", data[16:24]) == (600, 400)
    assert json.loads((tmp_path / "a.json").read_text())["figure"] == "a.png"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.json", "a.png"]


def test_an_unknown_ending(tmp_path: Path, figure: go.Figure) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown kind of figure file '.pgn'. Did you mean '.png'"):
        figures.write(figure, tmp_path / "a.pgn")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.html", "report"])
def test_a_folder_that_cannot_be(tmp_path: Path, figure: go.Figure, name: str) -> None:
    # A file where the folder should be stops the superuser too.
    (tmp_path / "file").write_text("here first")
    path = tmp_path / "file" / name
    with pytest.raises(OSError, match=r"cannot write .* Choose a folder you can write to"):
        figures.write(figure, path) if name == "a.html" else figures.report({"a": figure}, {}, "t", path)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "here first"


def test_what_fails_half_way_leaves_nothing(tmp_path: Path, figure: go.Figure, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"before")

    def broken(*arguments: object, **options: object) -> bytes:
        raise MemoryError("no room")

    monkeypatch.setattr("plotly.io.to_image", broken)
    with pytest.raises(MemoryError):
        figures.write(figure, tmp_path / "a.png")
    assert [one.name for one in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"before"


def test_without_a_browser_it_says_what_to_do(
    tmp_path: Path, figure: go.Figure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*arguments: object, **options: object) -> bytes:
        raise RuntimeError("Kaleido requires Google Chrome to be installed")

    monkeypatch.setattr("plotly.io.to_image", missing)
    with pytest.raises(RuntimeError, match=r"needs Chrome or Chromium.*or write .html"):
        figures.write(figure, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_report_is_one_page(tmp_path: Path, figure: go.Figure) -> None:
    table = pd.DataFrame({"R<sup>2": [0.51234, None]}, index=["<i>a</i>", "b"])
    path = figures.report(
        {"Fig <1>": figure, "Second": figure},
        {"Scores & such": table},
        "Mine </title><script>alert(1)</script>",
        tmp_path / "report.html",
        {"note": "</pre><script>alert(2)</script>"},
        {"Fig <1>": "See <b>here</b>"},
    )
    page = path.read_text(encoding="utf-8")
    assert "alert(1)</script>" not in page
    assert "alert(2)</script>" not in page
    assert "<h1>Mine &lt;/title&gt;&lt;script&gt;" in page
    for escaped in ("Fig &lt;1&gt;", "Scores &amp; such", "&lt;i&gt;a&lt;/i&gt;", "R&lt;sup&gt;2", "See &lt;b&gt;here"):
        assert escaped in page
    assert "0.5123" in page
    assert page.count("Plotly.newPlot(") >= 2
    assert {"figure-0", "figure-1"} <= {part.split('"')[0] for part in page.split('id="')}
    assert "<script src=" not in page
    assert page.index("Scores &amp; such") < page.index("Fig &lt;1&gt;")
    # The caller's own figure keeps its looks.
    assert figure.layout.template.layout.paper_bgcolor != "rgba(0,0,0,0)"


def test_a_report_of_tables_alone_needs_no_plotly(tmp_path: Path) -> None:
    page = figures.report({}, {"T": pd.DataFrame({"a": [1]})}, "t", tmp_path / "r.html").read_text()
    assert len(page) < 20_000
    assert "<script" not in page
