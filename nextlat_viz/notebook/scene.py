"""Everything that is known about the models of one world at one training step, each computed once, in any thread."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Bool, Float, Int

from nextlat_viz import analysis
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents import column, episode_rows, meta, sites, tokens_of, world_of
from nextlat_viz.notebook.once import Once
from nextlat_viz.notebook.sources import Source
from nextlat_viz.worlds import Episodes

if TYPE_CHECKING:
    from nextlat_viz.analysis import ProbeResult, Projection, Trajectory
    from nextlat_viz.training import Checkpoint
    from nextlat_viz.worlds import World

Row = tuple[int, int]
_OF_THE_TEXT = ("position", "token", "token_id")
# More names than a key can tell apart by colour.
_MANY_NAMES = 20
T = TypeVar("T")
# Paths of episodes that are kept: whoever steps through thousands looks back at the last few.
_PATHS = 64
# Episodes, and tokens of those that have no length of their own, that show where a prompt ends.
_FEW = 8


class Scene:
    """The models of one world side by side, on the same rows.

    Parameters
    ----------
    sources : sequence of Source
    step : int or None
        Training step, None for the end.
    max_points : int
        Views draw whole episodes up to about this many rows; numbers always come from all rows.
    reference : Scene, optional
        Planes are laid over those of its first model's last layer, so that they can be compared across models,
        layers and steps; default this scene's own.

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
        self._models = range(len(sources))
        self._known = Once()
        self._paths = Once(most=_PATHS)
        self.latents: list[AnnData] = [source.latents(step) for source in sources]
        first = self.latents[0]
        for one in self.latents[1:]:
            if meta(one)["episodes_sha256"] != meta(first)["episodes_sha256"] or not one.obs_names.equals(
                first.obs_names
            ):
                raise LatentsError(
                    f"{meta(first)['name']!r} and {meta(one)['name']!r} did not read the same episodes, so their rows "
                    "cannot be linked: extract both with the same episodes=..."
                )

    @cached_property
    def world(self) -> World:
        """The world the models were trained on."""
        return world_of(self.latents[0])

    @cached_property
    def prompt(self) -> int:
        """How many tokens every episode begins with that are given: no model is trained to predict them."""
        try:
            world = self.world
        except LatentsError:
            return 0
        # The table holds what was read, not what was scored; of that a world is the same way in every episode.
        mask = world.sample(_FEW, world.length or _FEW, seed=0).loss_mask
        return int(np.argmax(mask.any(axis=0)))

    @cached_property
    def vocabulary(self) -> list[str]:
        """What the tokens are called, with or without a world."""
        return list(meta(self.latents[0])["vocabulary"])

    @cached_property
    def labels(self) -> list[str]:
        """What each model is called, made different where two would be called the same."""
        metas = [meta(one) for one in self.latents]
        plain = [str(one["label"]) for one in metas]
        if len(set(plain)) == len(plain):
            return plain
        return [f"{one['label']}, {str(one['name']).rpartition('/')[2]}" for one in metas]

    @cached_property
    def sites(self) -> list[str]:
        """The layers all models have, first to last."""
        return [name for name in sites(self.latents[0]) if all(name in sites(one) for one in self.latents)]

    @cached_property
    def columns(self) -> list[str]:
        """The columns of ``obs`` but for the episode: what is true of the world first, of that many names last."""
        obs = self.latents[0].obs

        def place(name: str) -> int:
            if name in _OF_THE_TEXT:
                return 2
            many = not pd.api.types.is_numeric_dtype(obs[name]) and obs[name].nunique() > _MANY_NAMES
            return int(many)

        return sorted((str(name) for name in obs if name != "episode"), key=place)

    @cached_property
    def targets(self) -> list[str]:
        """What a probe can be asked to read."""
        first = self.latents[0]
        arrays = [str(name) for name in first.obsm if not str(name).startswith(("X_", "next_token_probs"))]
        exact = [str(name) for name in first.obsm if name == "next_token_probs_exact"]
        # The first is what is read until something else is asked for: not hundreds of probabilities.
        return [*arrays, *self.columns, *exact]

    @cached_property
    def episodes(self) -> Int[np.ndarray, " episodes"]:
        """The episodes there are, ascending."""
        return np.unique(column(self.latents[0], "episode"))

    @cached_property
    def tokens(self) -> Int[np.ndarray, "episodes positions"]:
        """The tokens of every episode; -1 where there is none."""
        return tokens_of(self.latents[0])

    @cached_property
    def shown(self) -> Int[np.ndarray, " rows"]:
        """The rows that are drawn: all, or those of as many episodes as fit."""
        n = self.latents[0].n_obs
        if n <= self._max_points:
            return np.arange(n)
        keep = max(1, int(len(self.episodes) * self._max_points / n))
        return np.flatnonzero(np.isin(column(self.latents[0], "episode"), self.episodes[:keep]))

    @cached_property
    def _lookup(self) -> tuple[int, Int[np.ndarray, " rows"], Int[np.ndarray, " rows"]]:
        """What an episode counts in, each row's (episode, position) as one number, ascending, and the rows of these."""
        first = self.latents[0]
        episode, position = column(first, "episode").astype(np.int64), column(first, "position").astype(np.int64)
        base = int(position.max()) + 1
        numbers = episode * base + position
        order = np.argsort(numbers, kind="stable")
        return base, numbers[order], order

    def rows(self, keys: Sequence[Row]) -> Int[np.ndarray, " keys"]:
        """Row numbers of (episode, position) pairs; those that are not there are left out."""
        base, numbers, order = self._lookup
        pairs = np.array(keys, dtype=np.int64).reshape(-1, 2)
        wanted = (pairs[:, 0] * base + pairs[:, 1])[(pairs[:, 1] >= 0) & (pairs[:, 1] < base)]
        at = np.minimum(np.searchsorted(numbers, wanted), len(numbers) - 1)
        return order[at[numbers[at] == wanted]]

    def keys(self, rows: Sequence[int]) -> tuple[Row, ...]:
        """(episode, position) of rows."""
        first, at = self.latents[0], np.asarray(rows, dtype=np.int64)
        episode, position = column(first, "episode")[at], column(first, "position")[at]
        return tuple(zip(episode.tolist(), position.tolist(), strict=True))

    def positions(self, episode: int) -> list[int]:
        """The positions an episode has, ascending."""
        first = self.latents[0]
        return sorted(column(first, "position")[column(first, "episode") == episode].tolist())

    def read(self, episode: int) -> Episodes:
        """One episode as its world draws it: its tokens, and what the table knows to be true after each.

        Raises
        ------
        LatentsError
            When the table does not hold all its tokens, or is of no known world.
        """
        line = self.tokens[int(self.episodes.searchsorted(episode))]
        tokens = line[: int(np.flatnonzero(line >= 0)[-1]) + 1][None]
        if (tokens < 0).any():
            raise LatentsError(f"the latents do not hold every token of episode {episode}, so it cannot be drawn")
        states = dict(self.world.replay(tokens))
        rows = episode_rows(self.latents[0], episode)
        if len(rows) == tokens.shape[1]:
            states = {**self._states(rows), **states}
        return Episodes(tokens, states)

    def _states(self, rows: Int[np.ndarray, " positions"]) -> dict[str, np.ndarray]:
        # Of these rows alone: a column of a million takes longer than the picture.
        some, names = self.latents[0][rows], self.world.state_values
        found = {}
        for name in (*map(str, some.obs), *(one for one in map(str, some.obsm) if one == "belief")):
            values = column(some, name)
            if name in names:
                values = pd.Index(names[name]).get_indexer(values)
            if values.dtype.kind in "iufb" and name not in ("episode", "position", "token_id"):
                found[name] = values[None]
        return found

    def kept(self, keep: Mapping[str, Sequence[Any]]) -> Bool[np.ndarray, " rows"]:
        """Which rows have one of the values wanted in every column."""
        mask = np.ones(self.latents[0].n_obs, dtype=bool)
        for name, wanted in keep.items():
            mask &= np.isin(column(self.latents[0], name), list(wanted))
        return mask

    def values(self, name: str) -> list[Any]:
        """What a column of ``obs`` holds, ascending; names in the order of the world."""
        values = self.latents[0].obs[name]
        if isinstance(values.dtype, pd.CategoricalDtype):
            return [str(one) for one in values.cat.remove_unused_categories().cat.categories]
        return list(np.unique(column(self.latents[0], name)).tolist())

    def checkpoint(self, model: int) -> Checkpoint | None:
        """The checkpoint the latents of a model were extracted from; None for latents at hand."""
        return self._sources[model].at(self._step)

    def _once(self, key: Hashable, compute: Callable[[], T]) -> T:
        return self._known.get(key, compute)

    def untrained(self, model: int) -> AnnData | None:
        """The untrained model's latents on the same rows."""
        return self._sources[model].untrained()

    def probe(self, model: int, target: str, site: str) -> ProbeResult:
        """The probe of one model, target and layer, with its controls."""
        return self._once(
            ("probe", model, target, site),
            lambda: analysis.probe(self.latents[model], target, site, untrained=self.untrained(model)),
        )

    def by_site(self, model: int, target: str) -> pd.DataFrame:
        """The score at every layer."""
        frames = [self.probe(model, target, site).to_frame() for site in self.sites]
        return pd.concat(frames, ignore_index=True)

    def by_position(self, model: int, target: str, site: str) -> pd.DataFrame:
        """The score at every position."""
        return self._once(
            ("positions", model, target, site),
            lambda: analysis.probe_positions(self.latents[model], self.probe(model, target, site)),
        )

    def pca(self, site: str) -> list[Projection]:
        """The PCA plane of every model at a layer, laid over the reference's."""
        return self._once(("pca", site), lambda: self._laid_over("pca", [self._pca(m, site) for m in self._models]))

    def _pca(self, model: int, site: str) -> Projection:
        compute = lambda: analysis.project(self.latents[model], "pca", site, rows=self.shown)  # noqa: E731
        return self._once(("plane", model, site), compute)

    def umap(self, site: str) -> list[Projection | str]:
        """The UMAP of every model at a layer where there is one, laid over the reference's, else what to say."""
        found = [self._known.peek(("umap", model, site), "UMAP is being computed …") for model in self._models]
        # A layout, once there, stays, so its identity says which it is; the same ones give the same planes.
        fixed = self._reference._known.peek(("umap", 0, self._reference.sites[-1]))
        key = [one if isinstance(one, str) else id(one) for one in (*found, fixed)]

        def compute() -> list[Projection | str]:
            laid = iter(self._laid_over("umap", [one for one in found if not isinstance(one, str)]))
            return [one if isinstance(one, str) else next(laid) for one in found]

        return self._once(("umaps", site, *key), compute)

    def keep_umap(self, model: int, site: str, umap: Projection | str) -> None:
        """Keep a layout, or say why there is none."""
        self._known.keep(("umap", model, site), umap)

    def without_umap(self, site: str) -> list[int]:
        """Which models have neither a layout at a layer nor a reason for having none."""
        return [model for model in self._models if ("umap", model, site) not in self._known]

    def drop_messages(self, site: str) -> None:
        """Forget the reasons, so that the layouts are missing again."""
        for model in self._models:
            if isinstance(self._known.peek(("umap", model, site)), str):
                self._known.drop(("umap", model, site))

    def _laid_over(self, method: str, planes: list[Projection]) -> list[Projection]:
        """Axes of two planes have nothing to do with each other until one is laid over the other."""
        last = self._reference.sites[-1]
        fixed = self._reference._pca(0, last) if method == "pca" else self._reference._known.peek(("umap", 0, last))
        if not planes or isinstance(fixed, str):
            return planes
        if fixed is None or fixed is planes[0]:
            return analysis.aligned(planes)
        return analysis.aligned([fixed, *planes])[1:]

    def mistakes(self, model: int, target: str, site: str) -> Float[np.ndarray, " rows"]:
        """Per row, the probe's squared error summed over dimensions, or 1 where it names the wrong class."""

        def compute() -> Float[np.ndarray, " rows"]:
            result, latents = self.probe(model, target, site), self.latents[model]
            read, truth = result.predict(latents), column(latents, target)
            if result.metric == "accuracy":
                return (np.asarray(result.names)[read.argmax(axis=1)] != truth.astype(str)).astype(float)
            return np.square(read - truth.reshape(len(read), -1)).sum(axis=1)

        return self._once(("mistakes", model, target, site), compute)

    def path(self, model: int, site: str, episode: int) -> Trajectory:
        """One episode's way through belief space, as the model's probe reads it."""
        return self._paths.get(
            (model, site, episode),
            lambda: analysis.read_trajectory(self.latents[model], self.probe(model, "belief", site), episode),
        )

    @cached_property
    def held_out_episodes(self) -> Int[np.ndarray, " episodes"]:
        """Episodes that no probe is fitted on."""
        _, test = analysis.split_episodes(self.latents[0])
        return np.unique(column(self.latents[0], "episode")[test])

    def held_out(self, model: int, target: str, site: str) -> Bool[np.ndarray, " rows"]:
        """Which rows the probe was not fitted on."""
        mask = np.zeros(self.latents[model].n_obs, dtype=bool)
        mask[self.probe(model, target, site).test_rows] = True
        return mask
