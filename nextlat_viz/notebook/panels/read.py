"""Reading panel: a string of the user's own, as every model and the ideal observer read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets
import numpy as np

from nextlat_viz.display import escape, shorten
from nextlat_viz.figures.reading import BEFORE, difference, string_figure
from nextlat_viz.figures.theme import Theme
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.box import LABEL, text_line
from nextlat_viz.notebook.cursor import TokenStrip
from nextlat_viz.notebook.panel import take_legend
from nextlat_viz.notebook.panels.answers import ModelPanel, sentence
from nextlat_viz.notebook.plot import Points
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.worlds.strings import legal_after, legal_part, parse_string, require_short

if TYPE_CHECKING:
    from nextlat_viz.analysis import Trajectory
    from nextlat_viz.analysis.reading import StringReading
    from nextlat_viz.training import Checkpoint
    from nextlat_viz.worlds import World

# Up to the first number of legal symbols, a click takes the next one; up to the second, a list offers them.
_CYCLE, _MOST = 6, 200
# Symbols that a tooltip names.
_NAMED = 8


class ReadPanel(ModelPanel):
    """Surprise per token, the next token, and the path of the belief, for a string that is clicked, typed or pasted.

    The string starts as the episode at the cursor, and is reset when the cursor moves to another episode. A click on a
    token changes it to another legal symbol. The first illegal token and those after it are shown but not read.

    Parameters
    ----------
    *models
        Models side by side: checkpoints or their names; or ``{world name: models}``.
    state : ViewState, optional
        The state of other widgets to link with, instead of models.
    theme : {"auto", "light", "dark"}, optional

    Attributes
    ----------
    string : tuple of str
        The symbols of the string.
    reading : StringReading
        The models' reading of its legal part.

    Examples
    --------
    >>> panel = ReadPanel("rrxor/next_token", "rrxor/nextlat")
    >>> panel.read("0110")
    >>> panel.reading.surprise["NextLat"].round(1).tolist()
    [1.0, 1.0, 0.6, 0.7]
    >>> panel.close()
    """

    name, question, tab = "read", "How do the models read a string of your own?", "Read"
    follows = (*ModelPanel.follows, "site")

    def __init__(self, *models: Any, state: ViewState | None = None, theme: Theme | None = None) -> None:
        # The string, how many of its tokens are legal, the episode's string, and the position shown.
        self._tokens, self._legal, self._episode, self._here = list[int](), 0, np.zeros(0, np.int64), 0
        self._after = np.zeros((1, 0), bool)
        self._problem = self._refusal = self._hint = ""
        self._of: tuple[Any, ...] = ()
        self._at: tuple[int, int] | None = None
        super().__init__(*models, state=state, theme=theme)

    def _build(self) -> None:
        self.strip = TokenStrip(leads=False)
        self.strip.on_click = self._guarded(self._press)
        self.text = ipywidgets.Text(
            tooltip="A string of your own, by its symbols", placeholder="type or paste", continuous_update=False,
            layout={"width": "150px"},
        )  # fmt: skip
        self.symbol = ipywidgets.Dropdown(
            tooltip="What this token is changed to", style=LABEL, layout={"width": "auto"}
        )
        self.back = self._button("Delete last", "Take the last token away", lambda: self._change(self._tokens[:-1]))
        self.reset = self._button("Reset", "Go back to the episode at the cursor", self._restart)
        self._notice = text_line()
        self._line = controls.row(self.strip, self.text, self.symbol, self.back, self.reset)
        self._line.add_class("nlv-string")
        self._show(above=[self._line, self._notice], below=[self.about, self._without], on_click=self._look_at)
        self._link(self.text, self._type)
        self._link(self.symbol, self._replace)

    def __dir__(self) -> list[str]:
        return sorted([*super().__dir__(), "read", "reading", "string"])

    @property
    def string(self) -> tuple[str, ...]:
        """The symbols of the string."""
        self._follow()
        return tuple(self._world.vocabulary[token] for token in self._tokens)

    @property
    def reading(self) -> StringReading:
        """The models' reading of the legal part of the string."""
        self._follow()
        return self.state.scene.string(np.array(self._tokens[: self._legal], np.int64), self.state.site)

    def read(self, text: str) -> None:
        """Read a string: symbols separated by spaces or run together, or any text if the world has a tokenizer.

        Raises
        ------
        ValueError
            For an unknown symbol, and for more tokens than the models read; the string stays as it was.
        """
        self._follow()
        tokens = parse_string(self._world, text)
        require_short(tokens, self._longest)
        self._change(tokens.tolist())

    @classmethod
    def unsuited(cls, state: ViewState) -> str:
        """Why no string can be read."""
        scene = state.scene
        if scene.recursive:
            return "These models answer whole puzzles in recursion steps, so there is no string to read token by token."
        if not scene.opened:
            return "These models were given as latents, and this panel runs the models: open their checkpoints."
        return "" if scene.opened[0].world.causal else "These models answer whole puzzles, and not token by token."

    @property
    def _models(self) -> list[Checkpoint]:
        return self.state.scene.opened

    @property
    def _world(self) -> World:
        # Not the scene's world: latents of a language model do not contain it.
        return self._models[0].world

    @property
    def _longest(self) -> int | None:
        """The most tokens that all models can read; None without a limit."""
        contexts = [model.network.backbone.config.context for model in self._models]
        return min((context for context in contexts if context is not None), default=None)

    def _follow(self) -> None:
        """Reset the string if the cursor is at another episode, and follow the cursor's position."""
        if self.why_not:
            raise ValueError(self.why_not)
        state = self.state
        if (state.world, state.episode) != self._of:
            self._of, self._at = (state.world, state.episode), None
            self.text.continuous_update = max(map(len, self._world.vocabulary)) == 1
            self._restart()
        if self._at != (state.episode, state.position):
            self._at = (state.episode, state.position)
            self._here = min(state.position, len(self._tokens))

    def _restart(self) -> None:
        """Reset the string to the episode at the cursor: the tokens that the table holds and the models can read."""
        state, scene = self.state, self.state.scene
        line = scene.tokens[int(scene.episodes.searchsorted(state.episode))]
        end = int((line < 0).argmax()) if (line < 0).any() else line.size
        if "token_id" in scene.latents[0].obs:
            # `scene.tokens` numbers the tokens in the table; the models need their own ids.
            rows = scene.rows([(state.episode, place) for place in range(1, end + 1)])
            line = scene.latents[0].obs["token_id"].to_numpy()[rows]
        self._change(line[: min(end, self._longest or end)].tolist(), state.position)
        self._episode = np.array(self._tokens[: self._legal], np.int64)

    def _change(self, tokens: Sequence[int], place: int | None = None) -> None:
        """Take another string, and show a position in it, by default the last."""
        self._tokens, self._refusal, self._hint = list(tokens), "", ""
        ids = np.array(self._tokens, np.int64)
        self._here = len(tokens) if place is None else min(place, len(tokens))
        self._legal, self._problem = legal_part(self._world, ids)
        self._after = legal_after(self._world, ids[: self._legal])
        self._ask()

    def _type(self, change: Any) -> None:
        if self._following:
            return
        try:
            self.read(change["new"])
        except ValueError as error:
            self._refusal, self._hint = sentence(str(error)), ""
            self._ask()

    def _press(self, place: int) -> None:
        """Show a token's position, and change the token if there are few legal symbols."""
        options = self._options(place)
        if 1 < len(options) <= _CYCLE:
            now = self._tokens[place - 1]
            self._set(place, next((option for option in options if option > now), options[0]))
            return
        self._here = place
        self._hint = (
            f"Position {place} can only be {self._name(options[0])}, after the tokens before it."
            if len(options) == 1
            else ""
        )
        if len(options) > _MOST:
            self._hint = f"{len(options):,} symbols are legal at position {place}: type the string to change it."
        self._ask()

    def _name(self, token: int) -> str:
        return shorten(self._world.vocabulary[token])

    def _replace(self, change: Any) -> None:
        if not self._following and change["new"] is not None and self._here:
            self._set(self._here, change["new"])

    def _set(self, place: int, token: int) -> None:
        self._change([*self._tokens[: place - 1], token, *self._tokens[place:]], place)

    def _look_at(self, points: Points) -> None:
        touched = self.plot.points(points, "surprise")
        if touched:
            self._here = touched[0][1] + 1
            self._ask()

    def _options(self, place: int) -> list[int]:
        """Return the legal symbols at a position; none past the first illegal token."""
        if not 0 < place <= min(self._legal + 1, len(self._tokens)):
            return []
        options: list[int] = np.flatnonzero(self._after[place - 1]).tolist()
        return options

    def _depends_on(self) -> tuple[Any, ...]:
        return tuple(self._tokens), self._here, self.state.jobs.changes

    def _prepare(self) -> None:
        if not self.why_not:
            self._follow()

    def _figure(self) -> Any:
        return self.why_not or super()._figure()

    def _answer(self, model: int, row: int) -> Any:
        return self._checkpoint(model)

    def _draw_answers(self, answers: Mapping[str, Any], theme: Theme) -> Any:
        position, reading = min(self._here, self._legal), self.reading
        paths, why = self._paths(reading)
        original, before, gain = None, None, ""
        if not np.array_equal(reading.tokens, self._episode):
            original = self.state.scene.string(self._episode, self.state.site)
            before, _ = self._paths(original)
            gain = difference(reading, original, paths, before, position)
        figure = string_figure(reading, position, original=original, paths=paths, original_paths=before, theme=theme)
        words = [text.replace("■", "╌╌") if BEFORE in text else text for text in take_legend(figure)] + [escape(why)]
        if reading.prompt:
            words.append(f"First {reading.prompt} tokens: the prompt, not trained on.")
        self.about.value = "<br>".join(filter(None, [" &ensp;".join(filter(None, words)), escape(gain)]))
        figure.update_layout(margin={"t": 42, "b": 40})
        return figure

    def _paths(self, reading: StringReading) -> tuple[dict[str, Trajectory], str]:
        """Return the path of every model that has probes for it, and why a model has none."""
        scene, paths, why = self.state.scene, {}, ""
        targets = next(iter(scene.placing.values()), ())
        for model, label in enumerate(scene.labels):
            if targets and label in reading.laws:
                try:
                    paths[label] = reading.path(label, [self._probe(model, name, self.state.site) for name in targets])
                except ValueError as error:
                    why = sentence(str(error))
        return paths, why

    def _describe(self) -> None:
        """Show the string in the controls, and describe any problem with it."""
        apply = not self.why_not
        self._line.layout.display = None if apply else "none"
        self._notice.value = ""
        if not apply:
            return
        if self._refusal:
            self._notice.value = f"{escape(self._refusal)} The last string that could be read is still shown."
        elif self._hint:
            self._notice.value = escape(self._hint)
        elif self._problem:
            self._notice.value = f"{escape(self._problem)}. Tokens read: the {self._legal:,} before it."
        self._show_tokens()
        options = self._options(self._here)
        with self._still():
            if not self._refusal:
                self.text.value = self._written()
            offered = options if 1 < len(options) <= _MOST else []
            self.symbol.options = [(shorten(self._world.vocabulary[token]), token) for token in offered]
            self.symbol.value = (
                self._tokens[self._here - 1] if offered and self._tokens[self._here - 1] in offered else None
            )
            self.symbol.description = f"Token {self._here}"
            self.symbol.layout.display = None if offered else "none"
        self.back.disabled = not self._tokens

    def _written(self) -> str:
        """Return the string as `read` takes it."""
        if hasattr(self._world, "encode"):
            return self._world.decode(self._tokens)
        names = self._world.vocabulary
        return ("" if max(map(len, names)) == 1 else " ").join(names[token] for token in self._tokens)

    def _show_tokens(self) -> None:
        names = self._world.vocabulary
        start = any(model.network.backbone.offset for model in self._models)
        with self.strip.hold_trait_notifications():
            self.strip.tokens = ["start"] * start + [shorten(names[token]) for token in self._tokens]
            self.strip.notes = ["nothing read yet"] * start + [self._note(i + 1) for i in range(len(self._tokens))]
            self.strip.places = list(range(0 if start else 1, len(self._tokens) + 1))
            self.strip.position, self.strip.last = self._here, self._legal
            both = zip(self._tokens, self._episode.tolist(), strict=False)
            self.strip.selected = [i for i, (token, before) in enumerate(both, 1) if token != before]

    def _note(self, place: int) -> str:
        """Describe what a click on a token does."""
        names, options = self._world.vocabulary, self._options(place)
        token = shorten(names[self._tokens[place - 1]])
        if not options:
            return f"{token}, not read"
        if len(options) == 1:
            return f"{token}, the only legal symbol here"
        legal = ", ".join(shorten(names[option]) for option in options[:_NAMED]) + ", …" * (len(options) > _NAMED)
        return f"{token}. Click to change it; legal here: {legal}"
