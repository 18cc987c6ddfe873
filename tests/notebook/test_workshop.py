"""The workshop: pinned figures, arranged for a venue, with a caption and the code that makes them again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anndata import AnnData

import nextlat_viz as nlv
from nextlat_viz.notebook.pictures import _opening
from nextlat_viz.notebook.serve import studio
from nextlat_viz.notebook.sources import by_world
from nextlat_viz.notebook.studio import Studio
from nextlat_viz.notebook.workshop import Tray


@pytest.fixture(scope="module")
def opened(rrxor: list[AnnData]) -> Iterator[Studio]:
    opened = studio(*rrxor)
    yield opened
    opened.close()


@pytest.fixture
def tray(opened: Studio) -> Iterator[Tray]:
    opened.state.go_to(3, 5)
    opened._workshop.value = True
    yield opened.tray
    while opened.tray.pins:
        opened.tray._remove(0)
    opened.tray.width.value, opened.tray.kind.value, opened.tray.columns.value = "column", "pdf", 0


def alert(tray: Tray) -> str:
    return str(tray._alert.value)


def test_a_pin_stays_as_it_was_when_the_cursor_moves(opened: Studio, tray: Tray) -> None:
    assert opened.panels["next"]._pin.tooltip == "Add this figure to the tray"
    opened.panels["next"]._pin.click()
    before = tray.pins[0].figure.to_json()
    assert opened._workshop.description == "Figures (1)"
    opened.state.go_to(4, 7)
    assert opened.panels["next"].plot is not None
    assert tray.pins[0].figure.to_json() == before
    assert "episode 3, position 5" in tray.caption.value.lower()


def test_the_camera_gives_the_name_of_the_file(opened: Studio, tray: Tray) -> None:
    opened.panels["next"]._pin.click()
    assert tray._plot is not None
    assert tray._plot.layout.meta == {"file": "figure"}
    tray.name.value = "mine"
    assert tray._plot.layout.meta == {"file": "mine"}
    tray.name.value = "figure"


def test_what_to_do_is_left_out_of_a_figure(opened: Studio, tray: Tray) -> None:
    panel = opened.panels["next"]
    assert panel.drawn
    panel.about.value = "There are no snapshots: nlv.train keeps some.<br>More."
    text = " ".join(note.text for note in opened.figure("next").layout.annotations)
    panel.about.value = ""
    assert "There are no snapshots.<br>More." in text
    assert "nlv" not in text


def test_pins_are_moved_and_removed(opened: Studio, tray: Tray) -> None:
    for name in ("next", "knows", "world"):
        opened.panels[name]._pin.click()
    up = tray._lines[1][2]
    assert [pin.panel for pin in tray.pins] == ["next", "knows", "world"]
    up.click()
    assert [pin.panel for pin in tray.pins] == ["knows", "next", "world"]
    tray._lines[0][3].click()
    assert [pin.panel for pin in tray.pins] == ["next", "knows", "world"]
    assert tray._lines[0][2].disabled
    assert tray._lines[2][3].disabled
    tray._lines[0][4].click()
    assert [pin.panel for pin in tray.pins] == ["knows", "world"]
    assert alert(tray) == ""


def test_the_tray_opens_in_place_of_the_panels(opened: Studio, tray: Tray) -> None:
    opened._workshop.value = False
    assert tray.layout.display == "none"
    opened.panels["next"]._pin.click()
    assert tray.caption.value == ""
    tray._remove(0)
    opened._workshop.value = True
    assert (tray.layout.display, opened._grid.layout.display) == (None, "none")
    assert "No figure yet" in tray._list.children[0].value
    assert tray.download.disabled
    opened._workshop.value = False
    assert (tray.layout.display, opened._grid.layout.display) == ("none", None)


def test_numbers_in_the_caption_are_the_probes(opened: Studio, tray: Tray) -> None:
    tray.pin(opened.panels["knows"])
    text = tray.caption.value
    state = opened.state
    for model in range(2):
        probe = state.scene.probe(model, state.target, state.site)
        low, high = (f"{value:.3f}".replace("-", "−") for value in probe.interval)
        score = f"{probe.score:.3f}".replace("-", "−")
        assert f"{state.labels[model]} {score} [{low}, {high}]" in text
        assert f"shuffled labels {probe.shuffled + 0.0:.3f}".replace("-", "−") in text.replace("−0.000", "0.000")
        assert f"{probe.test_episodes.size} held-out episodes" in text
    assert f"n = {state.latents[0].n_obs:,} hidden states of 40 episodes" in text
    assert "95 % bootstrap interval" in text


def test_the_caption_names_the_colour_in_words(opened: Studio) -> None:
    before, opened.state.color = opened.state.color, "model:error"
    assert "coloured by error of the probe" in nlv.figures.figure_caption(opened.figure("space"))
    opened.state.color = before


def test_widths_of_venues_can_be_chosen(opened: Studio, tray: Tray) -> None:
    tray.pin(opened.panels["next"])
    for _, name in tray.width.options:
        tray.width.value = name
        assert tray._plot is not None
        assert tray._plot.layout.width == nlv.figures.print_options(name)["width"]
    assert alert(tray) == ""


def test_files_are_written_atomically_and_never_overwritten(opened: Studio, tray: Tray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing is pinned"):
        tray.write(tmp_path / "a.html")
    tray.pin(opened.panels["next"])
    tray.pin(opened.panels["world"])
    path = tray.write(tmp_path / "a.html")
    record = json.loads((tmp_path / "a.html.json").read_text())["parameters"]
    assert record["caption"] == tray.caption.value
    assert [part["panel"] for part in record["parts"]] == ["next", "world"]
    assert record["inches"] == 3.25
    with pytest.raises(FileExistsError, match="overwrite=True"):
        tray.write(path)
    tray.kind.value, tray.name.value = "html", "b" * 10_000
    tray.save.click()
    assert "ValueError" in alert(tray)
    assert "has 10,005 characters" in alert(tray)
    tray.name.value = str(tmp_path / "a")
    tray.save.click()
    assert "FileExistsError" in alert(tray)
    tray.overwrite.value = True
    tray.save.click()
    assert "wrote" in tray._result.value
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.html", "a.html.json"]
    tray.overwrite.value, tray.name.value = False, "figure"


def test_a_download_goes_to_the_page_that_asked(opened: Studio, tray: Tray, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(
        type(tray.download), "send", lambda self, message, buffers=None: sent.append((message, buffers))
    )
    tray.download._hear(None, {"kind": "want", "view": "one"}, [])
    assert sent == []
    tray.pin(opened.panels["next"])
    tray.kind.value, tray.name.value = "html", "../../my figure"
    tray.download._hear(None, {"kind": "want", "view": "one"}, [])
    ((message, (content,)),) = sent
    assert (message["kind"], message["view"], message["type"]) == ("file", "one", "text/html")
    assert re.fullmatch(r"[\w-]+\.html", message["name"])
    assert b"plotly" in content
    tray.name.value = "figure"


def test_the_code_makes_the_same_figure_again(opened: Studio, tray: Tray, tmp_path: Path, rrxor: list[AnnData]) -> None:
    state = opened.state
    state.select(range(3, 9))
    state.color = "position"
    tray.pin(opened.panels["space"])
    state.color, state.selection = "state", ()
    state.go_to(5, 2)
    tray.pin(opened.panels["next"])
    tray.kind.value, tray.name.value = "html", "again"
    tray.show_code.click()
    text = tray.code.value
    assert "state.select([*range(3, 9)])" in text
    assert "nlv.studio(tables[0], tables[1])" in text
    names: dict[str, Any] = {"tables": rrxor}
    exec(text.replace("'again.html'", repr(str(tmp_path / "again.html"))), names)
    assert names["figure"].to_json() == tray.figure.to_json()
    names["studio"].close()
    assert (tmp_path / "again.html").exists()


def test_models_are_opened_by_their_names() -> None:
    names = ("rrxor/next_token", nlv.load("rrxor/nextlat"))
    (line,) = _opening(by_world(names, None))
    assert re.fullmatch(r"studio = nlv.studio\('rrxor/next_token', '.*rrxor.nextlat.seed0'\)", line)
    both = by_world([{"rrxor": names[:1], "s3": ["s3/nextlat"]}], None)
    assert _opening(both) == ["studio = nlv.studio({'rrxor': ['rrxor/next_token'], 's3': ['s3/nextlat']})"]


def test_panels_without_a_figure_cannot_be_pinned(opened: Studio, tray: Tray) -> None:
    panel = opened.panels["ahead"]
    panel._pin.click()
    assert "shows no figure now" in panel._alert.value
    with pytest.raises(ValueError, match=r"shows a table"):
        tray.pin(opened.panels["pairs"])
    assert tray.pins == []


def test_clouds_of_every_row_are_pinned_with_their_view(opened: Studio, tray: Tray) -> None:
    space: Any = opened.panels["space"]
    space.points.options = [("some", False), ("all", True)]
    space.points.value = True
    assert len(space.views) == 2
    figure = opened.figure("space")
    drawn = [trace for trace in figure.data if trace.mode == "markers" and trace.x is not None]
    assert max(len(trace.x) for trace in drawn) == opened.state.latents[0].n_obs
    space.points.value = False
