"""Writing a gallery: each figure whole or not at all, and an index of what is there and what is not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from tqdm.auto import tqdm

from nextlat_viz import figures, io, latents, worlds
from nextlat_viz.analysis import measure
from nextlat_viz.errors import unknown
from nextlat_viz.figures.export import FORMATS, browser, on_white
from nextlat_viz.figures.gallery import stand_alone, write_page
from nextlat_viz.figures.index_page import Card, figure_page, index_page
from nextlat_viz.figures.page import INDEX, PLOTLY
from nextlat_viz.gallery.plates import OVERALL, PLATES, Plate, Shown, every_seed
from nextlat_viz.gallery.runs import Group, grouped
from nextlat_viz.training.checkpoint import Checkpoint, load, shipped_folders

IMAGES = tuple(kind for kind in FORMATS if kind != "html")
_WIDTH = 1000
_ALL, _OTHERS = "All worlds", "Other worlds, without models"
_NOTE = (
    "Drawn from {what}. Results over seeds show every seed, beside their controls; a picture of single runs says of "
    "which. Episodes can be stepped through without a kernel. The pages share plotly.min.js: keep the folder together."
)


def write_gallery(
    runs: Sequence[Checkpoint | str | os.PathLike[str]] = (),
    out: str | os.PathLike[str] = "gallery",
    *,
    images: Sequence[str] = ("svg",),
    progress: bool = True,
) -> Path:
    """Write every figure that fits some runs into a folder, and an ``index.html`` that leads to them.

    Parameters
    ----------
    runs : checkpoints, names or folders
        They are measured first, each result being kept in the folder as soon as it is known. Of the shipped ones, which
        are taken when none are given, the shipped results are drawn, and every world there is gets a page.
    out : folder
    images : of {"svg", "png", "pdf"}
        Kinds of image of each figure, beside its page and the JSON that says where it came from. They need a
        Chromium-based browser; without one there are pages alone, and the index says so.
    progress : bool

    Returns
    -------
    Path
        The index, which is written last. What cannot be drawn is said there.

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
    for kind in images:
        if kind not in IMAGES:
            raise unknown("kind of image", kind, IMAGES)
    folder = Path(out)
    groups = _shipped() if not runs else _own(runs, folder, progress)
    missing: dict[str, str] = {}
    if images and browser() is None:
        missing["Images"] = "no Chrome or Chromium was found to draw them with; the pages need none"
        images = ()
    io.write(folder / PLOTLY, get_plotlyjs())
    jobs = list(_jobs(groups))
    for plate in PLATES:
        if not any(plate.fits(group) for group in groups):
            missing[plate.title] = f"needs {plate.needs}"
    sections: dict[str, list[Card]] = {}
    writer = _Writer(folder, images)
    with figures.one_browser(), tqdm(jobs, desc="figures", unit="figure", disable=not progress) as bar:
        for heading, title, make in bar:
            bar.set_postfix_str(f"{title}, {heading}", refresh=False)
            try:
                for card in make(writer):
                    sections.setdefault(heading, []).append(card)
            except OSError:
                raise
            except Exception as error:
                # One figure that fails must not take the others along.
                missing[f"{title}, {heading}"] = f"{type(error).__name__}: {error}"
    names = [run.name for group in groups for run in group.runs]
    count = f"{len(names)} run{'s' * (len(names) != 1)}"
    what = f"{count} of yours" if runs else f"the {count} that are shipped"
    index = index_page("Gallery", _NOTE.format(what=what), sections, missing, {"runs": names})
    return write_page(index, folder / INDEX, {"runs": names, "missing": missing})


def _shipped() -> list[Group]:
    """Groups of the shipped runs, then every other world without runs."""
    with_runs = grouped([load(one) for one in shipped_folders()], measure.results())
    shown = {group.world.name for group in with_runs}
    others = [worlds.get(name) for name in worlds.names() if name not in shown]
    return with_runs + [Group(world.name, world, (), measure.results()) for world in others]


def _own(runs: Sequence[Checkpoint | str | os.PathLike[str]], folder: Path, progress: bool) -> list[Group]:
    loaded = [one if isinstance(one, Checkpoint) else load(one) for one in runs]
    wanted = [*OVERALL, *(name for plate in PLATES for name in plate.measures)]
    fitting = [name for name in wanted if any(name in measure.battery(run) for run in loaded)]
    return grouped(loaded, measure.evaluate(loaded, fitting, out=folder, progress=progress).table)


class _Writer:
    """Puts a figure into its files and says what the index needs to know."""

    def __init__(self, folder: Path, images: Sequence[str]) -> None:
        self.folder, self.images = folder, images

    def figure(self, shown: Shown, provenance: Mapping[str, Any]) -> Card:
        page = f"{shown.name}.html"
        about = {"command": "nextlat-viz figures", "title": shown.title, "note": shown.note, **provenance}
        write_page(figure_page(shown.draw("auto"), shown.title, shown.note, about), self.folder / page, about)
        files = [*self.image(shown.name, lambda: shown.draw("light"), about), f"{shown.name}.json"]
        return Card(shown.title, shown.note, page, files[0] if self.images else "", tuple(files))

    def image(self, name: str, draw: Callable[[], go.Figure], about: Mapping[str, Any]) -> list[str]:
        if not self.images:
            return []
        paper = on_white(draw())
        for kind in self.images:
            figures.write(paper, self.folder / f"{name}.{kind}", about, width=paper.layout.width or _WIDTH)
        return [f"{name}.{kind}" for kind in self.images]


_Make = Callable[[_Writer], Iterator[Card]]


def _jobs(groups: Sequence[Group]) -> Iterator[tuple[str, str, _Make]]:
    """Section, title and what makes the cards, in the order of the index."""
    with_beliefs = [group for group in groups if group.world.state_names and group.runs]
    if with_beliefs:

        def all_seeds(writer: _Writer) -> Iterator[Card]:
            yield writer.figure(every_seed(with_beliefs), _origin(with_beliefs))

        yield _ALL, "Every seed", all_seeds
    for group in groups:
        heading = group.name if group.runs else _OTHERS
        for plate in PLATES:
            if plate.fits(group):
                yield heading, plate.title, _drawn(plate, group)
        yield heading, "An episode to step through", _episode(group)


def _drawn(plate: Plate, group: Group) -> _Make:
    def make(writer: _Writer) -> Iterator[Card]:
        for shown in plate.shown(group):
            yield writer.figure(shown, _origin([group]))

    return make


def _episode(group: Group) -> _Make:
    def make(writer: _Writer) -> Iterator[Card]:
        world, name = group.world, f"episode_{group.name}"
        episode = group.episode()
        predicted = {}
        if world.predicts_next_token:
            for run in group.first:
                read = latents.extract(run, episode, ["hidden"], progress=False)
                predicted[run.label] = read.obsm["next_token_probs"]
        title = f"An episode of {group.name} to step through"
        note = "Where we are after every token, and what is true then"
        note += f"; beside it what {', '.join(predicted)} predict and what is right to predict." if predicted else "."
        about = {"command": "nextlat-viz figures", "title": title, **_origin([group])}
        page = stand_alone(world, episode, predicted, title=title, provenance=about, gallery=True)
        write_page(page, writer.folder / f"{name}.html", about)
        last = int(episode.length[0])

        def picture() -> go.Figure:
            return world.draw(world.pictures[0], episode=episode, position=last)

        files = writer.image(name, picture, about)
        yield Card(title, note, f"{name}.html", files[0] if files else "", (*files, f"{name}.json"))

    return make


def _origin(groups: Sequence[Group]) -> dict[str, Any]:
    """What a sidecar says of the runs behind a figure."""
    runs = [{"name": run.name, "step": run.step, "weights_sha256": run.weights_sha256}
            for group in groups for run in group.runs]  # fmt: skip
    return {"worlds": [group.world.spec for group in groups], "runs": runs}
