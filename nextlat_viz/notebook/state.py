"""The shared cursor: what linked widgets look at, and what has been computed for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Integer
from traitlets import Bool, Dict, HasTraits, Int, Tuple, Unicode, observe, validate

from nextlat_viz.errors import unknown
from nextlat_viz.figures.rows import color_options
from nextlat_viz.figures.theme import Theme
from nextlat_viz.notebook.scene import Scene
from nextlat_viz.notebook.sources import by_world

MAX_POINTS = 8_000


class ViewState(HasTraits):
    """What linked widgets look at. Give one to several widgets and they follow each other.

    Parameters
    ----------
    *what
        Models side by side: checkpoints, their names, or latents; of one world or several. Or one dict
        ``{world name: [models]}``, whose checkpoints are loaded when their world is first chosen.
    untrained : sequence of AnnData or None, optional
        For latents, those of the untrained model, one per model: the control of every probe. Checkpoints bring
        their own.
    max_points : int
        Clouds draw whole episodes up to about this many rows.

    Attributes
    ----------
    world : str
    color, site, target : str
        What clouds are coloured by, the layer looked at, and what probes read.
    episode, position : int
        Where the cursor is: after `position` tokens of the episode.
    selection : tuple of (episode, position)
        The rows selected, by lasso, box or click; empty for none.
    filter : dict of {column: values}
        Rows that have one of the values in every column named stand out, the others fade; empty for all.
    step : int or None
        The training step looked at; None is the end of training.
    dark : bool or None
        Paint figures dark or light; None leaves the page's background.

    Raises
    ------
    UnknownNameError
        A checkpoint, world, colour, layer, target or step that does not exist; also when one is assigned.
    LatentsError
        Models of one world that did not read the same episodes.

    Examples
    --------
    >>> state = ViewState({"rrxor": ["rrxor/next_token", "rrxor/nextlat"]})
    >>> state.labels
    ['next-token', 'NextLat']
    >>> state.selection = [(0, 1), (0, 2)]
    >>> state.selected[["episode", "position"]].to_numpy().tolist()
    [[0, 1], [0, 2]]
    """

    world = Unicode()
    color = Unicode("state")
    site = Unicode("hidden")
    target = Unicode("belief")
    episode = Int(-1)
    position = Int(1)
    selection = Tuple()
    filter = Dict()
    step = Int(None, allow_none=True)
    dark = Bool(None, allow_none=True)

    def __init__(
        self,
        *what: Any,
        untrained: Sequence[AnnData | None] | None = None,
        max_points: int = MAX_POINTS,
    ) -> None:
        super().__init__()
        self._sources = by_world(what, untrained)
        self._max_points = max_points
        self._scenes: dict[tuple[str, int | None], Scene] = {}
        self.world = next(iter(self._sources))

    def __dir__(self) -> list[str]:
        own = {name for name in vars(type(self)) if not name.startswith("_")}
        return sorted({*own, "observe", "unobserve", "unobserve_all"})

    def __repr__(self) -> str:
        return (
            f"ViewState(world={self.world!r}, models={self.labels}, color={self.color!r}, site={self.site!r}, "
            f"episode={self.episode}, position={self.position}, {len(self.selection)} rows selected)"
        )

    @property
    def worlds(self) -> list[str]:
        """The worlds there are models of."""
        return list(self._sources)

    @property
    def scene(self) -> Scene:
        """The models of the world at the training step, and what is known about them."""
        return self._scene(self.world, self.step)

    @property
    def latents(self) -> list[AnnData]:
        """The latents of every model side by side, at the training step."""
        return self.scene.latents

    @property
    def labels(self) -> list[str]:
        """What the models are called."""
        return self.scene.labels

    @property
    def steps(self) -> list[int]:
        """Training steps at which every model can be seen; empty where there is only the end."""
        kept = [set(source.steps) for source in self._sources[self.world]]
        common = sorted(set.intersection(*kept))
        return common if len(common) > 2 else []

    @property
    def theme(self) -> Theme:
        """`dark`, as figures take it."""
        return "auto" if self.dark is None else "dark" if self.dark else "light"

    @property
    def rows(self) -> np.ndarray:
        """Row numbers of the selection."""
        return self.scene.rows(self.selection)

    @property
    def kept(self) -> np.ndarray:
        """Which rows the filter keeps, as booleans."""
        return self.scene.kept(self.filter)

    @property
    def selected(self) -> pd.DataFrame:
        """The selected rows as a table: what was true there and, per model, the error of its probe."""
        scene, rows = self.scene, self.rows
        first = scene.latents[0]
        table = first.obs.iloc[rows].copy()
        for label, i in zip(scene.labels, range(len(scene.latents)), strict=True):
            table[f"error, {label}"] = scene.mistakes(i, self.target, self.site)[rows]
        return table

    def select(self, rows: Iterable[int] | Integer[np.ndarray, " rows"]) -> None:
        """Select rows by number."""
        self.selection = self.scene.keys(np.unique(np.fromiter(rows, dtype=np.int64)).tolist())

    def go_to(self, episode: int, position: int) -> None:
        """Move the cursor, with one notice to those who watch."""
        with self.hold_trait_notifications():
            self.episode = episode
            self.position = position

    def lacks(self, world: str, step: int | None) -> bool:
        """Whether latents must be extracted before a world can be seen at a training step."""
        return not all(source.has(step) for source in self._sources[world])

    def extract(self, world: str, step: int | None, progress: Callable[[float, int, str], None] | None = None) -> None:
        """Extract the latents a world lacks at a training step, and go nowhere: from any thread.

        Parameters
        ----------
        world : str
        step : int or None
        progress : callable, optional
            ``progress(done, total, said)``: how many models are done, of how many, and in words; what it raises ends
            the extraction.
        """
        lacking = [source for source in self._sources[world] if not source.has(step)]
        when = "" if step is None else f" at step {step:,}"
        for i, source in enumerate(lacking):
            said = f"Extracting {source.label}{when} … {i + 1} of {len(lacking)}"

            def tell(read: int, episodes: int, i: int = i, said: str = said) -> None:
                if progress is not None:
                    progress(i + read / episodes, len(lacking), said)

            tell(0, 1)
            source.latents(step, tell)

    def _scene(self, world: str, step: int | None) -> Scene:
        if (world, step) not in self._scenes:
            end = None if step is None else self._scene(world, None)
            self._scenes[world, step] = Scene(self._sources[world], step, self._max_points, end)
        return self._scenes[world, step]

    @validate("world")
    def _known_world(self, proposal: Any) -> str:
        name: str = proposal["value"]
        if name not in self._sources:
            raise unknown("world", name, self._sources)
        # Models that cannot be loaded leave the state where it was.
        self._scene(name, None)
        return name

    @validate("color")
    def _known_color(self, proposal: Any) -> str:
        return _one_of("colour", proposal["value"], color_options(self.latents[0]).values())

    @validate("site")
    def _known_site(self, proposal: Any) -> str:
        return _one_of("layer", proposal["value"], self.scene.sites)

    @validate("target")
    def _known_target(self, proposal: Any) -> str:
        return _one_of("target", proposal["value"], self.scene.targets)

    @validate("step")
    def _known_step(self, proposal: Any) -> int | None:
        step = proposal["value"]
        if step is not None and step not in self.steps:
            raise unknown("training step", step, map(str, self.steps))
        if step is not None and step == self.steps[-1]:
            return None
        self._scene(self.world, step)
        return step

    @validate("episode")
    def _known_episode(self, proposal: Any) -> int:
        episodes = self.scene.episodes
        if proposal["value"] not in episodes:
            raise ValueError(
                f"no episode {proposal['value']}: there are {len(episodes)}, from {episodes[0]} to {episodes[-1]}"
            )
        return int(proposal["value"])

    @validate("position")
    def _inside_episode(self, proposal: Any) -> int:
        places = self.scene.positions(self.episode)
        return min(max(proposal["value"], places[0]), places[-1])

    @validate("selection")
    def _known_rows(self, proposal: Any) -> tuple[tuple[int, int], ...]:
        keys = proposal["value"]
        if not all(isinstance(key, (tuple, list)) and len(key) == 2 for key in keys):
            raise ValueError(f"selection must hold (episode, position) pairs, such as [(0, 1)], got {keys!r:.100}")
        rows = self.scene.rows(keys)
        if len(rows) != len(keys):
            raise ValueError(f"selection holds {len(keys) - len(rows)} (episode, position) pairs that are not there")
        return self.scene.keys(rows.tolist())

    @validate("filter")
    def _known_values(self, proposal: Any) -> dict[str, tuple[Any, ...]]:
        scene, kept = self.scene, {}
        if not isinstance(proposal["value"], Mapping):
            raise ValueError(f"filter must be {{column: values}}, got {proposal['value']!r}")
        for name, wanted in proposal["value"].items():
            known = scene.values(_one_of("column", name, map(str, scene.latents[0].obs)))
            values = [wanted] if isinstance(wanted, str) or not isinstance(wanted, Iterable) else list(wanted)
            for one in values:
                if one not in known:
                    raise unknown(f"value of column {name!r}:", one, map(str, known))
            if values:
                kept[name] = tuple(one for one in known if one in values)
        return kept

    @observe("world")
    def _settle(self, change: Any) -> None:
        """Keep what the new world has too, and start afresh with the rest."""
        scene = self.scene
        colors = list(color_options(scene.latents[0]).values())
        telling = [name for name in scene.columns if name in colors]
        with self.hold_trait_notifications():
            self.step = None
            self.selection = ()
            self.filter = {}
            self.color = self.color if self.color in colors else [*telling, *colors][0]
            self.site = self.site if self.site in scene.sites else scene.sites[-1]
            self.target = self.target if self.target in scene.targets else scene.targets[0]
            if self.episode not in scene.episodes:
                self.episode = int(scene.held_out_episodes[0])
            places = scene.positions(self.episode)
            self.position = min(max(self.position, places[0]), places[-1])

    @observe("episode")
    def _stay_inside(self, change: Any) -> None:
        places = self.scene.positions(self.episode)
        self.position = min(max(self.position, places[0]), places[-1])


def _one_of(kind: str, name: str, known: Iterable[str]) -> str:
    names = list(known)
    if name not in names:
        raise unknown(kind, name, names)
    return name
