"""The gallery: every figure that fits, with provenance, and an index that names those that are missing."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nextlat_viz as nlv
from nextlat_viz import worlds
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.figures import export
from nextlat_viz.pages import gallery, plates, write_gallery
from nextlat_viz.pages.plates import PLATES, Drawing, Plate
from nextlat_viz.worlds import HiddenMarkovWorld

SIZE: dict[str, Any] = {"steps": 2, "layers": 1, "validation_episodes": 8, "snapshots": ()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> nlv.Checkpoint:
    out = tmp_path_factory.mktemp("runs") / "own <b>"
    return nlv.train("z1r", "nextlat", seed=4, out=out, progress=False, **SIZE)


@pytest.fixture(scope="module")
def own(run: nlv.Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery of that run, without images and so without a browser."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery.figures, "one_browser", None)
        return write_gallery([run.folder], tmp_path_factory.mktemp("gallery"), images=(), progress=False).parent


@pytest.fixture
def measured(own: Path, tmp_path: Path) -> Path:
    """A folder with the results of the run, which then is not measured again."""
    shutil.copytree(own / "parts", tmp_path / "parts")
    return tmp_path


def links(index: Path) -> set[str]:
    return set(re.findall('(?:href|src)="([^"]+)"', index.read_text(encoding="utf-8")))


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def test_a_gallery_of_a_users_run(run: nlv.Checkpoint, own: Path) -> None:
    page = (own / "index.html").read_text(encoding="utf-8")
    assert files(own) == links(own / "index.html") | {"index.html", "index.html.json", "plotly.min.js"}
    drawn = {"every_seed", "beliefs_z1r", "belief_read_z1r", "probe_loss_by_offset_z1r", "acceptance_z1r"}
    for name in drawn | {"rank_z1r", "episode_z1r"}:
        about = json.loads((own / f"{name}.html.json").read_text())["parameters"]
        assert about["runs"] == [{"name": run.name, "step": 2, "weights_sha256": run.weights_sha256}]
        assert 'src="plotly.min.js"' in (own / f"{name}.html").read_text(encoding="utf-8")
    assert "1 run of your own" in page
    for title in ("Reconstructed maps", "Running product by length"):
        assert f"<b>{title}</b>: needs runs of a" in page
    assert list((own / "parts").iterdir())


@pytest.mark.filterwarnings("default:::kaleido", "default:::choreographer")
def test_every_figure_is_an_image_too(run: nlv.Checkpoint, measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "PLATES", PLATES[:2])
    index = write_gallery([run], measured, progress=False)
    images = {path.stem: path.read_text(encoding="utf-8") for path in measured.glob("*.svg")}
    assert {path.stem for path in measured.glob("*.html")} == {*images, "index"}
    assert len(images) > 1
    assert {f"{name}.svg" for name in images} <= links(index)
    assert all(image.startswith("<svg") and len(image) > 1_000 for image in images.values())


def test_a_failing_figure_is_named_and_the_others_are_written(
    run: nlv.Checkpoint, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(group: Any) -> Iterator[Drawing]:
        raise ValueError("no <such> thing")
        yield

    chosen = (Plate("Odd", "", fails, suits=lambda group: True), *PLATES[:1])
    monkeypatch.setattr(gallery, "PLATES", chosen)
    index = write_gallery([run], measured, images=(), progress=False)
    assert "<b>Odd, z1r</b>: ValueError: no &lt;such&gt; thing" in index.read_text(encoding="utf-8")
    assert "beliefs_z1r.html" in links(index)


def test_an_interruption_leaves_whole_files_and_no_index(
    run: nlv.Checkpoint, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(group: Any) -> Iterator[Drawing]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(gallery, "PLATES", (*PLATES[:1], Plate("Stops", "", stops, suits=lambda group: True)))
    with pytest.raises(KeyboardInterrupt):
        write_gallery([run], measured, images=(), progress=False)
    pages = {"every_seed.html", "beliefs_z1r.html"}
    assert files(measured) == pages | {f"{page}.json" for page in pages} | {"plotly.min.js"}


def test_without_a_browser_there_are_pages_and_the_index_says_so(
    run: nlv.Checkpoint, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "browser", lambda: None)
    monkeypatch.setattr(gallery, "PLATES", PLATES[:1])
    with pytest.warns(UserWarning, match="images are left out: PNG, SVG and PDF need Chrome"):
        index = write_gallery([run], measured, progress=False)
    assert "playwright install chromium" in index.read_text(encoding="utf-8")
    assert not list(measured.glob("*.svg"))


def test_a_world_of_any_name_stays_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Other texts are tested with `io.file_name`.
    world = HiddenMarkovWorld("x/../../../PWN", worlds.get("z1r").transitions)
    run = nlv.train(world, "next_token", out=tmp_path / "run", progress=False, **SIZE)
    monkeypatch.setattr(gallery, "PLATES", PLATES[:1])
    folder = tmp_path / "a" / "b" / "c" / "gallery"
    index = write_gallery([run], folder, images=(), progress=False)
    assert files(folder) == links(index) | {"index.html", "index.html.json", "plotly.min.js"}
    assert len(list(folder.glob("beliefs*.html"))) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"run", "a"}
    assert {path.name for path in (tmp_path / "a").rglob("*.html")} == {path.name for path in folder.glob("*.html")}


def test_mistakes_are_named_before_anything_is_written(run: nlv.Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"kind of image 'pgn'\. Did you mean 'png'"):
        write_gallery([run], tmp_path, images=["pgn"])
    with pytest.raises(UnknownNameError, match="unknown checkpoint 'rrxor/nextlt'"):
        write_gallery(["rrxor/nextlt"], tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("here first")
    with pytest.raises(OSError, match="file"):
        write_gallery([run], tmp_path / "file", images=(), progress=False)


@pytest.mark.slow
def test_the_shipped_gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every kind of figure of shipped runs, with few rows and rides. No browser: the other gallery here has real images.
    monkeypatch.setattr(export, "_image", lambda *arguments: b"<svg></svg>")
    for module in (gallery.figures, export):
        monkeypatch.setattr(module, "one_browser", contextlib.nullcontext)
    extract, reconstruct = plates.latents.extract, plates.reconstruct_map
    monkeypatch.setattr(plates, "reconstruct_map", lambda run: reconstruct(run, 20))

    def few(run: nlv.Checkpoint, episodes: Any = None, *arguments: Any, **options: Any) -> Any:
        return extract(run, plates.latents.heldout(run, 64) if episodes is None else episodes, *arguments, **options)

    monkeypatch.setattr(plates.latents, "extract", few)
    # One world of every kind that has figures of its own, with two seeds.
    kept = [
        folder
        for folder in gallery.shipped_folders()
        if folder.parts[-3] in ("rrxor", "taxi_grid", "s3", "queens") and folder.name in ("seed0", "seed1")
    ]
    monkeypatch.setattr(gallery, "shipped_folders", lambda: kept)
    monkeypatch.setattr(gallery.worlds, "names", lambda: ["rrxor", "taxi", "s3", "even"])
    index = write_gallery(out=tmp_path, progress=False)
    # No figure is missing.
    assert not re.findall("<li><b>(.*?)</b>: (.*?)</li>", index.read_text(encoding="utf-8"))
    of_images = {f"{path.name}.json" for path in tmp_path.glob("*.svg")}
    assert files(tmp_path) == links(index) | of_images | {"index.html", "index.html.json", "plotly.min.js"}
    for world in ("rrxor", "taxi", "s3", "even"):
        assert f"episode_{world}.html" in links(index)
    names = {path.stem for path in tmp_path.glob("*.svg")}
    assert {"state_tracking_s3", "map_taxi", "solved_by_step_queens"} <= names
    assert {path.stem for path in tmp_path.glob("*.html")} == names | {"index"}
