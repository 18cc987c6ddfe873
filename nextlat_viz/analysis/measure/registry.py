"""The decorator that turns a function of models into a measure, and the register of all measures.

A measure yields a row for each model and setting. The decorator takes one or many models, shows progress, makes the
table, documents the arguments that all measures share, and registers the measure for `evaluate`.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from nextlat_viz import display
from nextlat_viz.analysis.measure.result import Measure, record
from nextlat_viz.decoding.predictor import ModelPredictor, Predictor, WorldPredictor, as_predictors
from nextlat_viz.models.torch_state import torch_defaults
from nextlat_viz.training.trained import TrainedModel
from nextlat_viz.worlds import World

P = TypeVar("P", bound=Predictor)
W = TypeVar("W", bound=World)
T = TypeVar("T")

Rows = Generator[tuple[Predictor, dict[str, Any]], None, Any]
"""Rows of a measure: the model, and its settings, ``value``, ``error``, ``trials`` and counts.

The generator may return a dict of fields of `Measure` that depend on the options, such as its ``note``.
"""


@dataclass(frozen=True)
class Registered:
    """A measure for `evaluate`, and the test whether it fits a checkpoint."""

    take: Callable[..., Measure]
    fits: Callable[[TrainedModel], bool]


MEASURES: dict[str, Registered] = {}
"""All measures whose modules were imported, by name."""


class Models(Generic[P]):
    """The models to measure, all of one world. Iterating over them shows progress.

    Attributes
    ----------
    measure : str
        Name of the measure, for error messages.
    all : list of Predictor
    world : World
    context : int or None
        Most tokens that every model can read without going past its training length; None where there is no limit.
    """

    def __init__(self, measure: str, models: Any, of: type[Any] = Predictor, progress: bool = False) -> None:
        self.measure, self._progress = measure, progress
        self.all: list[P] = []
        for model in as_predictors(_with_worlds(models)):
            if not isinstance(model, of):
                raise ValueError(f"{model.name} has no hidden states: {measure} can only be measured of checkpoints")
            self.all.append(model)
        self.world = self.all[0].world
        limits = [model.checkpoint.reads if isinstance(model, ModelPredictor) else model.context for model in self.all]
        self.context = min((limit for limit in limits if limit is not None), default=None)

    def __iter__(self) -> Iterator[P]:
        return iter(self.track(self.all))

    def track(self, jobs: Sequence[T], unit: str = "model") -> Iterable[T]:
        """Show progress over parts of the work, such as pairs of a model and a setting."""
        return tqdm(jobs, desc=self.measure, unit=unit, disable=not self._progress)

    def world_of(self, kind: type[W], example: str) -> W:
        """Return the world; a ValueError if it is not of a kind."""
        if not isinstance(self.world, kind):
            raise ValueError(
                f"{self.measure} is measured on {kind.__name__}, and {self.all[0].name} is of world "
                f"{self.world.name!r}: give models of a world such as {example!r}"
            )
        return self.world

    def require_finite(self) -> None:
        """Raise a ValueError if a model predicts NaN or infinity: it would look like one that knows nothing."""
        episode = self.world.sample(1, 2 if self.world.length is None else None, states=False)
        opening = episode.tokens[:, : 1 + int(episode.loss_mask[0, 1:].argmax())]
        for model in self.all:
            if not np.isfinite(model.next_token_probs(opening)).all():
                raise ValueError(
                    f"{model.name} predicts NaN or infinity: was its learning rate too high? Measure another checkpoint"
                )


def _with_worlds(models: Any) -> Any:
    """Let a world stand for its exact law, alone or among several models."""
    if isinstance(models, World):
        return WorldPredictor(models)
    if isinstance(models, Iterable) and not isinstance(models, (str, os.PathLike, Predictor)):
        return [WorldPredictor(model) if isinstance(model, World) else model for model in models]
    return models


def several(values: Any) -> list[Any]:
    """Return the values of a setting as a list. A string is one value.

    Examples
    --------
    >>> several("greedy"), several(0.5), several((1, 2))
    (['greedy'], [0.5], [1, 2])
    """
    return list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]


def measure(
    name: str,
    *,
    by: tuple[str, ...] = (),
    unit: str | Mapping[str, str] = "share",
    better: Literal["higher", "lower", ""] = "",
    references: Mapping[str, float] | None = None,
    solved: float | None = None,
    note: str = "",
    of: type[Any] = Predictor,
    fits: Callable[[TrainedModel], bool] = lambda checkpoint: True,
    key: str | None = None,
) -> Callable[[Callable[..., Rows]], Callable[..., Measure]]:
    """Turn a function that yields rows into a measure of one or many models, and register it for `evaluate`.

    Parameters
    ----------
    name, by, unit, better, references, solved, note
        As in `Measure`.
    of : type
        ``ModelPredictor`` where the measure reads hidden states. By default any predictor can be measured, even the
        true world, and one that predicts NaN is refused.
    fits : callable, optional
        Tells `evaluate` whether the measure fits a checkpoint; by default it fits all. A measure of predictions alone
        never fits a model of a corpus, where every token counts as legal.
    key : str, optional
        Name in `evaluate`, by default that of the function.

    Returns
    -------
    callable
        Called with models, the options of the function, and ``progress``; returns a `Measure`.

    Examples
    --------
    A measure of the number of weights:

    >>> @measure("size", unit="weights", of=ModelPredictor)
    ... def size(models: Models[ModelPredictor]) -> Rows:
    ...     for model in models:
    ...         yield model, {"value": sum(weight.numel() for weight in model.model.parameters())}
    >>> size(["mess3/next_token", "mess3/nextlat"], progress=False).table[["objective", "value"]].values.tolist()
    [['next_token', 82688], ['nextlat', 124224]]
    >>> del MEASURES["size"]  # not for the real `evaluate`
    """

    def decorate(function: Callable[..., Rows]) -> Callable[..., Measure]:
        @functools.wraps(function)
        def take(models: Any, *arguments: Any, progress: bool = True, **options: Any) -> Measure:
            fields: dict[str, Any] = {"references": references or {}, "note": note, "by": by}

            def rows() -> Iterator[tuple[Predictor, dict[str, Any]]]:
                chosen: Models[Any] = Models(name, models, of, progress)
                if of is Predictor:
                    chosen.require_finite()
                fields.update((yield from function(chosen, *arguments, **options)) or {})

            with torch_defaults():
                table = _table(list(rows()))
            return Measure(name, table, unit=unit, better=better, solved=solved, **fields)

        signature = inspect.signature(function)
        first, *others = signature.parameters.values()
        bar = inspect.Parameter("progress", inspect.Parameter.KEYWORD_ONLY, default=True, annotation="bool")
        take.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[first.replace(annotation="Any"), *others, bar], return_annotation="Measure"
        )
        take.__doc__ = _documented(function.__doc__, of, [*signature.parameters, "progress"])

        def suits(checkpoint: TrainedModel) -> bool:
            return (checkpoint.world.rules_known or of is not Predictor) and fits(checkpoint)

        MEASURES[key or function.__name__] = Registered(take, suits)
        return take

    return decorate


def _table(rows: Sequence[tuple[Predictor, dict[str, Any]]]) -> pd.DataFrame:
    models = {id(model): model for model, _ in rows}
    # Two runs may have one name, such as a longer run of the same seed.
    names = dict(zip(models, display.distinct(model.name for model in models.values()), strict=True))
    table = pd.DataFrame(
        [record(model.world.name, model.objective, model.seed, names[id(model)], **values) for model, values in rows]
    )
    for column in table.columns[table.isna().any()]:
        # A count that only some of the rows have stays a whole number.
        if all(isinstance(values[column], int) for _, values in rows if column in values):
            table[column] = table[column].astype("Int64")
    return table


_OPTIONS = {
    "eps": "float\n    A token is accepted if its probability is above this.",
    "n": "int\n    Held-out episodes, or puzzles of a recursive model.",
    "length": "int, optional\n    Tokens of an episode in a world without a fixed length; by default as many as the "
    "models can predict.",
    "state": "str or several, optional\n    Names of the states that together fix the future; needed if the world does "
    "not know them.",
    "temperature": "float\n    0 is greedy, 1 samples from the model's own distribution.",
    "seed": "int\n    Seed of episodes, prompts and sampling.",
    "progress": "bool\n    Show a progress bar.",
}


def _documented(text: str | None, of: type[Any], parameters: Iterable[str]) -> str | None:
    """Add the shared arguments of measures to a docstring that does not describe them itself."""
    if text is None:
        return None
    text = inspect.cleandoc(text)
    others = "" if issubclass(of, ModelPredictor) else ", World (its exact law), Predictor"
    models = f"models : Checkpoint, name{others}, or several of one world\n"
    described = re.findall(r"^((?:\w+, )*\w+)(?: :|$)", text, re.M)
    known = {name for line in described for name in line.split(", ")}
    shared = [name for name in _OPTIONS if name in parameters and name not in known]
    options = "".join(f"\n{name} : {_OPTIONS[name]}" for name in shared)
    if "\nParameters\n" not in text:
        text = text.replace("\n\nReturns\n", "\n\nParameters\n----------\n\nReturns\n", 1)
    text = re.sub(r"(Parameters\n-+\n)", rf"\1{models}", text, count=1)
    return text.replace("\n\nReturns\n", f"{options}\n\nReturns\n", 1)
