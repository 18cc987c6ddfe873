"""The gallery: a folder with every figure that fits some runs, and an index that also lists missing figures."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs
from tqdm.auto import tqdm

from nextlat_viz import figures, io, worlds
from nextlat_viz.analysis import measure
from nextlat_viz.display import counted
from nextlat_viz.figures.export import NO_BROWSER, drawable, write_images
from nextlat_viz.figures.paper import on_white
from nextlat_viz.pages.page import INDEX_FILE, PLOTLY_FILE, figure_html, render, write_page
from nextlat_viz.pages.plates import OVERALL, PLATES, Drawing, Group, grouped, seeds_drawing
from nextlat_viz.training.checkpoint import Checkpoint, load, shipped_folders

_WIDTH = 1000
_ALL, _OTHERS = "All worlds", "Other worlds, without models"
_NOTE = (
    "Drawn from {}. Results over seeds show every seed and their controls; a figure of single runs names them. Pages "
    "of episodes need no running kernel. All pages share plotly.min.js, so keep the folder together."
)


@dataclass(frozen=True)
class Item:
    """An entry of the index: its texts, and the names of the page, the image and the other files."""

    title: str
    note: str
    page: str
    image: str = ""
    files: tuple[str, ...] = ()


def write_gallery(
    runs: Sequence[Checkpoint | str | os.PathLike[str]] = (),
    out: str | os.PathLike[str] = "gallery",
    *,
    images: Sequence[str] = ("svg",),
    progress: bool = True,
) -> Path:
    """Write every figure that fits some runs into a folder, with an ``index.html``.

    Parameters
    ----------
    runs : checkpoints, names or folders
        Runs to measure first; each result is written to the folder as soon as it is known. By default the shipped
        runs, whose results are shipped too, and a page of an episode of every other world.
    images : of {"svg", "png", "pdf"}
        Kinds of image to write of each figure. Without a Chromium-based browser none are written, with a warning.

    Returns
    -------
    Path
        The index, which is written last. It names the figures that are missing, and why.

    Raises
    ------
    UnknownNameError
        For a run or a kind of image that does not exist.
    OSError
        When the folder cannot be written to.

    Examples
    --------
    >>> write_gallery(["rrxor/nextlt"])
    Traceback (most recent call last):
    ...
    nextlat_viz.errors.UnknownNameError: unknown checkpoint 'rrxor/nextlt'. Did you mean 'rrxor/nextlat'? ...
    """
    folder = io.resolve(out, "out")
    kinds = drawable(images)
    groups = _shipped() if not runs else _own(runs, folder, progress)
    missing = {} if kinds or not images else {"Images": NO_BROWSER}
    io.write(folder / PLOTLY_FILE, get_plotlyjs())
    missing |= {plate.title: f"needs {plate.needs}" for plate in PLATES if not any(map(plate.fits, groups))}
    sections: dict[str, list[Item]] = {}
    browser = figures.one_browser() if kinds else contextlib.nullcontext()
    with browser, tqdm(list(_jobs(groups)), desc="figures", unit="figure", disable=not progress) as bar:
        for heading, title, members, drawings in bar:
            bar.set_postfix_str(f"{title}, {heading}", refresh=False)
            try:
                for drawing in drawings():
                    sections.setdefault(heading, []).append(_write(drawing, members, folder, kinds))
            except OSError:
                raise
            except Exception as error:
                # One figure that cannot be drawn does not stop the others.
                missing[f"{title}, {heading}"] = f"{type(error).__name__}: {error}"
    names = [run.name for group in groups for run in group.runs]
    count = counted(len(names), "run")
    note = _NOTE.format(f"{count} of your own" if runs else f"the {count} that are shipped")
    contents: dict[str, Any] = {"note": note, "sections": sections, "missing": missing}
    page = render("index.html", "Gallery", {"runs": names}, plotly=False, **contents)
    return write_page(page, folder / INDEX_FILE, {"runs": names, "missing": missing})


def _shipped() -> list[Group]:
    """Return the groups of the shipped runs, then a group without runs for every other world."""
    results = measure.results()
    with_runs = grouped([load(folder) for folder in shipped_folders()], results)
    known = {group.world.name for group in with_runs}
    others = [worlds.get(name) for name in worlds.names() if name not in known]
    return with_runs + [Group(world.name, world, (), results) for world in others]


def _own(runs: Sequence[Checkpoint | str | os.PathLike[str]], folder: Path, progress: bool) -> list[Group]:
    loaded = [run if isinstance(run, Checkpoint) else load(run) for run in runs]
    measures = [*OVERALL, *(name for plate in PLATES for name in plate.measures)]
    fitting = [name for name in measures if any(name in measure.battery(run) for run in loaded)]
    return grouped(loaded, measure.evaluate(loaded, fitting, out=folder, progress=progress).table)


def _jobs(groups: Sequence[Group]) -> Iterator[tuple[str, str, Sequence[Group], Callable[[], Iterable[Drawing]]]]:
    """Yield section, title, groups and the function that returns their drawings, in the order of the index."""
    with_beliefs = [group for group in groups if group.world.state_names and group.runs]
    if with_beliefs:
        yield _ALL, "Every seed", with_beliefs, lambda: [seeds_drawing(with_beliefs)]
    for group in groups:
        for plate in PLATES:
            if plate.fits(group):
                heading = group.name if group.runs else _OTHERS
                yield heading, plate.title, [group], partial(plate.drawings, group)


def _write(drawing: Drawing, groups: Sequence[Group], folder: Path, kinds: Sequence[str]) -> Item:
    """Write the files of one figure and return its entry in the index."""
    runs = [
        {"name": run.name, "step": run.step, "weights_sha256": run.weights_sha256}
        for group in groups
        for run in group.runs
    ]
    about = {"command": "nextlat-viz figures", "title": drawing.title, "note": drawing.note, "runs": runs}
    about["worlds"] = [group.world.spec for group in groups]
    # A world can have any name, also one that is not a valid file name.
    stem = io.file_name(drawing.name)
    if drawing.page is None:
        contents: dict[str, Any] = {"note": drawing.note, "figure": figure_html(drawing.draw("auto"))}
        page = render("figure.html", drawing.title, about, gallery=True, **contents)
    else:
        page = drawing.page(about)
    write_page(page, folder / f"{stem}.html", about)
    images: list[str] = []
    if kinds:
        paths = write_images({stem: (on_white(drawing.draw("light")), about)}, folder, kinds, width=_WIDTH)
        images = [path.name for path in paths]
    page_name = f"{stem}.html"
    return Item(drawing.title, drawing.note, page_name, images[0] if images else "", (*images, f"{page_name}.json"))
