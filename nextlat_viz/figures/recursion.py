"""Recursive models step by step: puzzles solved, steps that help, and the board at every step."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from nextlat_viz.display import counted, escape, shorten
from nextlat_viz.errors import at_least, one_of
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.layout import Grid, Layout, note
from nextlat_viz.figures.theme import OBJECTIVES, Theme, dash, symbol
from nextlat_viz.plotting import CURSOR, ROOM, Figure
from nextlat_viz.worlds import drawing
from nextlat_viz.worlds.queens import Queens, boards
from nextlat_viz.worlds.queens.draw import ANSWER, GIVEN, SHADE, board_squares, centres, crowns

if TYPE_CHECKING:
    from nextlat_viz.analysis import Measure
    from nextlat_viz.latents import Thinking

_AXES = {"step": "recursion step", "passes": "forward passes of the network"}
# A step is dead if its margin is below this share of the model's largest.
_DEAD = 0.01
# Smaller shares are drawn at this one.
_LEAST = 1e-4
_COLUMNS = 8
_CHANGED = "#009E73"
_KEY = (
    "Dark: given. Blue: the answer. Magenta: queens that attack each other. Green frame: changed by this step. "
    "Orange: probability of a queen."
)


def thinking_curves(
    solved: Measure,
    margins: Measure | None = None,
    *,
    x: Literal["step", "passes"] = "step",
    cursor: int | None = None,
    title: str = "",
    theme: Theme = "auto",
) -> Figure:
    """Draw the share of solved puzzles after every recursion step, one line per run, and how much each step helps.

    A large mark is the last step taken in training; after it the line is dotted. A thick line is an objective's mean
    over its seeds.

    Parameters
    ----------
    solved : Measure
        As `analysis.solved_by_step` returns it.
    margins : Measure, optional
        As `analysis.advantage_margin` returns it, for a second view: the size of each step's mean advantage margin, as
        a share of the model's largest. Steps below the line at 1 % are dead. Open marks are negative margins: the step
        hurts.
    x : {"step", "passes"}
        The horizontal axis of the first view. Forward passes compare models at equal compute.
    cursor : int, optional
        A recursion step to mark.
    title : str
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        Every trace has ``meta``: ``role`` ("run", "untrained", "mean", "end", "margin"), ``objective`` and ``model``.

    Examples
    --------
    >>> from nextlat_viz.analysis.measure import Measure, record
    >>> rows = [
    ...     record("queens", "dis", 0, step=s, quantity="solved", trained=s < 3, passes=3 * s, value=s / 4)
    ...     for s in (1, 2, 3)
    ... ]
    >>> figure = thinking_curves(Measure("solved by step", pd.DataFrame(rows), ("step", "quantity")))
    >>> [trace.meta["role"] for trace in figure.data]
    ['run', 'untrained', 'end']
    """
    one_of("x", x, _AXES)
    table = solved.table[solved.table["quantity"] == "solved"]
    objectives = list(dict.fromkeys(table["objective"]))
    labels = [OBJECTIVES.get(name, str(name)) for name in objectives]
    looks = dict(zip(objectives, zip(labels, themes.model_colors(labels), strict=True), strict=True))
    layout, traces = Layout(), []
    grid = Grid(1, 1 if margins is None else 2, height=250, above=40, below=48, top=34, gap=0.12)
    axis: dict[str, Any] = {"title": {"text": _AXES[x]}, "rangemode": "tozero"}
    if x == "passes":
        ends = table[table["trained"].astype(bool)].groupby("model")["passes"].max()
        axis |= {
            "type": "log",
            "rangemode": "normal",
            "tickvals": sorted({int(table["passes"].min()), *map(int, ends)}),
        }
    else:
        axis["dtick"] = _tick(table["step"])
    y: dict[str, Any] = {"title": {"text": "solved puzzles, share"}, "range": [-0.04, 1.06]}
    axes = layout.view(*grid.place(0, 0), x=axis, y=y, title="Held-out puzzles solved")
    for i, objective in enumerate(objectives):
        mine = table[table["objective"] == objective]
        label, color = looks[objective]
        traces += _curves(mine, x, label, color, i, axes)
    views = [axes] if x == "step" else []
    if margins is not None:
        y = {"title": {"text": "size of the margin"}, "type": "log", "range": [-4.2, 0.2]}
        y |= {"tickvals": [1e-4, 1e-3, 1e-2, 1e-1, 1], "ticktext": ["0.01 %", "0.1 %", "1 %", "10 %", "100 %"]}
        steps = {"title": {"text": _AXES["step"]}, "dtick": _tick(margins.table["step"])}
        more = "Open: it hurts. Below 1 %: dead."
        axes = layout.view(*grid.place(0, 1), x=steps, y=y, title="Which steps help?", more=more)
        traces += _margins(margins.table[margins.table["cells"] == "all"], looks, axes)
        layout.rule(axes, {"color": themes.EXACT, "dash": "dot"}, y=_DEAD)
        views.append(axes)
    if cursor is not None:
        for axes in views:
            layout.rule(axes, {"color": CURSOR, "width": 1.5}, x=cursor, layer="below")
    return layout.finish(
        traces,
        theme,
        title={"text": escape(title), "y": 1, "yanchor": "top", "pad": {"t": 10}},
        height=grid.pixels,
        margin={"l": 60, "r": ROOM, "t": 0, "b": 0},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1 - 8 / grid.pixels, "yanchor": "top"},
    )


def _tick(steps: pd.Series) -> int:
    """Return the number of steps between ticks."""
    return max(1, int(steps.max()) // 8)


def _curves(rows: pd.DataFrame, x: str, label: str, color: str, i: int, axes: Mapping[str, str]) -> list[go.Scatter]:
    """Draw the runs of one objective: solid to the last trained step, a mark there, dotted after it; and their mean."""
    name = escape(label)
    objective = str(rows["objective"].iloc[0])
    traces, first = [], True
    several = rows["model"].nunique() > 1
    for model, run in rows.groupby("model", sort=False):
        run = run.sort_values("step")
        trained = run[run["trained"].astype(bool)]
        last = trained.tail(1)
        options: dict[str, Any] = {"name": name, "legendgroup": name, **axes}
        seed = run["seed"].iloc[0]
        about = f"{escape(str(model)) if pd.isna(seed) else f'{name}, seed {seed}'}<br>%{{x}} "
        hover = f"{about}{'steps' if x == 'step' else 'passes'}: %{{y:.3f}}"
        thin: dict[str, Any] = {"color": color, "width": 1 if several else 2.4, "dash": dash(i)}
        parts = [
            ("run", trained, "lines", thin, hover),
            ("end", last, "markers", {}, f"{hover}, the last in training"),
        ]
        later = run[run["step"] >= last["step"].item()] if len(last) else run
        if len(later) > 1:
            parts.insert(1, ("untrained", later, "lines", thin | {"dash": "dot", "width": 1}, f"{hover}, not trained"))
        for role, part, mode, line, text in parts:
            look = {"line": line} if line else {"marker": {"color": color, "symbol": symbol(i), "size": 9}}
            traces.append(
                go.Scatter(
                    x=part[x].tolist(), y=part["value"].tolist(), mode=mode, opacity=0.6 if several and line else 1,
                    hovertemplate=f"{text}<extra></extra>", showlegend=first and role == "end",
                    meta={"role": role, "objective": objective, "model": str(model)}, **look, **options,
                )
            )  # fmt: skip
        first = False
    if several:
        mean = rows[rows["trained"].astype(bool)].groupby(x)["value"].mean()
        traces.append(
            go.Scatter(
                x=mean.index.tolist(), y=mean.tolist(), mode="lines", name=name, legendgroup=name, showlegend=False,
                line={"color": color, "width": 2.8, "dash": dash(i)},
                hovertemplate=f"{name}, mean over seeds<br>%{{x}}: %{{y:.3f}}<extra></extra>",
                meta={"role": "mean", "objective": objective, "model": ""}, **axes,
            )
        )  # fmt: skip
    return traces


def _margins(rows: pd.DataFrame, looks: Mapping[str, tuple[str, str]], axes: Mapping[str, str]) -> list[go.Scatter]:
    """Draw the size of each run's margins as a share of its largest; open marks are negative."""
    traces = []
    for i, objective in enumerate(looks):
        label, color = looks[objective]
        for model, run in rows[rows["objective"] == objective].groupby("model", sort=False):
            run = run.sort_values("step")
            largest = run["value"].abs().max() or 1.0
            share = (run["value"].abs() / largest).clip(lower=_LEAST)
            marks = [symbol(i) if value > 0 else f"{symbol(i)}-open" for value in run["value"]]
            traces.append(
                go.Scatter(
                    x=run["step"].tolist(), y=share.tolist(), mode="lines+markers", showlegend=False,
                    legendgroup=escape(label), customdata=run["value"].tolist(),
                    line={"color": color, "width": 1, "dash": dash(i)},
                    marker={"color": color, "symbol": marks, "size": 7, "line": {"width": 1.5, "color": color}},
                    hovertemplate=f"{escape(str(model))}<br>step %{{x}}: %{{customdata:.3g}} logits<extra></extra>",
                    meta={"role": "margin", "objective": objective, "model": str(model)}, **axes,
                )
            )  # fmt: skip
    return traces


def thinking_boards(
    thinkings: Mapping[str, Thinking],
    puzzle: int = 0,
    steps: int | Sequence[int] | None = None,
    *,
    columns: int = _COLUMNS,
    theme: Theme = "auto",
) -> Figure:
    """Draw the board that a model answers after each recursion step: one model's steps, or several models at one step.

    Parameters
    ----------
    thinkings : dict of {label: Thinking}
        Answers of models to the same boards of queens, as `think` returns them.
    puzzle : int
        Which of the boards.
    steps : int or several, optional
        Recursion steps, from 1; default all.
    columns : int
        Boards in a row.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        A board for each model and step. Its heading says whether the answer is a solution, or else how many pairs of
        queens attack each other, or how many cells differ from the nearest solution.

    Raises
    ------
    ValueError
        For an unknown puzzle or step, and for a world other than queens.

    Examples
    --------
    >>> from nextlat_viz import think
    >>> figure = thinking_boards({"DIS": think("queens/dis")}, puzzle=3)
    >>> figure.layout.annotations[0].text.startswith("<b>step 1</b>")
    True
    """
    columns = at_least("columns", columns)
    views = []
    for label, thinking in thinkings.items():
        world = thinking.world
        if not isinstance(world, Queens):
            raise ValueError(f"the answers of {label} are to world {world.name!r}, and boards are of 'queens'")
        if not 0 <= puzzle < len(thinking.puzzles):
            raise ValueError(f"puzzle={puzzle}: there are {len(thinking.puzzles)}, from 0")
        chosen = range(1, thinking.steps + 1) if steps is None else [steps] if isinstance(steps, int) else steps
        for step in chosen:
            if not 1 <= step <= thinking.steps:
                raise ValueError(f"step {step} of {label}: there are steps 1 to {thinking.steps}")
            views.append((label, thinking, step, world.size))
    columns = min(columns, len(views))
    side = 300 if columns == 1 else 190 if columns <= 4 else 104
    grid = Grid(-(-len(views) // columns), columns, height=side, above=54, top=6, foot=52, gap=0.02)
    layout, traces = Layout(), []
    one_model, one_step = len(thinkings) == 1, len({step for _, _, step, _ in views}) == 1
    for i, (label, thinking, step, size) in enumerate(views):
        place: dict[str, Any] = {
            "range": [-0.05, size + 0.05],
            "visible": False,
            "fixedrange": True,
            "constrain": "domain",
        }
        title = [] if one_model else [shorten(label, 24)]
        title += [] if one_step and not one_model else [f"step {step}"]
        title[-1] += "†" if step > thinking.trained else ""
        axes = layout.view(
            *grid.place(*divmod(i, columns)),
            x=place,
            y=place | {"range": place["range"][::-1]},
            square=True,
            title=escape(", ".join(title)),
            more=_situation(thinking, puzzle, step),
        )
        refs = {"xref": axes["xaxis"], "yref": axes["yaxis"]}
        layout.lines += [shape | refs for shape in board_squares(size)]
        traces += _board(thinking, puzzle, step, axes)
    for heading in layout.notes:
        heading["font"] = {"size": 11}
    key = "<br>".join(textwrap.wrap(_KEY, 80))
    if any(step > thought.trained for _, thought, step, _ in views):
        key += " † Not taken in training."
    layout.notes.append(note(0.0, 0.0, key, xanchor="left", yanchor="bottom", align="left", font={"size": 11}))
    return layout.finish(traces, theme, height=grid.pixels, margin={"l": 8, "r": 8, "t": 0, "b": 0}, showlegend=False)


def _situation(thinking: Thinking, puzzle: int, step: int) -> str:
    """Describe an answer in two short lines."""
    facts = {name: int(values[puzzle, step - 1]) for name, values in thinking.facts().items()}
    if facts["solved"]:
        text = "solved"
    elif facts["conflicts"]:
        text = counted(facts["conflicts"], "conflict")
    else:
        text = f"{counted(facts['distance'], 'cell')} off"
    return f"{facts['changed']} changed<br>{text}"


def _board(thinking: Thinking, puzzle: int, step: int, axes: Mapping[str, str]) -> list[Any]:
    """Draw the probability of a queen in every cell, given and answered queens, their conflicts and changed cells."""
    world = thinking.world
    assert isinstance(world, Queens)
    size, tokens, answers = world.size, thinking.puzzles.tokens[puzzle], thinking.answers()[puzzle]
    answer, before = answers[step - 1], answers[step - 2] if step > 1 else tokens
    logits = thinking.logits[puzzle, step - 1]
    queen = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    middle = np.arange(size) + 0.5
    shades = [[0, themes.rgba(SHADE, 0.0)], [1, themes.rgba(SHADE, 0.9)]]
    names = np.array(world.cells).reshape(size, size)
    heat = go.Heatmap(
        x=middle, y=middle, z=queen.reshape(size, size), zmin=0, zmax=1, colorscale=shades, showscale=False,
        customdata=names, hovertemplate="%{customdata}: queen %{z:.2f}<extra></extra>", meta={"role": "queen"}, **axes,
    )  # fmt: skip
    given, queens = np.flatnonzero(tokens), np.flatnonzero(answer)
    # A given queen that the answer leaves out stays visible, framed as changed.
    marks = [("answer", np.setdiff1d(queens, given), ANSWER), ("given", given, GIVEN)]
    traces = [heat]
    traces += [
        go.Scatter(**crowns(cells, size), fillcolor=color, meta={"role": role}, **axes) for role, cells, color in marks
    ]
    first, second = np.nonzero(np.triu(boards.attacks(size)) & (answer > 0) & (answer > 0)[:, None])
    lines = drawing.segments(centres(first, size), centres(second, size))
    changed = centres(np.flatnonzero(answer != before), size)[:, None] + 0.46 * np.array(
        [[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1], [np.nan, np.nan]]
    )
    for role, places, color in (("conflicts", lines, CURSOR), ("changed", changed.reshape(-1, 2), _CHANGED)):
        look = {"mode": "lines", "line": {"color": color, "width": 2}, **drawing.QUIET}
        traces.append(go.Scatter(x=places[:, 0], y=places[:, 1], **look, meta={"role": role}, **axes))
    return traces
