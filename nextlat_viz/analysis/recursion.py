"""Recursive models: what they solve and when, which steps help, guidance, and how many forward passes it takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from nextlat_viz.analysis.measure import Measure, Models, Rows, clustered, measure, record, several, share
from nextlat_viz.decoding.predictor import ModelPredictor
from nextlat_viz.errors import at_least
from nextlat_viz.latents.inputs import HELDOUT_SEED, heldout
from nextlat_viz.latents.thinking import Thinking, is_recursive, recursive_network, think
from nextlat_viz.training.checkpoint import Checkpoint
from nextlat_viz.training.trained import TrainedModel

_SOLVED, _STEPS = "solved", "steps"
_FACTS = {_SOLVED: "share", "distance": "cells", "conflicts": "pairs", "changed": "cells"}
_GUIDANCE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
_PAPER = "Asadulaev et al. 2025 (arXiv:2511.16886)"
_measure = partial(measure, of=ModelPredictor, fits=is_recursive)


def _thoughts(
    models: Models[ModelPredictor], n: int, steps: int | None, seed: int
) -> Iterator[tuple[ModelPredictor, Thinking]]:
    at_least("n", n, 2, "a standard error needs two puzzles")
    for model in models.all:
        recursive_network(model.checkpoint, models.measure)
    for model in models:
        thinking = think(model.checkpoint, heldout(model.checkpoint, n, seed), steps)
        if not np.isfinite(thinking.logits).all():
            raise ValueError(
                f"{model.name} predicts NaN or infinity: was its learning rate too high? Measure another checkpoint"
            )
        yield model, thinking


def _mean(values: np.ndarray) -> dict[str, float | int]:
    """Return the mean over puzzles, its standard error and their number; NaN for a model that predicts NaN."""
    if not np.isfinite(values).all():
        return {"value": np.nan, "error": np.nan, "trials": len(values)}
    return clustered(values.astype(np.float64), np.ones(len(values)))


@_measure(
    "solved puzzles",
    by=("quantity",),
    unit={name: unit for name, unit in _FACTS.items() if name != "changed"},
    note="Of the answers to held-out puzzles after the last step taken in training. Any completion counts as solved; "
    "distance is to the nearest one.",
)
def solved_puzzles(models: Models[ModelPredictor], n: int = 256, *, seed: int = HELDOUT_SEED) -> Rows:
    """Share of held-out puzzles that a recursive model solves, and the distance of its answers from a solution.

    Returns
    -------
    Measure
        By quantity: ``"solved"``, a share; ``"distance"``, cells; and, of queens, ``"conflicts"``, pairs that attack
        each other. ``steps`` is the number of recursion steps.

    Raises
    ------
    LatentsError
        A model that is not recursive.

    Examples
    --------
    >>> table = solved_puzzles("queens/dis", n=16, progress=False).table.set_index("quantity")["value"]
    >>> bool((table["solved"] == 1) == (table["distance"] == 0))
    True
    """
    for model, thinking in _thoughts(models, n, None, seed):
        for quantity, values in thinking.facts().items():
            if quantity != "changed":
                yield model, {"quantity": quantity, **_mean(values[:, -1]), _STEPS: thinking.steps}


@_measure(
    "solved by step",
    by=("step", "quantity"),
    unit=_FACTS,
    note="Of the answer after each recursion step, on held-out puzzles; a cell is changed by a step if its answer "
    "differs from that of the step before; at the first step, from the puzzle.",
)
def solved_by_step(
    models: Models[ModelPredictor], steps: int | None = None, n: int = 256, *, seed: int = HELDOUT_SEED
) -> Rows:
    """Share of held-out puzzles solved after each recursion step, and conflicts, distance and changed cells.

    Parameters
    ----------
    steps : int, optional
        Recursion steps; default as many as each model took in training. Later ones are allowed.

    Returns
    -------
    Measure
        By step and quantity: ``"solved"``, ``"distance"``, ``"changed"`` and, of queens, ``"conflicts"``. ``trained``
        says whether the step was taken in training, ``passes`` is how often the network was applied up to it.

    Raises
    ------
    LatentsError
        A model that is not recursive.

    Examples
    --------
    >>> table = solved_by_step("queens/dis", steps=9, n=16, progress=False).table
    >>> table.query("quantity == 'solved'")["trained"].tolist() == [True] * 8 + [False]
    True
    """
    for model, thinking in _thoughts(models, n, steps, seed):
        for row in _solved_rows(model.checkpoint, thinking):
            yield model, row


def _solved_rows(checkpoint: TrainedModel, thinking: Thinking) -> Iterator[dict[str, Any]]:
    schedule = recursive_network(checkpoint, "solved_by_step").backbone.schedule
    for quantity, values in thinking.facts().items():
        for step in range(thinking.steps):
            row = {"step": step + 1, "quantity": quantity, "trained": step < thinking.trained}
            yield row | {"passes": (step + 1) * schedule.passes // schedule.steps, **_mean(values[:, step])}


@_measure(
    "steps needed",
    by=("given", "quantity"),
    unit={_SOLVED: "share", _STEPS: "recursion steps"},
    note="By the number of given cells: the share of puzzles solved after the last step taken in training, and the "
    "mean step from which these stay solved.",
)
def steps_needed(models: Models[ModelPredictor], n: int = 256, *, seed: int = HELDOUT_SEED) -> Rows:
    """Recursion steps that a puzzle needs, by how much of it is given.

    Returns
    -------
    Measure
        By number of given cells and quantity: ``"solved"``, the share of puzzles solved after the last step, and
        ``"steps"``, the mean step from which a solved puzzle stays solved; no row where none is solved.

    Raises
    ------
    LatentsError
        A model that is not recursive.

    Examples
    --------
    >>> steps = steps_needed("queens/dis", n=64, progress=False).table.query("quantity == 'steps'")
    >>> bool(steps["value"].between(1, 8).all())
    True
    """
    for model, thinking in _thoughts(models, n, None, seed):
        given = (thinking.puzzles.tokens != 0).sum(axis=1)
        solved = thinking.facts()[_SOLVED] == 1
        needed = needed_steps(solved)
        for count in np.unique(given).tolist():
            puzzles = given == count
            done = puzzles & solved[:, -1]
            yield model, {"given": count, "quantity": _SOLVED, **share(int(done.sum()), int(puzzles.sum()))}
            if done.any():
                yield model, {"given": count, "quantity": _STEPS, **_mean(needed[done])}


def needed_steps(solved: Bool[np.ndarray, "puzzles steps"]) -> Int[np.ndarray, " puzzles"]:
    """The step from which each puzzle stays solved; 0 where it is not solved after the last.

    Examples
    --------
    >>> needed_steps(np.array([[0, 1, 1], [1, 0, 1], [1, 1, 1], [1, 1, 0]], dtype=bool)).tolist()
    [2, 3, 1, 0]
    """
    unsolved = np.where(solved, 0, np.arange(1, solved.shape[1] + 1)).max(axis=1)
    return np.where(solved[:, -1], unsolved + 1, 0)


@_measure(
    "advantage margin",
    by=("step", "cells"),
    unit="logits",
    better="higher",
    note="How much a step raises the right token's logit over what the answer before it expected; above 0 the step "
    f"helps, and at about 0 it is dead compute. {_PAPER}.",
)
def advantage_margin(
    models: Models[ModelPredictor],
    steps: int | None = None,
    n: int = 256,
    *,
    dead: float = 0.01,
    seed: int = HELDOUT_SEED,
) -> Rows:
    """Advantage margin of each recursion step, and which steps are dead.

    Parameters
    ----------
    steps : int, optional
        Recursion steps; default as many as each model took in training.
    dead : float
        A step is dead where the size of its mean margin is under this share of the model's largest.

    Returns
    -------
    Measure
        By step and cells: ``"all"``; ``"queen"``, cells with a queen in the solution that is not given (in other
        puzzles, any token but the first); and ``"empty"`` cells. ``positive`` is the share of cells with a margin above
        0, ``dead`` whether the step is dead.

    Raises
    ------
    LatentsError
        A model that is not recursive.

    Examples
    --------
    >>> table = advantage_margin("queens/dis", n=16, progress=False).table
    >>> int(table["step"].max()), sorted(table["cells"].unique())
    (8, ['all', 'empty', 'queen'])
    """
    for model, thinking in _thoughts(models, n, steps, seed):
        for row in _margin_rows(thinking, dead):
            yield model, row


def _margin_rows(thinking: Thinking, dead: float = 0.01) -> Iterator[dict[str, Any]]:
    queen = thinking.targets != 0
    kinds = {"all": np.ones_like(queen), "queen": queen & (thinking.puzzles.tokens == 0), "empty": ~queen}
    for cells, mask in kinds.items():
        by_puzzle = _over_cells(thinking.margins, mask)
        size = np.abs(by_puzzle.mean(axis=0))
        positive = _over_cells((thinking.margins > 0).astype(np.float64), mask).mean(axis=0)
        for step in range(thinking.steps):
            row = {"step": step + 1, "cells": cells, **_mean(by_puzzle[:, step])}
            row |= {"positive": float(positive[step]), "dead": bool(size[step] < dead * size.max())}
            yield row | {"trained": step < thinking.trained}


def step_measures(models: Sequence[Checkpoint], thinkings: Sequence[Thinking]) -> tuple[Measure, Measure]:
    """Return `solved_by_step` and `advantage_margin` of answers already computed, one `Thinking` for each model.

    Examples
    --------
    >>> from nextlat_viz import load, think
    >>> model = load("queens/dis")
    >>> [measure.by for measure in step_measures([model], [think(model)])]
    [('step', 'quantity'), ('step', 'cells')]
    """
    solved, margins = [], []
    for model, thinking in zip(models, thinkings, strict=True):
        about: dict[str, Any] = {"objective": model.objective, "seed": model.seed, "model": model.name}
        about["world"] = model.world.name
        solved += [record(**about, **row) for row in _solved_rows(model, thinking)]
        margins += [record(**about, **row) for row in _margin_rows(thinking)]
    return (
        Measure("solved by step", pd.DataFrame(solved), ("step", "quantity"), _FACTS),
        Measure("advantage margin", pd.DataFrame(margins), ("step", "cells"), "logits", "higher"),
    )


def _over_cells(
    values: Float[np.ndarray, "puzzles steps cells"], mask: Bool[np.ndarray, "puzzles cells"]
) -> Float[np.ndarray, "used steps"]:
    """Return the mean over the cells of a mask, for each puzzle that has any of them."""
    used = mask.any(axis=1)
    weights = mask[used] / mask[used].sum(axis=1, keepdims=True)
    return (values[used] * weights[:, None]).sum(axis=-1)


@_measure(
    "guidance",
    by=("guidance",),
    better="higher",
    note="Share of held-out puzzles solved after the last step, read from before + w (after - before), the logits "
    f"before and after it; w = 1 is the model itself. {_PAPER}.",
)
def guidance_strength(
    models: Models[ModelPredictor],
    guidance: float | Sequence[float] = _GUIDANCE,
    n: int = 256,
    *,
    seed: int = HELDOUT_SEED,
) -> Rows:
    """Share of held-out puzzles solved with more or less guidance by the last recursion step.

    Parameters
    ----------
    guidance : float or several
        The strength w, see `Thinking.answers`.

    Returns
    -------
    Measure
        By guidance.

    Raises
    ------
    LatentsError
        A model that is not recursive.

    Examples
    --------
    >>> guidance_strength("queens/dis", (1.0, 2.0), n=16, progress=False).table["guidance"].tolist()
    [1.0, 2.0]
    """
    for model, thinking in _thoughts(models, n, None, seed):
        for strength in several(guidance):
            solved = thinking.facts(strength)[_SOLVED][:, -1]
            yield model, {"guidance": float(strength), **share(int(solved.sum()), len(solved))}


@_measure(
    "forward passes",
    by=("quantity",),
    unit={"training": "passes per puzzle", "answer": "passes per puzzle", _SOLVED: "passes per solved puzzle"},
    better="lower",
    note="How often the network is applied: to a puzzle in training, a mean over the validations with halting; to "
    "answer a puzzle; and to solve one, those spent on unsolved ones included. "
    f"{_PAPER}: 336 for TRM and 18 for DIS in training.",
)
def forward_passes(models: Models[ModelPredictor], n: int = 256, *, seed: int = HELDOUT_SEED) -> Rows:
    """How many forward passes a model was trained with, takes to answer, and takes for each solved puzzle.

    Returns
    -------
    Measure
        By quantity: ``"training"``, ``"answer"`` and ``"solved"``, infinite where no puzzle is solved. ``schedule`` is
        the most passes that a puzzle takes in training, without halting.

    Raises
    ------
    LatentsError
        A model that is not recursive.

    Examples
    --------
    >>> table = forward_passes("queens/dis", n=16, progress=False).table.set_index("quantity")["value"]
    >>> table[["training", "answer"]].tolist()
    [24.0, 24.0]
    """
    for model, thinking in _thoughts(models, n, None, seed):
        network = recursive_network(model.checkpoint, models.measure)
        schedule, training = network.backbone.schedule, float(network.backbone.schedule.passes)
        if network.updates != 1:
            # With halting a puzzle takes fewer updates: their mean over the validations.
            metrics: pd.DataFrame = model.checkpoint.metrics  # type: ignore[attr-defined]
            training = float(metrics["train/updates"].mean() * schedule.passes / schedule.steps)
        solved = float(thinking.facts()[_SOLVED][:, -1].mean())
        counts = {
            "training": training,
            "answer": float(schedule.passes),
            _SOLVED: schedule.passes / solved if solved else float("inf"),
        }
        for quantity, value in counts.items():
            yield model, {"quantity": quantity, "value": value, "schedule": schedule.passes}
