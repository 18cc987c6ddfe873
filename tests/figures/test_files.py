"""Figures as files: written atomically, self-contained, with provenance."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import plotly.graph_objects as go
import pytest

from nextlat_viz import figures
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.figures.compose import for_print
from nextlat_viz.figures.paper import SIZES, print_options
from tests.synthetic import make_latents


@pytest.fixture
def figure() -> go.Figure:
    return go.Figure(go.Scatter(x=[0, 1], y=[1, 0])).update_layout(height=200, title="drawn")


def test_a_page_works_offline_and_has_its_provenance(tmp_path: Path, figure: go.Figure) -> None:
    latents = make_latents(n=5, length=4)
    path = figures.write_figure(
        figure,
        tmp_path / "new" / "a.html",
        {"color": "state", "rows": latents.X[:1, :2], **figures.provenance_of(latents)},
    )
    page = path.read_text(encoding="utf-8")
    assert "Plotly.newPlot" in page
    assert len(page) > 1_000_000
    assert "<script src=" not in page
    note = json.loads(path.with_name("a.html.json").read_text())
    assert note["figure"] == "a.html"
    assert note["parameters"]["color"] == "state"
    (model,) = note["parameters"]["models"]
    assert model["weights_sha256"] == latents.uns["nextlat_viz"]["weights_sha256"]
    assert model["world"]["name"] == "rrxor"
    assert {"python", "plotly", "numpy"} <= set(note["versions"])
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.html", "a.html.json"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default:::kaleido", "default:::choreographer")
def test_an_image_is_written(tmp_path: Path, figure: go.Figure) -> None:
    path = figures.write_figure(figure, tmp_path / "a.png", width=300, scale=2.0)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert struct.unpack(">II", data[16:24]) == (600, 400)
    assert json.loads((tmp_path / "a.png.json").read_text())["figure"] == "a.png"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.png", "a.png.json"]


def test_an_unknown_ending_is_refused(tmp_path: Path, figure: go.Figure) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown kind of figure file '.pgn'. Did you mean '.png'"):
        figures.write_figure(figure, tmp_path / "a.pgn")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, figure: go.Figure) -> None:
    # A file in place of the folder stops even root.
    (tmp_path / "file").write_text("here first")
    with pytest.raises(OSError, match=r"cannot write .* Choose a folder you can write to"):
        figures.write_figure(figure, tmp_path / "file" / "a.html")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "here first"


def test_a_failed_write_leaves_nothing(tmp_path: Path, figure: go.Figure, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"before")

    def broken(*arguments: object, **options: object) -> bytes:
        raise MemoryError("no room")

    monkeypatch.setattr("kaleido.calc_fig_sync", broken)
    with pytest.raises(MemoryError):
        figures.write_figure(figure, tmp_path / "a.png")
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"before"


def test_without_a_browser_it_says_what_to_do(
    tmp_path: Path, figure: go.Figure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*arguments: object, **options: object) -> bytes:
        raise RuntimeError("Kaleido requires Google Chrome to be installed")

    monkeypatch.setattr("kaleido.calc_fig_sync", missing)
    with pytest.raises(RuntimeError, match=r"need Chrome or Chromium.*or write .html"):
        figures.write_figure(figure, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("size", "inches"), [("column", 3.25), ("text", 6.75)])
def test_a_vector_figure_has_the_width_in_print(
    tmp_path: Path, figure: go.Figure, monkeypatch: pytest.MonkeyPatch, size: str, inches: float
) -> None:
    drawn: dict[str, float] = {}
    monkeypatch.setattr("kaleido.calc_fig_sync", lambda figure, opts, kopts: drawn.update(opts) or b"")
    figures.write_figure(for_print(figure, size), tmp_path / "a.svg", **print_options(size))
    assert drawn["width"] * drawn["scale"] == pytest.approx(96 * inches)


@pytest.mark.parametrize("size", SIZES)
def test_a_figure_for_print_is_light_opaque_and_of_the_given_width(size: str) -> None:
    figure = go.Figure(go.Scatter(x=[0, 1], y=[1, 0])).update_layout(title="drawn", width=1100, height=300)
    before = figure.to_json()
    paper = for_print(figure, size)
    assert paper.layout.width == SIZES[size]["width"]
    assert 0.4 < paper.layout.height / paper.layout.width < 0.7
    assert paper.layout.paper_bgcolor == "white"
    assert paper.layout.template.layout.font.color == "#2b2f36"
    assert figure.to_json() == before
    assert print_options(size)["width"] == SIZES[size]["width"]


def test_print_sizes_in_pixels() -> None:
    # 300 dots an inch on paper; a slide fills a screen of 1,920 pixels.
    dots = {name: print_options(name)["width"] * print_options(name)["scale"] for name in SIZES}
    assert {name: round(value) for name, value in dots.items()} == {
        "column": 975, "single": 1650, "text": 2025, "slide": 1920, "poster": 3200,
    }  # fmt: skip
    with pytest.raises(UnknownNameError, match=r"unknown print size 'colum'. Did you mean 'column'"):
        print_options("colum")
