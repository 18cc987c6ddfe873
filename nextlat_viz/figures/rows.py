"""Colours and hover texts of the rows of latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, UInt8

from nextlat_viz.display import escape, shorten, words
from nextlat_viz.errors import unknown
from nextlat_viz.figures import theme
from nextlat_viz.plotting import MISSING, SEQUENTIAL

if TYPE_CHECKING:
    from anndata import AnnData

    from nextlat_viz.worlds import Episodes, World

BELIEF = "belief"
_HIDDEN_COLUMNS = ("episode",)
_MOST_TOKENS = 24
_MOST_NAMES = 24
_SHADES = 96
_MOST_VALUES = 12
LONGEST_FACT = 120
"""Longest text of a true value or a token, in characters, on a page or a stepper."""


@dataclass(frozen=True, eq=False)
class Coloring:
    """One colour per row, as an index into a palette, and the names for a colour key.

    Plotly validates colours one by one. Indices are faster, and take one byte per row on the page.

    Attributes
    ----------
    title : str
        Name of the column.
    codes : (rows,) uint8 array
        Index of each row's colour in the palette. The last colour stands for missing values.
    palette : list of str
        Colours as ``#rrggbb``.
    names : list of (text, colour)
        Each name with its colour, or the two ends of a scale; empty for too many names to tell apart.
    limits : (float, float) or None
        The ends of the scale of numbers.
    classes : tuple
        The classes that the names stand for, in the same order; empty for a scale.
    """

    title: str
    codes: UInt8[np.ndarray, " rows"]
    palette: list[str]
    names: list[tuple[str, str]]
    limits: tuple[float, float] | None = None
    classes: tuple[Any, ...] = ()

    @property
    def axis(self) -> dict[str, Any]:
        """The palette as a plotly ``coloraxis`` for markers coloured by `codes`."""
        return {"colorscale": _steps(self.palette), "cmin": -0.5, "cmax": len(self.palette) - 0.5, "showscale": False}

    @property
    def key(self) -> dict[str, Any] | None:
        """A plotly ``marker`` that draws the key as one colour bar: a scale, or equal bands with the first name on top.

        None without names.
        """
        if not self.names:
            return None
        n = len(self.names)
        low, high = self.limits or (-0.5, n - 0.5)
        bar: dict[str, Any] = {
            "title": {"text": escape(shorten(self.title)), "side": "top"}, "thickness": 12, "len": 0.6,
            "y": 0.12, "yanchor": "bottom", "x": 1.0, "xanchor": "left", "xpad": 12, "outlinewidth": 0,
            "tickmode": "auto", "ticks": "outside", "ticklen": 4, "tickcolor": "rgba(0,0,0,0)",
            "tickfont": {"size": 11},
        }  # fmt: skip
        if self.limits is None:
            texts, colors = zip(*reversed(self.names), strict=True)
            ticks = {"tickmode": "array", "tickvals": list(range(n)), "ticktext": [escape(text) for text in texts]}
            bar |= ticks | {"len": min(0.8, 0.06 + 0.06 * n)}
            scale = _steps(colors)
        else:
            scale = [[i / (len(SEQUENTIAL) - 1), color] for i, color in enumerate(SEQUENTIAL)]
        return {"colorscale": scale, "cmin": low, "cmax": high, "colorbar": bar}


def color_options(latents: AnnData) -> dict[str, str]:
    """Return the columns that can colour rows: {label: name}, names as `coloring` takes them.

    A belief over three states can be drawn as a mixture of three colours (``"belief"``); a single component is
    ``"belief:<state>"``.
    """
    options = {words(name): str(name) for name in latents.obs.columns if name not in _HIDDEN_COLUMNS}
    if BELIEF in latents.obsm:
        if latents.obsm[BELIEF].shape[1] == 3:
            options["belief, three colours mixed"] = BELIEF
        options |= {f"belief in {name}": f"{BELIEF}:{name}" for name in _state_names(latents)}
    return options


def coloring(latents: AnnData, name: str) -> Coloring:
    """Colour every row by a column of ``obs``, by ``"belief"`` (of three states) or by ``"belief:<state>"``.

    Numbers get a colour scale, names a banded key. Missing values are grey.

    Raises
    ------
    UnknownNameError
        When there is no such column or state.

    Examples
    --------
    >>> import pandas as pd
    >>> from anndata import AnnData
    >>> latents = AnnData(np.zeros((3, 1)), obs=pd.DataFrame({"state": ["A", None, "B"]}, index=list("abc")))
    >>> paint = coloring(latents, "state")
    >>> [paint.palette[code] for code in paint.codes]
    ['#008C65', '#8a8a8a', '#EAA51A']
    """
    if name == BELIEF and BELIEF in latents.obsm and latents.obsm[BELIEF].shape[1] == 3:
        return _mixed(latents.obsm[BELIEF], _state_names(latents))
    if name.startswith(f"{BELIEF}:") and BELIEF in latents.obsm:
        state = name.partition(":")[2]
        names = _state_names(latents)
        if state not in names:
            raise unknown("state", state, names)
        return _continuous(f"belief in {state}", latents.obsm[BELIEF][:, names.index(state)], (0.0, 1.0))
    if name not in latents.obs:
        raise unknown("colour", name, color_options(latents).values())
    values = latents.obs[name]
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return _continuous(words(name), values.to_numpy(dtype=float), None)
    return _categorical(words(name), values)


def own_colorings(
    title: str, values: Sequence[Float[np.ndarray, " rows"]], scale: Sequence[Float[np.ndarray, " rows"]] = ()
) -> list[Coloring]:
    """Colour the rows of each model by its own numbers, such as losses, all on one scale.

    The scale covers the numbers in `scale`, default `values`, up to their 99 % quantile. Larger numbers get the last
    colour, so that a few outliers do not stretch the scale.

    Examples
    --------
    >>> first, second = own_colorings("loss", [np.array([0.0, 1.0]), np.array([4.0, np.nan])])
    >>> first.limits == second.limits, second.palette[int(second.codes[1])]
    (True, '#8a8a8a')
    """
    known = np.concatenate([numbers[np.isfinite(numbers)] for numbers in scale or values])
    limits = (float(known.min()), float(np.quantile(known, 0.99, method="higher"))) if known.size else (0.0, 1.0)
    return [_continuous(title, numbers, limits) for numbers in values]


def _state_names(latents: AnnData) -> list[str]:
    from nextlat_viz.latents import metas

    return list(next(iter(metas(latents).values()))["state_names"])


def _continuous(title: str, values: np.ndarray, limits: tuple[float, float] | None) -> Coloring:
    finite = np.isfinite(values)
    low, high = limits or ((float(values[finite].min()), float(values[finite].max())) if finite.any() else (0.0, 1.0))
    span = high - low or 1.0
    share = np.clip((np.where(finite, values, low) - low) / span, 0, 1)
    codes = np.where(finite, np.rint(share * (_SHADES - 1)), _SHADES)
    palette = theme.to_hex(theme.sequential_rgb(np.linspace(0, 1, _SHADES)))
    names = [(f"{title} {low:.4g}", palette[0]), (f"{low + span:.4g}", palette[-1])]
    return Coloring(title, codes.astype(np.uint8), [*palette, MISSING], names, (low, low + span))


def _mixed(beliefs: np.ndarray, names: list[str]) -> Coloring:
    """Mix three colours in the proportions of a belief, rounded to steps too fine to see."""
    steps = 15
    finite = np.isfinite(beliefs).all(axis=1)
    share = np.where(finite[:, None], beliefs, 1 / 3)
    first, second = (np.clip(np.rint(share[:, i] * steps), 0, steps).astype(int) for i in (0, 1))
    second = np.minimum(second, steps - first)
    grid = [(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)]
    number = np.zeros((steps + 1, steps + 1), dtype=np.uint8)
    for k, (i, j, _) in enumerate(grid):
        number[i, j] = k
    codes = np.where(finite, number[first, second], len(grid)).astype(np.uint8)
    palette = theme.to_hex(theme.belief_rgb(np.array(grid) / steps))
    pure = list(zip(map(shorten, names), theme.categorical_colors(3), strict=True))
    return Coloring("belief in", codes, [*palette, MISSING], pure)


def _categorical(title: str, values: pd.Series) -> Coloring:
    category = values.astype("category") if not isinstance(values.dtype, pd.CategoricalDtype) else values
    names = [str(value) for value in category.cat.categories]
    codes = category.cat.codes.to_numpy().astype(int)
    if len(names) > _MOST_NAMES:
        codes = np.where(codes < 0, codes, codes % _MOST_NAMES)
    palette = theme.categorical_colors(min(len(names), _MOST_NAMES))
    missing = codes < 0
    codes = np.where(missing, len(palette), codes).astype(np.uint8)
    shown = []
    if len(names) <= _MOST_NAMES:
        shown = list(zip(map(shorten, names), palette, strict=True)) + [("missing", MISSING)] * bool(missing.any())
    return Coloring(title, codes, [*palette, MISSING], shown, classes=tuple(names) if shown else ())


def _steps(palette: Sequence[str]) -> list[list[Any]]:
    n = len(palette)
    return [[edge / n, color] for i, color in enumerate(palette) for edge in (i, i + 1)]


def describer(latents: AnnData, shown: Callable[[str], str] = escape, line: str = "<br>") -> Callable[[int], str]:
    """Return a function that describes a row: the tokens read so far, the position and the true state.

    For a recursive model it describes the step, and the facts about its answer. Long names are cut, then passed
    through `shown`; `line` separates lines. By default the text is HTML.
    """
    from nextlat_viz.latents import column, metas, tokens_of

    if "recursion_steps" in next(iter(metas(latents).values())):
        return _step_describer(latents, shown, line)
    tokens, episodes, positions = tokens_of(latents), column(latents, "episode"), column(latents, "position")
    # Shorten each name only once: a text repeats up to 24 names, and a figure has a text for each row.
    vocabulary = [shown(shorten(name)) for name in next(iter(metas(latents).values()))["vocabulary"]]
    place = {episode: i for i, episode in enumerate(np.unique(episodes).tolist())}
    states = latents.obs["state"].to_numpy() if "state" in latents.obs else None
    state_text = cache(lambda state: shown(shorten(state, LONGEST_FACT)))

    def describe(row: int) -> str:
        episode, position = int(episodes[row]), int(positions[row])
        read = prefix(tokens[place[episode], :position], vocabulary) or "nothing"
        text = f"read {read}{line}episode {episode}, position {position}"
        return text if states is None else f"{text}{line}true state {state_text(states[row])}"

    return describe


def _step_describer(latents: AnnData, shown: Callable[[str], str], line: str) -> Callable[[int], str]:
    names = [name for name in ("board", "cell", "answer", "conflicts", "distance", "solved") if name in latents.obs]

    def describe(row: int) -> str:
        facts = latents.obs.iloc[row]
        true = ", ".join(f"{words(name)} {facts[name]}" for name in names)
        return f"{shown(str(facts['token']))}{line}episode {facts['episode']}{line}{shown(true)}"

    return describe


def prefix(tokens: Int[np.ndarray, " positions"], names: list[str]) -> str:
    """Write the tokens read so far, at most the last 24; ``?`` for a token that the table lacks."""
    shown = [names[token] if token >= 0 else "?" for token in tokens[-_MOST_TOKENS:].tolist()]
    return " ".join(["…", *shown] if len(tokens) > _MOST_TOKENS else shown)


def true_state(world: World, episode: Episodes, position: int) -> dict[str, str]:
    """Describe the true state after `position` tokens of one episode, with the world's names of states.

    At position 0, before any token, only the states known there are described.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> world = worlds.get("rrxor")
    >>> true_state(world, world.sample(1, 6, seed=1), 3)["state"]
    'first 1'
    """
    names: dict[str, tuple[str, ...] | None] = {**world.state_values, BELIEF: world.state_names}
    known = {name: values[0, position - 1] for name, values in episode.states.items()}
    if position == 0:
        known = {name: value for name, value in world.start_states().items() if name in episode.states}
    return {words(name): _words(value, names.get(name), name in world.optional_states) for name, value in known.items()}


def _words(value: np.ndarray | np.generic, names: tuple[str, ...] | None, optional: bool) -> str:
    """Write a value; -1 is left out if there are names or the value is `optional`."""
    values = np.ravel(value)
    if values.dtype.kind == "f" and names and len(names) == values.size:
        return shorten(
            ", ".join(f"{name}: {item:.3g}" for name, item in zip(names, values, strict=True) if item), LONGEST_FACT
        )
    if values.size > _MOST_VALUES:
        counts = np.bincount(values, minlength=len(names)) if names and values.min() >= 0 else ()
        listed = ", ".join(f"{count} {name}" for name, count in zip(names or (), counts, strict=True) if count)
        return listed or f"{values.size} values"
    parts = []
    for item in values.tolist():
        if isinstance(item, bool):
            parts.append("yes" if item else "no")
        elif names is None or isinstance(item, float):
            parts += [f"{item:.3g}" if isinstance(item, float) else str(item)] * (not optional or item >= 0)
        elif item >= 0:
            parts.append(names[item])
    return shorten(", ".join(parts), LONGEST_FACT) or "not known yet"
