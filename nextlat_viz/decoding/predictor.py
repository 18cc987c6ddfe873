"""Predictors of the next token: a trained model, the world itself, or a control."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from nextlat_viz.training.checkpoint import load
from nextlat_viz.training.trained import TrainedModel
from nextlat_viz.worlds import World


class Predictor(ABC):
    """A distribution over the next token after every prefix.

    A subclass needs a name, its world and `next_token_probs`. `reader` reads token by token; override it if that is
    possible without reading everything again.

    Attributes
    ----------
    name : str
        Name in tables, such as ``"rrxor/nextlat/seed0"``.
    objective : str
        Training objective, by which runs are compared; of a control, its kind.
    seed : int or None
    world : World
    context : int or None
        Most tokens it can read; None where there is no limit.
    ends : tuple of int
        Tokens at which generation stops by default.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> world = worlds.get("rrxor")
    >>> reader = WorldPredictor(world).reader(np.array([[0, 0], [0, 1]]))
    >>> reader.read(np.array([0, 1]))
    >>> reader.probs.shape
    (2, 2)
    """

    name: str
    objective: str
    seed: int | None = None
    world: World
    context: int | None = None
    ends: tuple[int, ...] = ()

    @abstractmethod
    def next_token_probs(self, tokens: Int[np.ndarray, "n t"]) -> Float[np.ndarray, "n t v"]:
        """Distribution of the next token after each token, given all so far."""

    def start_probs(self) -> Float[np.ndarray, " v"] | None:
        """Distribution of the first token; None if the predictor has none."""
        return None

    def reader(self, tokens: Int[np.ndarray, "n t"], lengths: Int[np.ndarray, " n"] | None = None) -> Reader:
        """Start reading n sequences of t tokens each, or of the first `lengths` of them.

        Each needs at least one token, unless the predictor has `start_probs`.
        """
        return Rereader(self, np.asarray(tokens), lengths)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class Reader(ABC):
    """Sequences that are read one token at a time.

    Attributes
    ----------
    probs : (n, v) array
        Distribution of the next token of each sequence.
    """

    probs: Float[np.ndarray, "n v"]

    @abstractmethod
    def read(self, tokens: Int[np.ndarray, " n"]) -> None:
        """Read one more token in each sequence."""

    @abstractmethod
    def keep(self, rows: Any) -> None:
        """Keep some of the sequences: a mask or indices; a sequence may occur several times."""


class Rereader(Reader):
    """Reads everything again for every token: works for any predictor, slowly."""

    def __init__(
        self, predictor: Predictor, tokens: Int[np.ndarray, "n t"], lengths: Int[np.ndarray, " n"] | None = None
    ) -> None:
        self._predictor, self._tokens = predictor, tokens
        self._lengths = np.full(len(tokens), tokens.shape[1]) if lengths is None else np.asarray(lengths)
        self._update()

    def read(self, tokens: Int[np.ndarray, " n"]) -> None:
        if (self._lengths == self._tokens.shape[1]).any():
            self._tokens = np.pad(self._tokens, ((0, 0), (0, 1)))
        self._tokens[np.arange(len(tokens)), self._lengths] = tokens
        self._lengths = self._lengths + 1
        self._update()

    def keep(self, rows: Any) -> None:
        self._lengths, self.probs = self._lengths[rows], self.probs[rows]
        self._tokens = self._tokens[rows][:, : int(self._lengths.max(initial=1))]

    def _update(self) -> None:
        # One call per length: a world may refuse padding that cannot follow a sequence.
        probs = {
            length: self._last(self._tokens[self._lengths == length, :length])
            for length in np.unique(self._lengths).tolist()
        }
        if len(probs) == 1:
            (self.probs,) = probs.values()
            return
        self.probs = np.empty((len(self._tokens), len(self._predictor.world.vocabulary)))
        for length, values in probs.items():
            self.probs[self._lengths == length] = values

    def _last(self, tokens: Int[np.ndarray, "n t"]) -> Float[np.ndarray, "n v"]:
        if tokens.shape[1]:
            return self._predictor.next_token_probs(tokens)[:, -1]
        first = self._predictor.start_probs()
        if first is None:
            raise ValueError(f"{self._predictor.name} does not know the distribution of the first token")
        return np.tile(first, (len(tokens), 1))


class ModelPredictor(Predictor):
    """A trained model; its reader uses a key-value cache.

    Parameters
    ----------
    checkpoint : Checkpoint, fine-tuned or Hugging Face model
    batch_size : int
        Sequences per forward pass of `next_token_probs`.
    """

    def __init__(self, checkpoint: TrainedModel, batch_size: int = 256) -> None:
        self.checkpoint, self.model, self.batch_size = checkpoint, checkpoint.network, batch_size
        self.name, self.objective, self.seed = checkpoint.name, checkpoint.objective, checkpoint.seed
        self.world, self.context = checkpoint.world, self.model.backbone.config.context
        self.ends = checkpoint.ends

    def tensor(self, tokens: Any) -> torch.Tensor:
        """Token ids on the model's device."""
        return torch.as_tensor(np.asarray(tokens), device=self.model.backbone.head.weight.device)

    @torch.no_grad()
    def next_token_probs(self, tokens: Int[np.ndarray, "n t"]) -> Float[np.ndarray, "n t v"]:
        parts = []
        backbone = self.model.backbone
        for batch in self.tensor(tokens).split(self.batch_size):
            hidden = backbone(backbone.started(batch))[:, backbone.offset :]
            parts.append(_probs(self.model.logits(hidden)))
        return np.concatenate(parts)

    @torch.no_grad()
    def start_probs(self) -> Float[np.ndarray, " v"] | None:
        backbone = self.model.backbone
        if backbone.start is None:
            return None
        return _probs(self.model.logits(backbone(backbone.started(self.tensor(np.zeros((1, 0), np.int64)))))[0, 0])

    def reader(self, tokens: Int[np.ndarray, "n t"], lengths: Int[np.ndarray, " n"] | None = None) -> Reader:
        return _CachedReader(self, np.asarray(tokens), lengths)


class _CachedReader(Reader):
    def __init__(
        self, predictor: ModelPredictor, tokens: Int[np.ndarray, "n t"], lengths: Int[np.ndarray, " n"] | None
    ) -> None:
        self._predictor = predictor
        backbone = predictor.model.backbone
        self._cache = backbone.cache(len(tokens))
        counts = None if lengths is None else torch.as_tensor(lengths) + backbone.offset
        self._advance(backbone.started(predictor.tensor(tokens)), counts)

    def read(self, tokens: Int[np.ndarray, " n"]) -> None:
        self._advance(self._predictor.tensor(tokens)[:, None])

    @torch.no_grad()
    def _advance(self, tokens: Int[torch.Tensor, "n t"], counts: Int[torch.Tensor, " n"] | None = None) -> None:
        model = self._predictor.model
        hidden = model.backbone(tokens, cache=self._cache, counts=counts)
        last = hidden[:, -1] if counts is None else hidden[torch.arange(len(counts)), counts - 1]
        self.probs = _probs(model.logits(last))

    def keep(self, rows: Any) -> None:
        rows = np.arange(len(self.probs))[rows]
        self._cache.keep(torch.as_tensor(rows))
        self.probs = self.probs[rows]


def _probs(logits: torch.Tensor) -> np.ndarray:
    return logits.double().softmax(dim=-1).cpu().numpy()


class WorldPredictor(Predictor):
    """The world as a model, with exact probabilities: the upper bound of every score.

    Raises
    ------
    ValueError
        If the world does not know its next-token probabilities; :class:`UniformLegal` needs only its legal tokens.
    """

    objective = "true world"

    def __init__(self, world: World) -> None:
        self.world, self.name = world, f"{world.name}, true world"

    def next_token_probs(self, tokens: Int[np.ndarray, "n t"]) -> Float[np.ndarray, "n t v"]:
        probs = self.world.next_token_probs(tokens)
        if probs is None:
            raise ValueError(
                f"world {self.world.name!r} does not know its next-token probabilities, so it cannot stand in for a "
                "model: use UniformLegal(world)"
            )
        return probs

    def start_probs(self) -> Float[np.ndarray, " v"] | None:
        return self.world.start_probs()


class UniformLegal(Predictor):
    """A control that knows only the rules: every legal token has the same probability.

    If no token is legal (after the end or an illegal token), all tokens have the same probability.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> UniformLegal(worlds.get("golden_mean")).next_token_probs(np.array([[0, 1]])).tolist()
    [[[0.5, 0.5], [1.0, 0.0]]]
    """

    objective = "uniform legal"

    def __init__(self, world: World) -> None:
        self.world, self.name = world, f"{world.name}, uniform over what is legal"

    def next_token_probs(self, tokens: Int[np.ndarray, "n t"]) -> Float[np.ndarray, "n t v"]:
        legal = self.world.legal_next(tokens).astype(np.float64)
        legal[~legal.any(axis=-1)] = 1.0
        return legal / legal.sum(axis=-1, keepdims=True)

    def start_probs(self) -> Float[np.ndarray, " v"]:
        legal = self.world.legal_first()
        return legal / legal.sum()


def as_predictor(model: Any) -> Predictor:
    """Return a predictor unchanged; wrap a trained model, or load one by its name; a TypeError for anything else."""
    if isinstance(model, Predictor):
        return model
    if isinstance(model, (str, os.PathLike)):
        model = load(model)
    if isinstance(model, TrainedModel):
        return ModelPredictor(model)
    raise TypeError(
        f"a model to measure is a Checkpoint or a Predictor, got {type(model).__name__}: give one, the name of a "
        "checkpoint, a fine-tuned model or 'hf:<name or folder>'"
    )


def as_predictors(models: Any) -> list[Predictor]:
    """Return one model or several as a list of predictors; a ValueError if there are none, or their worlds differ."""
    items = (
        models if isinstance(models, Iterable) and not isinstance(models, (str, os.PathLike, Predictor)) else [models]
    )
    predictors = [as_predictor(model) for model in items]
    if not predictors:
        raise ValueError("models is empty: give at least one checkpoint or predictor")
    first = predictors[0]
    for other in predictors:
        if other.world.spec != first.world.spec:
            raise ValueError(
                f"{first.name} is of world {first.world.spec} and {other.name} of world {other.world.spec}: measure "
                "models of one world together"
            )
    return predictors
