"""Generation: continue prompts token by token, greedily or by sampling."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from torch import Tensor

from nextlat_viz.decoding.predictor import Predictor, as_predictor
from nextlat_viz.decoding.result import Generated
from nextlat_viz.errors import is_number, require_callable
from nextlat_viz.models.torch_state import torch_defaults
from nextlat_viz.worlds import checks

Prompts = Int[np.ndarray, "n t"] | Sequence[ArrayLike] | ArrayLike
"""Prompts of one length as an array, or of any lengths as a list of 1-D arrays."""
OnTokens = Callable[[int, Int[np.ndarray, " k"]], Any]
"""Called with the number of a sequence and its new tokens, as soon as there are any."""


@torch_defaults()
def generate(
    model: Any,
    prompts: Prompts,
    max_tokens: int,
    *,
    temperature: float = 0.0,
    top_p: float = 1.0,
    stop: int | Collection[int] | None = None,
    seed: int = 0,
    on_tokens: OnTokens | None = None,
) -> Generated:
    """Continue every prompt up to a stop token, or by `max_tokens` tokens.

    Parameters
    ----------
    model : Checkpoint, its name, a fine-tuned model, ``"hf:<name or folder>"`` or Predictor
    prompts : (n, t) ints, a list of 1-D arrays of any lengths, or of texts if the model has a tokenizer
        A prompt may be empty for a model with a start token.
    max_tokens : int
        Most tokens to add; fewer where the model's context ends.
    temperature : float
        0 takes the most probable token (the first of equals), 1 samples from the model's distribution.
    top_p : float
        Sample among the most probable tokens that together have this probability; see :func:`nucleus`.
    stop : int or ints, optional
        Tokens that end a sequence; ``()`` never stops. Default: none, or for a Hugging Face model those that end a text
        by its generation config.
    seed : int
        Seed of the sampling.
    on_tokens : callable, optional
        Called with a sequence's number and its new tokens as they come, to show a text as it grows.

    Raises
    ------
    ValueError
        Empty prompts, tokens outside the vocabulary, prompts longer than the model's context, a negative temperature
        or `max_tokens`, a `top_p` outside 0 to 1.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> from nextlat_viz.decoding import UniformLegal
    >>> result = generate(UniformLegal(worlds.get("golden_mean")), np.array([[1], [0]]), 4, temperature=1.0, seed=1)
    >>> result.tokens.shape, bool(worlds.get("golden_mean").legal(result.tokens).all())
    ((2, 5), True)
    >>> result = generate(UniformLegal(worlds.get("golden_mean")), [np.array([1, 0, 1]), np.array([0])], 2)
    >>> result.tokens.tolist(), result.continuation.tolist()
    ([[1, 0, 1, 0, 0], [0, 0, 0, -1, -1]], [[0, 0], [0, 0]])
    """
    predictor = as_predictor(model)
    tokens, lengths = read_prompts(predictor, prompts)
    check_sampling(temperature, top_p)
    require_callable("on_tokens", on_tokens)
    written = Continuations(predictor, tokens, lengths, max_tokens, stop, on_tokens)
    rng = np.random.default_rng(seed)
    if written.active.size:
        # A user's predictor must support lengths only if they differ.
        equal = (lengths == tokens.shape[1]).all()
        reader = predictor.reader(tokens) if equal else predictor.reader(tokens, lengths)
    while written.active.size:
        chosen = choose(reader.probs, temperature, rng, top_p)
        unfinished = written.add(chosen[:, None], np.ones_like(chosen))
        if written.active.size:
            # Finished rows leave the batch, so that they cost nothing.
            if not unfinished.all():
                reader.keep(unfinished)
            reader.read(chosen[unfinished])
    return Generated(*written.result())


class Continuations:
    """Prompts with the tokens added to them, -1 where there is no token yet; `active` are the unfinished rows."""

    def __init__(
        self,
        predictor: Predictor,
        prompts: Int[np.ndarray, "n t"],
        lengths: Int[np.ndarray, " n"],
        max_tokens: int,
        stop: int | Collection[int] | None,
        on_tokens: OnTokens | None,
    ) -> None:
        if max_tokens < 0:
            raise ValueError(f"max_tokens={max_tokens} must be at least 0")
        stop = predictor.ends if stop is None else stop
        self.stops = np.array([stop] if isinstance(stop, (int, np.integer)) else sorted(stop), dtype=np.int64)
        self.prompts, self._on_tokens = lengths, on_tokens
        self.width, self.length, self.limit = prompts.shape[1], lengths.copy(), lengths + max_tokens
        if predictor.context is not None:
            # The last token is predicted but never read, so it needs no position.
            self.limit = np.minimum(self.limit, predictor.context + 1)
        self.tokens = np.full((len(lengths), int(self.limit.max(initial=self.width))), -1, dtype=np.int64)
        real = np.arange(self.width) < lengths[:, None]
        self.tokens[:, : self.width] = np.where(real, prompts, -1)
        self.stopped = np.zeros(len(lengths), bool)
        self.active = np.flatnonzero(self.length < self.limit)

    def add(self, new: Int[np.ndarray, "b k"], fresh: Int[np.ndarray, " b"]) -> Bool[np.ndarray, " b"]:
        """Write the first `fresh` new tokens of each active row, up to a stop token; return which are unfinished."""
        active, columns = self.active, np.arange(new.shape[1])
        ends = np.isin(new, self.stops) & (columns < fresh[:, None])
        ended = ends.any(axis=1)
        fresh = np.where(ended, ends.argmax(axis=1) + 1, fresh)
        rows, places = np.nonzero(columns < fresh[:, None])
        self.tokens[active[rows], self.length[active][rows] + places] = new[rows, places]
        self.length[active] += fresh
        self.stopped[active] = ended
        if self._on_tokens is not None:
            for row, row_tokens, count in zip(active.tolist(), new, fresh.tolist(), strict=True):
                self._on_tokens(row, row_tokens[:count])
        unfinished = ~ended & (self.length[active] < self.limit[active])
        self.active = active[unfinished]
        return unfinished

    def result(self) -> tuple[np.ndarray, np.ndarray, int, np.ndarray, np.ndarray]:
        """Return the fields of `Generated`."""
        longest = int(self.length.max(initial=self.width))
        return self.tokens[:, :longest], self.length, self.width, self.stopped, self.prompts


def read_prompts(predictor: Predictor, prompts: Prompts) -> tuple[Int[np.ndarray, "n t"], Int[np.ndarray, " n"]]:
    """Return the prompts, padded with 0, and their lengths; raise ValueError if the model cannot read them."""
    if isinstance(prompts, str):
        raise ValueError("prompts must be a list, one text or row of tokens for each: for one text give [text]")
    if isinstance(prompts, Sequence) and prompts and all(isinstance(text, str) for text in prompts):
        world: Any = predictor.world
        if not hasattr(world, "encode"):
            raise ValueError(f"prompts are texts, and world {world.name!r} has no tokenizer: give token ids")
        prompts = [world.encode(text) for text in prompts]
    if isinstance(prompts, np.ndarray) and prompts.ndim == 2 and prompts.dtype.kind in "iu":
        tokens, lengths = prompts.astype(np.int64), np.full(len(prompts), prompts.shape[1])
    else:
        rows = [checks.array(row) for row in cast(Sequence[ArrayLike], prompts)]
        for row in rows:
            if row.ndim != 1 or (row.size and row.dtype.kind not in "iu"):
                raise ValueError(
                    "prompts must be integers (n, t), or a list of 1-D arrays of integers, got "
                    f"{row.dtype} of shape {row.shape}"
                )
        tokens, lengths = checks.padded(rows)
    width = tokens.shape[1]
    if (lengths == 0).any() and predictor.start_probs() is None:
        raise ValueError(
            f"prompts must have at least one token each: {predictor.name} has no start token, so it predicts nothing "
            "before the first token"
        )
    size = len(predictor.world.vocabulary)
    wrong = (tokens < 0) | (tokens >= size)
    if wrong.any():
        raise ValueError(
            f"prompts hold {tokens[wrong][0]}, which is no token of world {predictor.world.name!r}: they are numbered "
            f"0 to {size - 1}"
        )
    if predictor.context is not None and width > predictor.context:
        raise ValueError(
            f"prompts of {width} tokens are longer than the context of {predictor.name}, {predictor.context}: shorten "
            "them"
        )
    return tokens, lengths


def check_sampling(temperature: float, top_p: float) -> None:
    """Raise ValueError if the temperature is negative or NaN, or `top_p` is not a probability above 0."""
    if not is_number(temperature) or not temperature >= 0:
        raise ValueError(f"temperature={temperature!r} must be at least 0, which is greedy")
    if not is_number(top_p) or not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p!r} must be above 0, and at most 1, which samples among all tokens")


def nucleus(probs: Float[Tensor, "*b v"], top_p: float) -> Float[Tensor, "*b v"]:
    """Keep the fewest, most probable tokens that together have at least `top_p` (Holtzman et al. 2020, section 3.1).

    Examples
    --------
    >>> nucleus(torch.tensor([0.2, 0.5, 0.3]), 0.8)
    tensor([0.0000, 0.6250, 0.3750])
    """
    if top_p == 1:
        return probs
    ordered, order = probs.sort(dim=-1, descending=True, stable=True)
    # The token that crosses the bound is kept.
    kept = torch.zeros_like(probs).scatter(-1, order, ordered * (ordered.cumsum(dim=-1) - ordered < top_p))
    return kept / kept.sum(dim=-1, keepdim=True)


def choose(
    probs: Float[np.ndarray, "n v"], temperature: float, rng: np.random.Generator, top_p: float = 1.0
) -> Int[np.ndarray, " n"]:
    """Take a token per row: the most probable at temperature 0, else drawn from ``probs ** (1 / temperature)``."""
    if temperature == 0:
        return probs.argmax(axis=1)
    if temperature != 1:
        with np.errstate(divide="ignore"):
            logits = np.log(probs) / temperature
        probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    if top_p < 1:
        probs = nucleus(torch.from_numpy(probs / probs.sum(axis=1, keepdims=True)), top_p).numpy()
    cumulative = probs.cumsum(axis=1)
    drawn = (rng.random(len(probs)) * cumulative[:, -1])[:, None]
    return (cumulative > drawn).argmax(axis=1)
