"""Pictures of a world: the panel in the studio, and `EpisodeStepper`, which needs no model."""

from __future__ import annotations

import re
from typing import Any

import ipywidgets
import numpy as np

from nextlat_viz import worlds
from nextlat_viz.display import counted, escape, table
from nextlat_viz.errors import LatentsError, one_of
from nextlat_viz.figures.recursion import thinking_boards
from nextlat_viz.figures.rows import true_state
from nextlat_viz.figures.theme import Theme
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.box import LABEL, Box, choice, text_line
from nextlat_viz.notebook.cursor import PositionControls
from nextlat_viz.notebook.panel import Panel, take_legend
from nextlat_viz.notebook.panels.answers import sentence
from nextlat_viz.notebook.plot import Plot
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.plotting import CURSOR, name_file
from nextlat_viz.worlds import Episodes, World, checks, drawing

# Width in pixels for which the picture is laid out; on the page it is as wide as its panel.
_WIDTH = 400
# Boards of recursive models in a row, and the least height of a row in pixels.
_BOARDS, _LEAST = 3, 240
# Width in pixels of a stepper's picture: leaves room for the text at its side in a notebook on a small screen.
_PICTURE = 540
_MOST_NEXT = 5
_TOKEN = "display:inline-block;padding:0 5px;margin:1px;border-radius:4px;line-height:1.5"


class WorldPanel(Panel):
    """The world's own picture: belief simplex, street map, star, or board."""

    name, question, tab = "world", "Where are we in the world?", "World"
    follows = ("episode", "position")
    watches = ("dark",)

    def __init__(self, *models: Any, state: ViewState | None = None, theme: Theme | None = None) -> None:
        super().__init__(*models, state=state, theme=theme)
        self.kind = choice("Picture", "How the world is drawn")
        self._offer(None)
        self._link(self.state, self._offer, "world")
        self._caption = text_line()
        self._show(beside=[self.kind], below=[self._caption])
        self._link(self.kind, lambda change: self._ask())

    def _offer(self, change: Any) -> None:
        """Offer the world's pictures; first the beliefs, which show what can be known from the tokens."""
        try:
            kinds = list(self.state.scene.world.pictures)
        except LatentsError:
            kinds = []
        kinds.sort(key=lambda kind: kind != "beliefs")
        self.kind.options = kinds
        self.kind.value = kinds[0] if kinds else None
        self.kind.layout.display = None if len(kinds) > 1 else "none"

    def _depends_on(self) -> tuple[Any, ...]:
        state = self.state
        return self.kind.value, state.scene.recursive and (state.jobs.changes, state.dark)

    @classmethod
    def unsuited(cls, state: ViewState) -> str:
        """Why there is no picture."""
        try:
            world = state.scene.world
            return "" if world.pictures else f"The world {world.name!r} has no picture."
        except LatentsError as error:
            return f"{error}."

    def _figure(self) -> Any:
        state, kind = self.state, self.kind.value
        if kind is None:
            return self.why_not
        if state.scene.recursive:
            return self._boards()
        world = state.scene.world
        figure = world.draw(kind, episode=state.scene.read(state.episode), position=state.position, width=_WIDTH)
        # Keep the height, but take the width of the panel.
        figure.layout.width = None
        self._caption.value = _take_words(figure)
        return figure

    def _boards(self) -> Any:
        """Draw the board that each recursive model answers at the cursor's step."""
        state, scene = self.state, self.state.scene
        try:
            thinkings = {label: self._thinking(model) for model, label in enumerate(scene.labels)}
        except ValueError as error:
            return sentence(str(error))
        puzzle = int(scene.episodes.searchsorted(state.episode))
        figure = thinking_boards(thinkings, puzzle, state.position, columns=_BOARDS, theme=state.theme)
        # In a lower figure, the headings would cover the boards.
        figure.layout.meta = {"least": _LEAST * -(-len(thinkings) // _BOARDS)}
        self._caption.value = _take_words(figure)
        return figure


def _take_words(figure: Any) -> str:
    """Remove title, legend and notes below from a picture, and return them as HTML, which wraps."""
    # The dictionaries that plotly keeps: its objects check and copy everything, at every step of the cursor.
    layout = figure._layout
    margin = layout.setdefault("margin", {})
    notes = layout.pop("annotations", ())
    below = [note.get("xref") == note.get("yref") == "paper" and note.get("y", 0) <= 0 for note in notes]
    # The legend before the notes: a low panel has room for the first lines only.
    parts = [layout.pop("title", {}).get("text"), *(take_legend(figure) if layout.get("showlegend") else [])]
    parts += [note.get("text") for note, low in zip(notes, below, strict=True) if low]
    layout["annotations"] = [note for note, low in zip(notes, below, strict=True) if not low]
    # Keep the right margin for the toolbar and for a colour bar.
    margin |= dict.fromkeys("ltb" if layout.get("xaxis", {}).get("visible") is False else "t", 8)
    if any("colorbar" in trace or "colorbar" in trace.get("marker", {}) for trace in figure._data):
        margin["r"] = 64
    text = " &ensp;".join(part for part in parts if part)
    # The tooltip has the whole text, also if only the first lines have room.
    words = re.sub("<[^>]*>", "", text).replace('"', "&quot;")
    return f'<span title="{words}">{text}</span>'


class EpisodeStepper(Box):
    """A picture of a world with one of its episodes, and the true state after every token.

    Press play or drag the slider; choose another picture or another episode.

    Parameters
    ----------
    world : World or str
    episode : Episodes, optional
        The episode to step through; default a sampled one.
    length : int, optional
        Tokens in the episode, for a world without a fixed length.
    seed : int
        Seed of the first episode.
    picture : str, optional
        The picture shown first, one of the world's ``pictures``.
    **options
        Passed on to the world's ``draw``, such as ``width`` in pixels.

    Attributes
    ----------
    episode : Episodes
        The episode shown.
    position : int
        How many of its tokens have been read, from 0.

    Examples
    --------
    >>> stepper = EpisodeStepper("rrxor", length=6, seed=1)
    >>> stepper.position = 3
    >>> stepper.facts["state"]
    'first 1'
    >>> stepper.close()
    """

    def __init__(
        self,
        world: World | str,
        episode: Episodes | None = None,
        *,
        length: int | None = None,
        seed: int = 0,
        picture: str | None = None,
        **options: Any,
    ) -> None:
        self.world = worlds.get(world)
        self._length = length if length is not None or self.world.length is not None else 16
        self._options = {"width": _PICTURE, **options}
        self.episode = self._drawn(seed) if episode is None else episode
        checks.one_episode(self.episode, None)
        super().__init__()
        self._busy = ipywidgets.HTML()
        self._picture = choice("Picture", "How the world is drawn", self.world.pictures)
        if picture is not None:
            self._picture.value = one_of("picture", picture, self.world.pictures)
        self._seed = ipywidgets.BoundedIntText(
            value=seed, min=0, max=2**31 - 1, description="Episode", tooltip="Seed of the episode", style=LABEL,
            layout={"width": "150px", "display": None if episode is None else "none"},
        )  # fmt: skip
        self._controls = PositionControls()
        self._begin()
        self.plot = Plot(self._figure())
        self._beside = ipywidgets.HTML(self._text(), layout={"flex": "1 1 280px", "min_width": "280px"})
        pair = ipywidgets.HBox([self.plot, self._beside], layout={"flex_flow": "row wrap", "width": "100%"})
        above = controls.row(self._picture, self._seed, self._controls.play, self._controls.position)
        self.children = [above, self._busy, self._alert, pair]
        self._link(self._picture, lambda change: self._redraw())
        self._link(self._controls.position, lambda change: self._redraw())
        self._link(self._seed, self._another)

    def __dir__(self) -> list[str]:
        return ["close", "episode", "facts", "plot", "position", "world"]

    def __repr__(self) -> str:
        return f"<EpisodeStepper of {self.world.name}>"

    @property
    def position(self) -> int:
        """How many tokens have been read."""
        return int(self._controls.position.value)

    @position.setter
    def position(self, value: int) -> None:
        self._controls.position.value = checks.one_episode(self.episode, value)

    @property
    def facts(self) -> dict[str, str]:
        """The true state at the position, by the names of the world's states."""
        return true_state(self.world, self.episode, self.position)

    def _drawn(self, seed: int) -> Episodes:
        return self.world.sample(1, self._length, seed=seed)

    def _another(self, change: Any) -> None:
        self.episode = self._drawn(self._seed.value)
        self._begin()
        self._redraw()

    def _begin(self) -> None:
        """Go to the episode's opening position."""
        self._controls.show(drawing.opening_position(self.world, self.episode), 0, int(self.episode.length[0]))

    def _figure(self) -> Any:
        kind = self._picture.value
        figure = self.world.draw(kind, episode=self.episode, position=self.position, **self._options)
        name_file(figure, self.world.name, kind)
        return figure

    def _redraw(self) -> None:
        with self._working():
            self.plot.become(self._figure())
            self._beside.value = self._text()

    def _text(self) -> str:
        facts = self.facts
        place = f"after {counted(self.position, 'token')}" if self.world.causal else f"at position {self.position}"
        true = table(f"true {place}", facts) if facts else ""
        return f'<div style="line-height:1.7;margin:6px 0">{self._tokens()}</div>{true}{self._next()}'

    def _tokens(self) -> str:
        """Return the tokens as HTML: the current token framed, later ones faint, the prompt in italics."""
        words = []
        length = int(self.episode.length[0])
        for place, token in enumerate(self.episode.tokens[0, :length].tolist(), start=1):
            look = _TOKEN
            if place == self.position:
                look += f";outline:2px solid {CURSOR}"
            if place > self.position:
                look += ";opacity:.4"
            if not self.episode.loss_mask[0, place - 1]:
                look += ";font-style:italic"
            words.append(f'<span style="{look}">{escape(self.world.vocabulary[token])}</span>')
        return "".join(words)

    def _next(self) -> str:
        """Describe the exact distribution of the next token, or list the legal tokens if it is not known."""
        read = self.episode.tokens[:, : self.position]
        if self.position:
            exact = self.world.next_token_probs(read if self.world.causal else self.episode.tokens)
            chances = None if exact is None else exact[0, self.position - 1]
        else:
            chances = self.world.start_probs()
        title = "Next token" if self.world.predicts_next_token else "Token to predict"
        if chances is None:
            legal = np.flatnonzero(self.world.legal_next(read)[0, -1] if self.position else self.world.legal_first())
            names = [self.world.vocabulary[token] for token in legal[:_MOST_NEXT]]
            more = f" and {len(legal) - len(names):,} more" if len(legal) > len(names) else ""
            return f"<div>Legal next tokens: {escape(', '.join(names))}{more}</div>"
        order = np.argsort(-chances, kind="stable")[: (chances > 0).sum()]
        if order.size > _MOST_NEXT and np.isclose(chances[order[0]], chances[order[-1]]):
            first, second = (self.world.vocabulary[token] for token in order[:2])
            examples = f"{escape(first)} and {escape(second)}"
            return f"<div>{title}: {order.size:,} tokens are equally likely, such as {examples}</div>"
        text = ", ".join(f"{self.world.vocabulary[token]}: {chances[token]:.3g}" for token in order[:_MOST_NEXT])
        more = ", …" if order.size > _MOST_NEXT else ""
        return f"<div>{title}, exact probabilities: {escape(text)}{more}</div>"

    def close(self) -> None:
        if not self._closed:
            self._controls.close()
        super().close()
