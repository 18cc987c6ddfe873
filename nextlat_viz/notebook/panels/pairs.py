"""Pairs panel: equivalent histories that a model separates, ranked by the distance of their latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextlat_viz.analysis.pairs import same_state_pairs
from nextlat_viz.display import escape, shorten, words
from nextlat_viz.errors import LatentsError
from nextlat_viz.figures.rows import BELIEF
from nextlat_viz.figures.theme import Theme
from nextlat_viz.latents import site
from nextlat_viz.notebook.box import choice, text_line
from nextlat_viz.notebook.controls import Table
from nextlat_viz.notebook.panel import Panel
from nextlat_viz.notebook.scene import Scene
from nextlat_viz.notebook.state import ViewState

if TYPE_CHECKING:
    import pandas as pd

_RANKED, _MOST = 400, 50
_ABOUT = "Per model: distance of the pair / distance between histories with different values. Click a row to go there."
_NOT_A_STATE = ("episode", "position", "token", "token_id")


class PairsPanel(Panel):
    """A list of pairs, most distant first; a click selects both histories and moves the cursor to the first."""

    name, question, tab = "pairs", "Which equivalent histories does the model separate?", "Pairs"
    follows = ("site", "compared")

    def __init__(self, *models: Any, state: ViewState | None = None, theme: Theme | None = None) -> None:
        super().__init__(*models, state=state, theme=theme)
        self.by = choice("Equal", "Histories with the same value of this are equivalent")
        self.model = choice("Rank by model", "The model whose distances rank the pairs")
        self._about = text_line()
        self.list = Table(histories=["history", "other history"])
        about = "Move the cursor to the other history of the pair"
        self.other = self._button("Go to the other history", about, self._cross)
        self._offer(None)
        self._link(self.state, self._offer, ["world", "compared"])
        self._show(beside=[self.by, self.model], stage=[self.list], below=[self._about, self.other])
        for control in (self.by, self.model):
            self._link(control, lambda change: self._ask())
        self._link(self.list, lambda change: self._fly(), "chosen")

    @property
    def table(self) -> pd.DataFrame:
        """The pairs as `analysis.pairs.same_state_pairs` returns them, with a column per model."""
        state, scene = self.state, self.state.scene
        first = self.model.value
        key = ("pairs", first, self.by.value, state.site)
        return scene.results.get(key, lambda: self._compare(first)).copy()

    def _compare(self, first: int) -> pd.DataFrame:
        """Return the pairs ranked by one model, with their distance in every model."""
        scene, where = self.state.scene, self.state.site
        sizes = [_RANKED if i == first else 1 for i in range(len(scene.latents))]
        ranked = [
            same_state_pairs(latents, self.by.value, where, n) for latents, n in zip(scene.latents, sizes, strict=True)
        ]
        pairs = _once_each(ranked[first]).head(_MOST).copy()
        ends = [scene.rows(list(zip(pairs[f"episode_{e}"], pairs[f"position_{e}"], strict=True))) for e in "ab"]
        for i, (label, own) in enumerate(zip(scene.labels, ranked, strict=True)):
            if len(own):
                X = site(scene.latents[i], where).astype(np.float64)
                distance = np.linalg.norm(X[ends[0]] - X[ends[1]], axis=1)
                pairs[f"relative, {label}"] = distance * (own["relative"] / own["distance"]).iloc[0]
        return pairs

    @classmethod
    def unsuited(cls, state: ViewState) -> str:
        """Why no histories can be matched."""
        matched = _equivalences(state.scene)
        return "" if matched else "This world has no ground-truth state, so histories cannot be matched."

    def _offer(self, change: Any) -> None:
        """Offer the columns that make histories equivalent, and the models."""
        scene = self.state.scene
        names = _equivalences(scene)
        self.by.options = [(words(name), name) for name in names]
        self.by.value = names[0] if names else None
        pair = self.state.pair
        self.model.options = [(shorten(scene.labels[i]), i) for i in pair]
        self.model.value = pair[0]
        self.model.layout.display = None if len(scene.labels) > 1 else "none"

    def _depends_on(self) -> tuple[Any, ...]:
        return self.by.value, self.model.value

    def _draw(self, looks: Any) -> None:
        if self.why_not:
            self._say(self.why_not)
            return
        try:
            pairs = self.table
        except LatentsError as error:
            self._say(f"{error}.")
            return
        labels = self._labels()
        if pairs.empty:
            self._say(f"These episodes have no two histories with the same {words(self.by.value)}.")
            return
        self._say("")
        with self.list.hold_trait_notifications():
            self.list.heads = [*map(shorten, labels), "history", "other history", words(self.by.value)]
            self.list.rows = [self._line(pair, labels) for _, pair in pairs.iterrows()]
            self.list.chosen = -1
        self._about.value = _ABOUT
        self.other.layout.display = "none"

    def _labels(self) -> list[str]:
        return [self.state.scene.labels[model] for model in self.state.pair]

    def _line(self, pair: pd.Series, labels: list[str]) -> list[str]:
        far = [f"{pair[f'relative, {label}']:.2f}" for label in labels]
        return [*far, tail(pair["prefix_a"]), tail(pair["prefix_b"]), shorten(str(pair["state"]), 40)]

    def _chosen(self) -> tuple[pd.Series, list[tuple[int, int]]]:
        """Return the chosen pair, and the (episode, position) of both histories."""
        pair = self.table.iloc[self.list.chosen]
        return pair, [(int(pair[f"episode_{end}"]), int(pair[f"position_{end}"])) for end in "ab"]

    def _fly(self) -> None:
        """Select both histories, and move the cursor to the first."""
        if self.list.chosen < 0:
            return
        labels, (pair, ends) = self._labels(), self._chosen()
        histories = [
            f"<code>{escape(shorten(str(pair[f'prefix_{end}']), 80))}</code> (episode {where[0]}, position {where[1]})"
            for end, where in zip("ab", ends, strict=True)
        ]
        far = ", ".join(f"{escape(shorten(label))} {pair[f'relative, {label}']:.2f}" for label in labels)
        state = escape(shorten(str(pair["state"]), 80))
        self._about.value = (
            f"{histories[0]} and {histories[1]} lead to the same {escape(words(self.by.value))} ({state}). "
            f"Distance / distance between different states: {far}."
        )
        self.other.layout.display = None
        with self.state.hold_trait_notifications():
            self.state.selection = tuple(ends)
            self.state.episode, self.state.position = ends[0]

    def _cross(self) -> None:
        _, ends = self._chosen()
        here = (self.state.episode, self.state.position)
        self.state.go_to(*(ends[0] if here == ends[1] else ends[1]))


def _equivalences(scene: Scene) -> list[str]:
    """Return what can make histories equivalent: the belief, or a column of the true state that is not constant."""

    def compute() -> list[str]:
        obs = scene.latents[0].obs
        names = [BELIEF] if BELIEF in scene.latents[0].obsm else []
        return names + [str(name) for name in obs if name not in _NOT_A_STATE and obs[name].nunique() > 1]

    return scene.results.get("equivalences", compute)


def _once_each(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return pairs that share no history: otherwise an outlier would fill the whole list."""
    used: set[str] = set()
    keep = []
    for pair in zip(pairs["prefix_a"], pairs["prefix_b"], strict=True):
        keep.append(used.isdisjoint(pair))
        if keep[-1]:
            used.update(pair)
    return pairs[np.array(keep, dtype=bool)]


def tail(prefix: str, most: int = 16) -> str:
    """Return the end of the tokens read, which tells histories apart."""
    return shorten(prefix if len(prefix) <= most else f"…{prefix[-most:]}", most + 1)
