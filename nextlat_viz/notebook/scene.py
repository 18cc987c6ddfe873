"""The models of one world at one training step, and what has been computed about them.

Every result is computed once, whichever thread asks first, and kept in `Scene.results`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Bool, Float, Int

from nextlat_viz import analysis
from nextlat_viz.analysis.reading import read_string
from nextlat_viz.display import LONGEST, distinct, shorten
from nextlat_viz.errors import LatentsError, one_of, unknown
from nextlat_viz.figures.rows import prefix
from nextlat_viz.latents import column, meta, sites, tokens_of, world_of
from nextlat_viz.latents import site as site_of
from nextlat_viz.notebook.sources import Source, puzzles
from nextlat_viz.notebook.threads import Results
from nextlat_viz.worlds import Episodes, drawing
from nextlat_viz.worlds.strings import prompt_tokens

if TYPE_CHECKING:
    from nextlat_viz.analysis import ProbeResult, Projection, Trajectory
    from nextlat_viz.analysis.projection.umap import Progress
    from nextlat_viz.analysis.reading import StringReading
    from nextlat_viz.latents import Thinking
    from nextlat_viz.training import Checkpoint
    from nextlat_viz.worlds import World

Row = tuple[int, int]
_TEXT_COLUMNS = ("position", "token", "token_id")
# More names than a colour key can tell apart.
_MANY_NAMES = 20
# How many episodes and trajectories to keep: a user who steps through thousands returns only to the last few.
_KEPT = 64


class Scene:
    """The models of one world side by side, on the same rows, at a training step; None for the end of training.

    Parameters
    ----------
    max_points : int
        Views draw whole episodes up to about this many rows; numbers always come from all rows.
    reference : Scene, optional
        Projections are aligned with the one of its first model's last layer, so that they can be compared across
        models, layers and steps; default this scene.

    Raises
    ------
    LatentsError
        When the models did not read the same episodes.
    """

    def __init__(
        self, sources: Sequence[Source], step: int | None, max_points: int, reference: Scene | None = None
    ) -> None:
        self._sources = sources
        self._step = step
        self._max_points = max_points
        self._reference = reference or self
        self.results = Results()
        self._paths, self._read, self._strings = (Results(most=_KEPT) for _ in range(3))
        self.latents: list[AnnData] = [source.latents(step) for source in sources]
        first = self.latents[0]
        for other in self.latents[1:]:
            same = meta(other)["episodes_sha256"] == meta(first)["episodes_sha256"]
            if not same or not other.obs_names.equals(first.obs_names):
                worlds = [table["world"] for table in (meta(first), meta(other))]
                if worlds[0] != worlds[1]:
                    raise LatentsError(
                        f"{meta(first)['name']!r} and {meta(other)['name']!r} are of two worlds with the name "
                        f"{self._sources[0].world_name!r} and other parameters, so their rows cannot be linked: open "
                        "models of one world, or give them as a dict {world name: [models]}"
                    )
                raise LatentsError(
                    f"{meta(first)['name']!r} and {meta(other)['name']!r} did not read the same episodes, so their "
                    "rows cannot be linked: extract both with the same episodes=..."
                )

    @cached_property
    def world(self) -> World:
        return world_of(self.latents[0])

    @cached_property
    def recursive(self) -> bool:
        """Whether the rows of an episode are the recursion steps of a puzzle."""
        return "recursion_steps" in meta(self.latents[0])

    @cached_property
    def prompt(self) -> int:
        """Length of the prompt: the tokens at the start of every episode that no model is trained to predict."""
        try:
            world = self.world
        except LatentsError:
            return 0
        # Ask the world: the table does not hold the loss mask.
        return prompt_tokens(world)

    @cached_property
    def vocabulary(self) -> list[str]:
        """The names of the tokens, also when the world is not known."""
        return list(meta(self.latents[0])["vocabulary"])

    @cached_property
    def full_labels(self) -> list[str]:
        """The models' labels; if two are the same, each gets the model's name added, then a number."""
        metas = [meta(latents) for latents in self.latents]
        labels = [str(about["label"]) for about in metas]
        if len(set(labels)) < len(labels):
            labels = distinct(f"{about['label']}, {str(about['name']).rpartition('/')[2]}" for about in metas)
        return labels

    @cached_property
    def labels(self) -> list[str]:
        """The models' labels; where only the first letters are shown, those are told apart too."""
        labels = self.full_labels
        alike = len(set(map(shorten, labels))) < len(labels)
        return distinct(shorten(label, LONGEST - 9) for label in labels) if alike else labels

    @cached_property
    def names(self) -> list[str]:
        """The models' names, the same at every training step; equal names get a number added."""
        return distinct(str(meta(latents)["name"]) for latents in self.latents)

    def compared(self, models: Sequence[Any] = ()) -> tuple[str, ...]:
        """Return the names of the reference and of the model compared with it, from their names or labels.

        Default: the first model, and the first with another objective. A scene of one model has one name.
        """
        if not isinstance(models, (tuple, list)) or len(models) not in (0, min(2, len(self.names))):
            raise ValueError(
                f"compared must be two models, the reference first, of {', '.join(self.labels)}; got {models!r:.200}"
            )
        if not models:
            objectives = [json.loads(meta(latents)["card"]).get("objective") for latents in self.latents]
            others = [name for name, kind in zip(self.names, objectives, strict=True) if kind != objectives[0]]
            return (self.names[0], *(others or self.names[1:])[:1])
        known = dict(zip([*self.labels, *self.names], self.names * 2, strict=True))
        full = dict(zip(self.full_labels, self.names, strict=True))
        names = tuple(known[one_of("model", full.get(str(model), model), known)] for model in models)
        if len(set(names)) < len(names):
            raise ValueError(f"compared must be two different models, got {names[0]!r} twice")
        return names

    @cached_property
    def sites(self) -> list[str]:
        """The layers that all models have, first to last."""
        return [name for name in sites(self.latents[0]) if all(name in sites(latents) for latents in self.latents)]

    @cached_property
    def columns(self) -> list[str]:
        """The columns of ``obs`` without the episode: the world's state, then columns of many names, then the text."""
        obs = self.latents[0].obs

        def rank(name: str) -> int:
            if name in _TEXT_COLUMNS:
                return 2
            many = not pd.api.types.is_numeric_dtype(obs[name]) and obs[name].nunique() > _MANY_NAMES
            return int(many)

        return sorted((str(name) for name in obs if name != "episode"), key=rank)

    @cached_property
    def targets(self) -> list[str]:
        first = self.latents[0]
        arrays = [str(name) for name in first.obsm if not str(name).startswith(("X_", "next_token_probs"))]
        exact = [str(name) for name in first.obsm if name == "next_token_probs_exact"]
        gaps = [name for name in self.columns if first.obs[name].isna().any()]
        whole = [name for name in self.columns if name not in gaps]
        # The first is the default target: a belief, else a column without gaps. Hundreds of probabilities come last.
        names = [*whole, *arrays] if "belief" not in arrays else [*arrays, *whole]
        return [*names, *gaps, *exact]

    @cached_property
    def placing(self) -> dict[str, tuple[str, ...]]:
        """Views whose coordinates probes predict, with the targets: the belief, if the world draws it, and x and y."""
        try:
            beliefs = "belief" in self.targets and hasattr(self.world, "belief_coordinates")
        except LatentsError:
            beliefs = False
        place: dict[str, tuple[str, ...]] = {"place": ("x", "y")} if {"x", "y"} <= set(self.targets) else {}
        return {"belief": ("belief",), **place} if beliefs else place

    @cached_property
    def episodes(self) -> Int[np.ndarray, " episodes"]:
        return np.unique(column(self.latents[0], "episode"))

    @cached_property
    def tokens(self) -> Int[np.ndarray, "episodes positions"]:
        """The tokens of every episode; -1 past its end."""
        return tokens_of(self.latents[0])

    @cached_property
    def shown(self) -> Int[np.ndarray, " rows"]:
        """The rows that are drawn: all, or those of as many episodes as `max_points` allows."""
        n = self.latents[0].n_obs
        if n <= self._max_points:
            return np.arange(n)
        keep = max(1, int(len(self.episodes) * self._max_points / n))
        return np.flatnonzero(np.isin(column(self.latents[0], "episode"), self.episodes[:keep]))

    @cached_property
    def _lookup(self) -> tuple[int, Int[np.ndarray, " rows"], Int[np.ndarray, " rows"]]:
        """The base of the numbers ``episode * base + position``, these numbers ascending, and the row of each."""
        first = self.latents[0]
        episode, position = column(first, "episode").astype(np.int64), column(first, "position").astype(np.int64)
        base = int(position.max()) + 1
        numbers = episode * base + position
        order = np.argsort(numbers, kind="stable")
        return base, numbers[order], order

    def rows(self, keys: Sequence[Row]) -> Int[np.ndarray, " keys"]:
        """Row numbers of (episode, position) pairs; unknown pairs are left out."""
        base, numbers, order = self._lookup
        pairs = np.array(keys, dtype=np.int64).reshape(-1, 2)
        queries = (pairs[:, 0] * base + pairs[:, 1])[(pairs[:, 1] >= 0) & (pairs[:, 1] < base)]
        nearest = np.minimum(np.searchsorted(numbers, queries), len(numbers) - 1)
        return order[nearest[numbers[nearest] == queries]]

    def keys(self, rows: Sequence[int]) -> tuple[Row, ...]:
        first, numbers = self.latents[0], np.asarray(rows, dtype=np.int64)
        episode, position = column(first, "episode")[numbers], column(first, "position")[numbers]
        return tuple(zip(episode.tolist(), position.tolist(), strict=True))

    def reads(self, row: int) -> str:
        """The last 24 tokens read up to a row; for a recursive model, its step."""
        first = self.latents[0]
        if self.recursive:
            return str(column(first, "token")[row])
        line = self.tokens[int(self.episodes.searchsorted(column(first, "episode")[row]))]
        return prefix(line[: column(first, "position")[row]], self.vocabulary)

    def positions(self, episode: int) -> list[int]:
        """The positions of an episode that the table holds, ascending; 0, the start token, only if it was extracted."""
        base, numbers, _ = self._lookup
        start, end = np.searchsorted(numbers, [episode * base, (episode + 1) * base])
        positions: list[int] = (numbers[start:end] - episode * base).tolist()
        return positions

    def opening_position(self, episode: int) -> int | None:
        """The position of the world's decisive prediction, or the middle of the predicted tokens; None if unknown."""
        if self.recursive:
            return None
        try:
            return drawing.opening_position(self.world, self.read(episode))
        except ValueError:
            # A table may hold illegal tokens, such as those that a model generated; its picture says so.
            return None

    def read(self, episode: int) -> Episodes:
        """Return one episode for its world to draw: the tokens, and the true states that the table holds.

        Raises
        ------
        LatentsError
            When the table does not hold every token of the episode, or its world is not known.
        """
        return self._read.get(episode, lambda: self._read_episode(episode))

    def _read_episode(self, episode: int) -> Episodes:
        line = self.tokens[int(self.episodes.searchsorted(episode))]
        tokens = line[: int(np.flatnonzero(line >= 0)[-1]) + 1][None]
        if (tokens < 0).any():
            raise LatentsError(f"the latents do not hold every token of episode {episode}, so it cannot be drawn")
        states = dict(self.world.replay(tokens))
        rows = self.rows([(episode, position) for position in self.positions(episode) if position > 0])
        if len(rows) == tokens.shape[1]:
            states = {**self._states(rows), **states}
        return Episodes(tokens, states)

    def _states(self, rows: Int[np.ndarray, " positions"]) -> dict[str, np.ndarray]:
        # Only these rows: reading a column of a million rows takes longer than the picture.
        part, names = self.latents[0][rows], self.world.state_values
        states = {}
        for name in (*map(str, part.obs), *(["belief"] if "belief" in part.obsm else [])):
            values = column(part, name)
            if name in names:
                values = pd.Index(names[name]).get_indexer(values)
            if values.dtype.kind in "iufb" and name not in ("episode", "position", "token_id"):
                states[name] = values[None]
        return states

    def known_filter(self, keep: Any) -> dict[str, tuple[Any, ...]]:
        """Check a filter {column: values}, and return it with its values in the column's order."""
        kept = {}
        if not isinstance(keep, Mapping):
            raise ValueError(f"filter must be {{column: values}}, got {keep!r}")
        for name, chosen in keep.items():
            known = self.values(one_of("column", name, map(str, self.latents[0].obs)))
            values = [chosen] if isinstance(chosen, str) or not isinstance(chosen, Iterable) else list(chosen)
            for value in values:
                if value not in known:
                    raise unknown(f"value of column {name!r}:", value, map(str, known))
            if values:
                kept[name] = tuple(value for value in known if value in values)
        return kept

    def kept(self, keep: Mapping[str, Sequence[Any]]) -> Bool[np.ndarray, " rows"]:
        """Which rows have one of the given values in every column."""
        mask = np.ones(self.latents[0].n_obs, dtype=bool)
        for name, values in keep.items():
            mask &= np.isin(column(self.latents[0], name), list(values))
        return mask

    def values(self, name: str) -> list[Any]:
        """The different values of a column of ``obs``, ascending; names in the world's order."""
        values = self.latents[0].obs[name]
        if isinstance(values.dtype, pd.CategoricalDtype):
            return [str(name) for name in values.cat.remove_unused_categories().cat.categories]
        different = np.unique(column(self.latents[0], name))
        return list(different[~pd.isna(different)].tolist())

    def checkpoint(self, model: int) -> Checkpoint | None:
        """The checkpoint that a model's latents were extracted from; None if the model was opened as latents."""
        return self._checkpoints[model]

    @property
    def opened(self) -> list[Checkpoint]:
        """The checkpoints of the models that were not given as latents."""
        return [checkpoint for checkpoint in self._checkpoints if checkpoint is not None]

    @cached_property
    def _checkpoints(self) -> list[Checkpoint | None]:
        return [source.at(self._step) for source in self._sources]

    def untrained(self, model: int) -> AnnData | None:
        """The untrained model's latents on the same rows."""
        return self._sources[model].untrained()

    def probe(self, model: int, target: str, site: str) -> ProbeResult:
        """The probe of one model, target and layer, with its controls."""
        return self.results.get(
            ("probe", model, target, site),
            lambda: analysis.probe(self.latents[model], target, site, untrained=self.untrained(model), progress=False),
        )

    def thinking(self, model: int) -> Thinking:
        """The answers of a recursive model to the puzzles, after each step."""

        def compute() -> Thinking:
            checkpoint = self.checkpoint(model)
            if checkpoint is None:
                raise LatentsError(
                    f"{self.labels[model]} was given as latents, and its answers take the model: open its checkpoint"
                )
            from nextlat_viz.latents import think

            return think(checkpoint, puzzles(checkpoint), int(column(self.latents[model], "position").max()))

        return self.results.get(("thinking", model), compute)

    def string(self, tokens: Int[np.ndarray, " T"], site: str) -> StringReading:
        """Read a string with every model that has a checkpoint, and take their latents at a layer."""
        models = {
            label: model for label, model in zip(self.labels, self._checkpoints, strict=True) if model is not None
        }
        return self._strings.get(
            (tokens.tobytes(), site),
            lambda: read_string(list(models.values()), tokens, site=site, labels=list(models)),
        )

    def by_site(self, model: int, target: str) -> pd.DataFrame:
        frames = [self.probe(model, target, site).to_frame() for site in self.sites]
        return pd.concat(frames, ignore_index=True)

    def by_position(self, model: int, target: str, site: str) -> pd.DataFrame:
        return self.results.get(
            ("positions", model, target, site),
            lambda: analysis.probe_positions(self.latents[model], self.probe(model, target, site)),
        )

    def pca(self, site: str) -> list[Projection]:
        """The PCA of every model at a layer, aligned with the reference's PCA."""

        def compute() -> list[Projection]:
            fixed = self._reference.pca_of(0, self._reference.sites[-1])
            return _aligned([self.pca_of(model, site) for model in range(len(self.latents))], fixed)

        return self.results.get(("pca", site), compute)

    def pca_of(self, model: int, site: str) -> Projection:
        """The PCA of one model at a layer, before alignment."""
        compute = lambda: analysis.project(self.latents[model], "pca", site, rows=self.shown)  # noqa: E731
        return self.results.get(("plane", model, site), compute)

    def umap_of(self, model: int, site: str, progress: Callable[[Progress], None] | None = None) -> Projection:
        """The UMAP of one model at a layer before alignment, from another process; `progress` may raise to stop it."""
        return self.results.get(
            ("umap", model, site),
            lambda: analysis.project_in_process(self.latents[model], progress, site=site, rows=self.shown),
        )

    def aligned_umaps(self, site: str, layouts: Sequence[Projection | str]) -> list[Projection | str]:
        """Align the UMAPs of a layer with the reference's UMAP, if it is computed; keep messages in their places."""
        fixed = self._reference.results.peek(("umap", 0, self._reference.sites[-1]))
        # Return the same objects for the same layouts, so that a figure of them is not redrawn.
        key = [layout if isinstance(layout, str) else id(layout) for layout in (*layouts, fixed)]

        def compute() -> list[Projection | str]:
            planes = iter(_aligned([layout for layout in layouts if not isinstance(layout, str)], fixed))
            return [layout if isinstance(layout, str) else next(planes) for layout in layouts]

        return self.results.get(("umaps", site, *key), compute)

    def mistakes(self, model: int, target: str, site: str) -> Float[np.ndarray, " rows"]:
        """Per row, the probe's squared error summed over dimensions, or its share of wrong classes."""
        return self.results.get(
            ("mistakes", model, target, site),
            lambda: analysis.probe_mistakes(self.latents[model], self.probe(model, target, site)),
        )

    def path(self, model: int, site: str, episode: int) -> Trajectory:
        """The trajectory of one episode: in belief space, else in the x and y that probes predict, else in PCA."""
        return self._paths.get((model, site, episode), lambda: self._path(model, site, episode))

    def path_probes(self, model: int, site: str) -> tuple[list[ProbeResult], str]:
        """The probes that predict a path (belief, or x and y), and a text that says why there are none."""
        try:
            return [self.probe(model, name, site) for name in next(iter(self.placing.values()), ())], ""
        except LatentsError as error:
            return [], str(error)

    def _path(self, model: int, site: str, episode: int) -> Trajectory:
        latents = self.latents[model]
        probes, _ = self.path_probes(model, site)
        if len(probes) == 1:
            return analysis.read_trajectory(latents, probes[0], episode)
        if probes:
            read = np.concatenate([probe.predict(latents) for probe in probes], axis=1)
            truth = np.stack([column(latents, name) for name in "xy"], axis=1)
            held_out = all(episode in probe.test_episodes for probe in probes)
            return analysis.plane_trajectory(latents, episode, read, ("x", "y"), truth, held_out)
        plane = self.pca(site)[model].transform(site_of(latents, site))
        return analysis.plane_trajectory(latents, episode, plane, ("PCA 1", "PCA 2"))

    @cached_property
    def held_out_episodes(self) -> Int[np.ndarray, " episodes"]:
        """Test episodes of the probes: no probe is fitted on them. All, where there are too few to fit a probe."""
        try:
            _, test = analysis.split_episodes(self.latents[0])
        except LatentsError:
            return self.episodes
        return np.unique(column(self.latents[0], "episode")[test])

    def held_out(self, model: int, target: str, site: str) -> Bool[np.ndarray, " rows"]:
        """Which rows are test rows of a probe."""
        mask = np.zeros(self.latents[model].n_obs, dtype=bool)
        mask[self.probe(model, target, site).test_rows] = True
        return mask


def _aligned(planes: list[Projection], fixed: Projection | None) -> list[Projection]:
    """Align projections with a fixed one: the axes of two projections are unrelated until they are aligned."""
    if not planes or fixed is None or fixed is planes[0]:
        return analysis.aligned(planes) if planes else []
    return analysis.aligned([fixed, *planes])[1:]
