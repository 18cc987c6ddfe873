"""The state that linked widgets share: cursor, selection, world, training step, colour, layer and target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from traitlets import Bool, Dict, HasTraits, Int, Tuple, Unicode, observe, validate

from nextlat_viz.errors import LatentsError, at_least, is_number, one_of, unknown
from nextlat_viz.figures.rows import Coloring, prefix
from nextlat_viz.figures.theme import Theme
from nextlat_viz.notebook import colors
from nextlat_viz.notebook.jobs import Cancelled, Jobs, Waiting
from nextlat_viz.notebook.scene import Scene
from nextlat_viz.notebook.sources import Source, by_world, common_steps, end_together, extract_missing
from nextlat_viz.notebook.threads import Loop, Results
from nextlat_viz.worlds import checks

MAX_POINTS = 8_000
# Seconds to wait for a UMAP before drawing without it: a cached UMAP is ready by then.
_PATIENCE = 0.3
_ARRANGED = ("view", "beside", "detail", "large", "folded")


class ViewState(HasTraits):
    """What linked widgets show. Give one state to several widgets and they follow each other.

    Assigning an attribute only checks the value. To show a world or training step that has not been loaded yet, call
    `show`.

    Parameters
    ----------
    *models
        Models side by side: checkpoints, their names, or latents; of one world or several. Or one dict
        ``{world name: [models]}``. The first world is loaded at once, the others when they are first shown.
    untrained : AnnData, or sequence of AnnData or None, optional
        For latents, those of the untrained model, one per model: the control of every probe. Checkpoints bring
        their own.
    max_points : int
        Clouds draw whole episodes up to about this many rows.

    Attributes
    ----------
    world : str
    color, site, target : str
        What colours the points (a column, or for each model its own ``"model:surprise"``, ``"model:entropy"``,
        ``"model:error"``), the layer shown, and the target of the probes.
    episode, position : int
        The cursor: after `position` tokens of the episode.
    selection : tuple of (episode, position)
        The rows selected, by lasso, box or click; empty for none.
    filter : dict of {column: values}
        Rows with one of the given values in every column are highlighted, the others fade; empty for all.
    compared : tuple of str
        Names of the two models that are shown large, the reference first; a name or a label may be assigned. By default
        the first model and the first of another objective. Each world keeps its own.
    step : int or None
        The training step shown; None is the end of training.
    dark : bool or None
        Paint figures dark or light; None leaves the page's background.
    arrangement : dict of {world: {choice: value}}
        The user's changes to the studio's layout: ``"view"`` of the latents, the panels ``"beside"`` and in
        ``"detail"``, the ``"large"`` panel, the ``"folded"`` panels. `arrange` changes it for the present world.
    scenes : Results
        The models at each world and training step that has been loaded.
    loop : Loop
        The kernel's event loop: where panels are redrawn.
    jobs, layouts, history : Jobs
        The queues of slow computations, shared by all widgets of this state. UMAPs (`layouts`) and results of many
        training steps (`history`) have their own queues, so that probes in `jobs` do not wait for them.

    Raises
    ------
    UnknownNameError
        A checkpoint, world, colour, layer, target or step that does not exist; also when one is assigned.
    LatentsError
        Models of one world that did not read the same episodes, or an assigned world or step that is not loaded.

    Examples
    --------
    >>> state = ViewState({"rrxor": ["rrxor/next_token", "rrxor/nextlat"]})
    >>> state.labels
    ['next-token', 'NextLat']
    >>> state.selection = [(0, 1), (0, 2)]
    >>> state.selected[["episode", "position"]].to_numpy().tolist()
    [[0, 1], [0, 2]]
    >>> state.show(step=200)
    >>> state.step
    200
    """

    world = Unicode()
    color = Unicode("state")
    site = Unicode("hidden")
    target = Unicode("belief")
    episode = Int(-1)
    position = Int(1)
    selection = Tuple()
    filter = Dict()
    compared = Tuple()
    step = Int(None, allow_none=True)
    dark = Bool(None, allow_none=True)
    arrangement = Dict()

    def __init__(
        self,
        *models: Any,
        untrained: AnnData | Sequence[AnnData | None] | None = None,
        max_points: int = MAX_POINTS,
    ) -> None:
        max_points = at_least("max_points", max_points)
        super().__init__()
        self.loop = Loop()
        self.jobs, self.layouts, self.history = Jobs(self.loop), *(Jobs(self.loop, _PATIENCE) for _ in range(2))
        self._sources = by_world(models, untrained)
        self._max_points = max_points
        self.scenes = Results()
        self._compared: dict[str, tuple[str, ...]] = {}
        # The world and step that the user waits for, and the callback for an error.
        self._request: tuple[str, int | None, Callable[[Exception], None]] | None = None
        self.show(next(iter(self._sources)))

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
        """The worlds of the models."""
        return list(self._sources)

    def sources_of(self, world: str) -> list[Source]:
        """The models of a world, loaded or not."""
        return self._sources[world]

    @property
    def scene(self) -> Scene:
        """The models of the world at the training step, and what has been computed about them."""
        scene: Scene | None = self.scenes.peek((self.world, self.step))
        return self.load(self.world, self.step) if scene is None else scene

    @property
    def latents(self) -> list[AnnData]:
        """The latents of every model side by side, at the training step."""
        return self.scene.latents

    @property
    def labels(self) -> list[str]:
        """The models' labels."""
        return self.scene.labels

    @property
    def pair(self) -> list[int]:
        """Numbers of the `compared` models, the reference first."""
        return [self.scene.names.index(name) for name in self.compared]

    def coloring(self, model: int) -> str | Coloring:
        """Return what colours a model's rows: the name of a column, or the model's own numbers."""
        return colors.model_coloring(self.scene, self.color, model, self.pair, self.target, self.site)

    @property
    def steps(self) -> list[int]:
        """Training steps at which every model has saved its weights; empty if only the end is saved."""
        return common_steps(self.sources)

    @property
    def step_choices(self) -> list[tuple[str, int | None]]:
        """Label and value of every step to choose from, ascending; the last is the end of training, None."""
        steps = self.steps
        together = end_together(self.sources)
        earlier: list[tuple[str, int | None]] = [(f"{step:,}", step) for step in (steps[:-1] if together else steps)]
        return [*earlier, (f"{steps[-1]:,}" if steps and together else "end" if steps else "last", None)]

    @property
    def sources(self) -> list[Source]:
        """The models of the present world, each at all its training steps."""
        return self.sources_of(self.world)

    @property
    def theme(self) -> Theme:
        """`dark`, as figures expect it."""
        return "auto" if self.dark is None else "dark" if self.dark else "light"

    @property
    def rows(self) -> np.ndarray:
        """Row numbers of the selection."""
        return self.scene.rows(self.selection)

    @property
    def kept(self) -> np.ndarray:
        """Which rows the filter keeps, a boolean per row."""
        return self.scene.kept(self.filter)

    @property
    def highlighted(self) -> np.ndarray | None:
        """Row numbers to highlight: selected rows that the filter keeps; without a selection, all rows it keeps."""
        if not self.filter:
            return self.rows if self.selection else None
        return self.rows[self.kept[self.rows]] if self.selection else np.flatnonzero(self.kept)

    @property
    def selected(self) -> pd.DataFrame:
        """The selected rows as a table: the tokens read, the true state, and each model's probe error or NaN."""
        scene, rows = self.scene, self.rows
        table = scene.latents[0].obs.iloc[rows].copy()
        if not scene.recursive:
            lines = scene.tokens[scene.episodes.searchsorted(table["episode"])]
            read = zip(lines, table["position"], strict=True)
            table.insert(2, "tokens read", [prefix(line[:position], scene.vocabulary) for line, position in read])
        for model, label in enumerate(scene.labels):
            try:
                table[f"error, {label}"] = scene.mistakes(model, self.target, self.site)[rows]
            except LatentsError:
                # No probe: the target is constant or has gaps, or there are too few episodes. Its panel says which.
                table[f"error, {label}"] = np.nan
        return table

    def select(self, rows: Any) -> None:
        """Select rows.

        Parameters
        ----------
        rows : ints, or booleans for every row
            Such as ``state.latents[0].obs["position"] > 8``.

        Raises
        ------
        LatentsError
            For rows that are not there, floats, and a mask of another length.
        """
        numbers = checks.row_numbers("rows", rows, self.latents[0].n_obs)
        self.selection = self.scene.keys(np.unique(numbers).tolist())

    def go_to(self, episode: int, position: int) -> None:
        """Move the cursor and notify observers once. A position outside of the table moves to the nearest in it.

        Raises
        ------
        ValueError
            For an episode that is not there, and a position that is not an integer of at least 0; the cursor stays.
        """
        # Check before setting anything: traits are not validated while notifications are held.
        episode, position = self._episode_number(episode), at_least("position", position, 0)
        with self.hold_trait_notifications():
            self.episode = episode
            self.position = position

    def go_to_row(self, row: int) -> None:
        """Move the cursor to a row of the table."""
        (episode, position), *_ = self.scene.keys([row])
        self.go_to(episode, position)

    def arrange(self, **choices: Any) -> None:
        """Arrange the studio's panels in the present world; the choices are those of `arrangement`.

        Examples
        --------
        >>> state = ViewState("rrxor/next_token", "rrxor/nextlat")
        >>> state.arrange(view="umap", detail="ahead")
        >>> state.arrangement
        {'rrxor': {'view': 'umap', 'detail': 'ahead'}}
        """
        self.arrangement = {**self.arrangement, self.world: {**self.arrangement.get(self.world, {}), **choices}}

    def show(self, world: str | None = None, step: int | None = None) -> None:
        """Show a world at a training step; load its checkpoints and extract latents first if that is not done yet.

        Parameters
        ----------
        world : str, optional
            Default the present one.
        step : int, optional
            Default the end of training.

        Examples
        --------
        >>> state = ViewState("rrxor/next_token", "rrxor/nextlat")
        >>> state.step = 200
        Traceback (most recent call last):
        ...
        nextlat_viz.errors.LatentsError: step 200 of 'rrxor' is not loaded: call state.show(step=200)
        >>> state.show(step=200)
        """
        world = self.world if world is None else world
        self.load(world, step)
        self._moved()
        if self.world != world:
            self.world = world
        self.step = step

    def request(self, world: str, step: int | None, failed: Callable[[Exception], None]) -> None:
        """Load a world at a training step in the job queue, then show it; until then the view does not change.

        A later request, or any other change of world or step, replaces this one. If loading fails, `failed` is called
        with the error; if it is cancelled, the queue's note says so.
        """
        self._moved()
        self.jobs.forget(self.scenes, (world, step))
        self._request = world, step, failed
        self._answer()

    def withdraw(self, failed: Callable[[Exception], None]) -> None:
        """Forget the request that was made with this callback."""
        if self._request is not None and self._request[2] == failed:
            self._moved()

    def lacks(self, world: str, step: int | None) -> bool:
        """Whether latents must be extracted before a world can be shown at a training step."""
        return not all(source.has(step) for source in self._sources[world])

    def load(self, world: str, step: int | None, progress: Callable[[float, int, str], None] | None = None) -> Scene:
        """Extract missing latents for a step, None for the end of training, without changing the view. Thread-safe.

        `progress` as in `extract_missing`.
        """
        if world not in self._sources:
            raise unknown("world", world, self._sources)
        step = self._known_at(world, step)

        def compute() -> Scene:
            extract_missing(self._sources[world], step, progress)
            end = None if step is None else self.load(world, None)
            return Scene(self._sources[world], step, self._max_points, end)

        return self.scenes.get((world, step), compute)

    @property
    def busy(self) -> bool:
        """Whether a panel is about to be drawn, a job runs, or a requested world or training step is not shown yet."""
        queues = (self.jobs, self.layouts)
        return self._request is not None or self.loop.waiting or any(queue.running for queue in queues)

    def _answer(self) -> None:
        """Show the requested world and step, or queue the extraction of its latents."""
        if self._request is None:
            return
        world, step, failed = self._request
        place = world if step is None else f"step {step:,}"
        try:
            if self.lacks(world, step):
                # First, before waiting probes: a user who leaves this world does not need its probes any more.
                self.jobs.ask(
                    self.scenes,
                    (world, step),
                    place,
                    lambda: self.load(world, step, self.jobs.report),
                    self._answer,
                    first=True,
                )
            self.show(world, step)
        except Waiting:
            return
        except Cancelled:
            self.jobs.say(f"Going to {place} was cancelled: choose it again to go there.")
        except Exception as error:
            failed(error)
        self._request = None

    @observe("world", "step")
    def _moved(self, change: Any = None) -> None:
        """Forget the request, so that it does not move the user away from the new world or step later."""
        if self._request is not None:
            self._request = None
            self.jobs.withdraw(self._answer)

    def _known_at(self, world: str, step: int | None) -> int | None:
        """Check a training step of a world, and return None for the last."""
        if step is None:
            return None
        steps = common_steps(self._sources[world])
        if step not in steps:
            raise unknown("training step", step, map(str, steps))
        return None if step == steps[-1] and end_together(self._sources[world]) else step

    @validate("world")
    def _known_world(self, proposal: Any) -> str:
        name: str = proposal["value"]
        if name not in self._sources:
            raise unknown("world", name, self._sources)
        if self.lacks(name, None):
            raise LatentsError(f"world {name!r} is not loaded: call state.show({name!r})")
        # Raises here, before the state changes, if the models read different episodes.
        self.load(name, None)
        return name

    @validate("color")
    def _known_color(self, proposal: Any) -> str:
        return one_of("colour", proposal["value"], colors.options(self.scene).values())

    @validate("site")
    def _known_site(self, proposal: Any) -> str:
        return one_of("layer", proposal["value"], self.scene.sites)

    @validate("target")
    def _known_target(self, proposal: Any) -> str:
        return one_of("target", proposal["value"], self.scene.targets)

    @validate("step")
    def _known_step(self, proposal: Any) -> int | None:
        step = self._known_at(self.world, proposal["value"])
        if self.lacks(self.world, step):
            raise LatentsError(f"step {step} of {self.world!r} is not loaded: call state.show(step={step})")
        return step

    @validate("episode")
    def _known_episode(self, proposal: Any) -> int:
        return self._episode_number(proposal["value"])

    def _episode_number(self, episode: Any) -> int:
        episodes = self.scene.episodes
        if not is_number(episode) or episode not in episodes:
            raise ValueError(f"no episode {episode}: there are {len(episodes)}, from {episodes[0]} to {episodes[-1]}")
        return int(episode)

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
        return self.scene.known_filter(proposal["value"])

    @validate("compared")
    def _known_models(self, proposal: Any) -> tuple[str, ...]:
        names = self.scene.compared(proposal["value"])
        self._compared[self.world] = names
        return names

    @validate("arrangement")
    def _known_arrangement(self, proposal: Any) -> dict[str, dict[str, Any]]:
        for world, choices in proposal["value"].items():
            one_of("world", world, self._sources)
            for name in choices:
                one_of("choice of the arrangement", name, _ARRANGED)
        return {world: dict(choices) for world, choices in proposal["value"].items()}

    @observe("world")
    def _settle(self, change: Any) -> None:
        """Keep the settings that the new world has too, reset the others, and go to its opening position."""
        # The end of training: the step shown before may not exist here.
        scene = self.load(self.world, None)
        with self.hold_trait_notifications():
            self.step = None
            self.selection = ()
            self.filter = {}
            self.compared = self._compared.get(self.world) or scene.compared()
            self.color = self.color if self.color in colors.options(scene).values() else colors.default(scene)
            self.site = self.site if self.site in scene.sites else scene.sites[-1]
            self.target = self.target if self.target in scene.targets else scene.targets[0]
            if self.episode not in scene.episodes:
                self.episode = int(scene.held_out_episodes[0])
            self.position = scene.opening_position(self.episode) or self.position
            self._stay_inside()

    @observe("episode")
    def _stay_inside(self, change: Any = None) -> None:
        places = self.scene.positions(self.episode)
        self.position = min(max(self.position, places[0]), places[-1])
