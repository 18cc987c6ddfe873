"""Generation: continue prompts token by token, greedily or by sampling."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from nextlat_viz.decoding.predictor import Predictor, as_predictor


@dataclass(frozen=True, eq=False)
class Generated:
    """Continuations of prompts.

    Attributes
    ----------
    tokens : (n, t) int array
        Prompt and continuation; after the end of a sequence, -1.
    length : (n,) int array
        Tokens in each, the prompt and a stop token included.
    prompt : int
        Tokens of the prompt.
    stopped : (n,) bool array
        Whether a stop token came before `max_tokens` ran out.
    """

    tokens: Int[np.ndarray, "n t"]
    length: Int[np.ndarray, " n"]
    prompt: int
    stopped: Bool[np.ndarray, " n"]

    @property
    def continuation(self) -> Int[np.ndarray, "n s"]:
        """What came after the prompt."""
        return self.tokens[:, self.prompt :]


def generate(
    model: Any,
    prompts: Int[np.ndarray, "n t"],
    max_tokens: int,
    *,
    temperature: float = 0.0,
    stop: int | Collection[int] = (),
    seed: int = 0,
) -> Generated:
    """Continue every prompt until a stop token, or by `max_tokens` tokens.

    Parameters
    ----------
    model : Checkpoint or Predictor
    prompts : (n, t) ints
        Of one length; group others by theirs.
    max_tokens : int
        Most tokens to add; as many as fit the model's context where that is fewer.
    temperature : float
        0 takes the likeliest token (the first of equals), 1 samples from the model's own distribution.
    stop : int or ints
        Tokens that end a sequence.
    seed : int
        Of sampling.

    Raises
    ------
    ValueError
        Prompts of no token, or longer than the model's context; a negative temperature.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> from nextlat_viz.decoding import UniformLegal
    >>> made = generate(UniformLegal(worlds.get("golden_mean")), np.array([[1], [0]]), 4, temperature=1.0, seed=1)
    >>> made.tokens.shape, bool(worlds.get("golden_mean").legal(made.tokens).all())
    ((2, 5), True)
    """
    predictor = as_predictor(model)
    prompts = check_prompts(predictor, prompts)
    if temperature < 0:
        raise ValueError(f"temperature={temperature} must be at least 0, which is greedy")
    n, width = prompts.shape
    if predictor.context is not None:
        max_tokens = min(max_tokens, predictor.context + 1 - width)
    stops = np.array([stop] if isinstance(stop, (int, np.integer)) else sorted(stop), dtype=np.int64)
    tokens = np.full((n, width + max_tokens), -1, dtype=np.int64)
    tokens[:, :width] = prompts
    length, stopped, going = np.full(n, width), np.zeros(n, bool), np.arange(n)
    rng = np.random.default_rng(seed)
    reader = predictor.reader(prompts) if n and max_tokens > 0 else None
    for t in range(width, width + max_tokens):
        if reader is None or going.size == 0:
            break
        chosen = choose(reader.probs, temperature, rng)
        tokens[going, t] = chosen
        length[going] += 1
        ended = np.isin(chosen, stops)
        stopped[going[ended]] = True
        going, chosen = going[~ended], chosen[~ended]
        if t + 1 < width + max_tokens and going.size:
            if ended.any():
                reader.keep(~ended)
            reader.read(chosen)
    return Generated(tokens[:, : int(length.max(initial=width))], length, width, stopped)


def check_prompts(predictor: Predictor, prompts: Any) -> Int[np.ndarray, "n t"]:
    """The prompts as an array, if the model can read them."""
    prompts = np.asarray(prompts)
    if prompts.ndim != 2 or prompts.shape[1] == 0 or prompts.dtype.kind not in "iu":
        raise ValueError(
            f"prompts must be integers (n, t) of at least one token each, got {prompts.dtype} of shape {prompts.shape}"
        )
    if predictor.context is not None and prompts.shape[1] > predictor.context:
        raise ValueError(
            f"prompts of {prompts.shape[1]} tokens are longer than the context of {predictor.name}, "
            f"{predictor.context}: shorten them"
        )
    return prompts


def choose(probs: Float[np.ndarray, "n v"], temperature: float, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """One token per row: the likeliest at temperature 0, else drawn from ``probs ** (1 / temperature)``, normalised."""
    if temperature == 0:
        return probs.argmax(axis=1)
    if temperature != 1:
        with np.errstate(divide="ignore"):
            logits = np.log(probs) / temperature
        probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    cumulative = probs.cumsum(axis=1)
    drawn = (rng.random(len(probs)) * cumulative[:, -1])[:, None]
    return (cumulative > drawn).argmax(axis=1)
