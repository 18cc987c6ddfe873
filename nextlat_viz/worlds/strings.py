"""Strings of a world: tokens from text, which of them are legal, and where the prompt ends."""

from __future__ import annotations

from bisect import bisect
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from nextlat_viz.display import counted, shorten
from nextlat_viz.worlds.base import World

_NAMES = 12
# Episodes sampled to find the end of the prompt, and their length if the world sets none: longer than any prompt.
_FEW, _LONG = 4, 64


def parse_string(world: World, text: str) -> Int[np.ndarray, " tokens"]:
    """Convert a text to the tokens of a world.

    Symbols may be separated by spaces or run together: then the longest is taken. Letters may be upper or lower case. A
    world with a tokenizer takes any text.

    Raises
    ------
    ValueError
        Naming the first part of the text that is not a symbol.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> parse_string(worlds.get("rrxor"), "01 1").tolist()
    [0, 1, 1]
    >>> parse_string(worlds.get("rrxor"), "012")
    Traceback (most recent call last):
    ValueError: '2' (character 3) is no symbol of world 'rrxor', whose symbols are 0, 1
    """
    if hasattr(world, "encode"):
        return np.asarray(world.encode(text), dtype=np.int64)
    text = " ".join(text.split())
    symbols = {name: token for token, name in enumerate(world.vocabulary)}
    folded = {name.casefold(): token for name, token in symbols.items()}
    lengths = sorted(set(map(len, symbols)), reverse=True)

    def at(start: int) -> list[tuple[int, int]]:
        """The symbols that begin at a character, with their ends, the longest first."""
        pieces = [(text[start : start + n], start + n) for n in lengths if start + n <= len(text)]
        tokens = [(symbols.get(piece, folded.get(piece.casefold(), -1)), end) for piece, end in pieces]
        return [(token, end) for token, end in tokens if token >= 0]

    # From the end: at each character, the longest symbol after which the rest can be read too.
    symbol: dict[int, tuple[int, int]] = {len(text): (-1, len(text))}
    for start in range(len(text) - 1, -1, -1):
        options = [(-1, start + 1)] if text[start] == " " else at(start)
        readable = [option for option in options if option[1] in symbol]
        if readable:
            symbol[start] = readable[0]
    if 0 not in symbol:
        raise ValueError(_no_symbol(world, text, at))
    tokens, start = [], 0
    while start < len(text):
        token, start = symbol[start]
        if token >= 0:
            tokens.append(token)
    return np.array(tokens, dtype=np.int64)


def _no_symbol(world: World, text: str, at: Any) -> str:
    """Return the error message for a text, which names the farthest character that can be reached from the left."""
    reached, farthest = {0}, 0
    for start in range(len(text)):
        if start in reached:
            farthest = start
            reached.update([start + 1] if text[start] == " " else [end for _, end in at(start)])
    word = text[farthest:].split(" ")[0]
    if max(map(len, world.vocabulary)) == 1:
        word = word[:1]
    names = ", ".join(map(shorten, world.vocabulary[:_NAMES]))
    more = f", … ({len(world.vocabulary):,} in all)" if len(world.vocabulary) > _NAMES else ""
    return (
        f"{shorten(word)!r} (character {farthest + 1:,}) is no symbol of world {world.name!r}, whose symbols are "
        f"{names}{more}"
    )


def legal_after(world: World, tokens: Int[np.ndarray, " T"]) -> Bool[np.ndarray, "T1 V"]:
    """Return which tokens are legal after the first 0, 1, ..., T tokens; read-only.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> legal_after(worlds.get("golden_mean"), np.array([0, 1])).tolist()
    [[True, True], [True, True], [True, False]]
    """
    if not world.rules_known:
        return np.broadcast_to(np.True_, (tokens.size + 1, len(world.vocabulary)))
    after = [world.legal_next(tokens[None])[0]] if tokens.size else []
    return np.concatenate([world.legal_first()[None], *after])


def legal_part(world: World, tokens: Int[np.ndarray, " T"]) -> tuple[int, str]:
    """Return how many tokens at the start are legal, and a sentence about the next one, empty where all are.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> legal_part(worlds.get("golden_mean"), np.array([0, 1, 1]))
    (2, "'1' at position 3 is not legal in world 'golden_mean': legal there is 0")
    """
    if not world.rules_known or not tokens.size:
        return tokens.size, ""
    first = _legal_tokens(world, tokens)
    if first == tokens.size:
        return first, ""
    options = np.flatnonzero(legal_after(world, tokens[:first])[first])
    names = ", ".join(shorten(world.vocabulary[token]) for token in options[:_NAMES])
    more = f", … ({options.size:,} in all)" if options.size > _NAMES else ""
    advice = f"legal there {'is' if options.size == 1 else 'are'} {names}{more}" if options.size else "the string ends"
    name = shorten(world.vocabulary[tokens[first]])
    return first, f"{name!r} at position {first + 1} is not legal in world {world.name!r}: {advice}"


def _legal_tokens(world: World, tokens: Int[np.ndarray, " T"]) -> int:
    """Count the legal tokens at the start."""
    try:
        legal = world.legal(tokens[None])[0]
        return tokens.size if legal.all() else int(legal.argmin())
    except ValueError:
        # A hidden Markov world has no belief after an impossible token.
        return bisect(range(1, tokens.size), False, key=lambda count: _legal_tokens(world, tokens[:count]) < count)


def require_short(tokens: Int[np.ndarray, " T"], most: int | None) -> None:
    """Raise a ValueError for more tokens than can be read."""
    if most is not None and tokens.size > most:
        raise ValueError(f"the string has {counted(tokens.size, 'token')}, and the models read at most {most:,}")


@lru_cache(maxsize=16)
def prompt_tokens(world: World) -> int:
    """Return how many tokens at the start of an episode no model is trained to predict.

    A world masks the same positions in every episode.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> prompt_tokens(worlds.get("rrxor")), prompt_tokens(worlds.get("story"))
    (0, 21)
    """
    try:
        sampled = world.sample(_FEW, _LONG if world.length is None else None, seed=0, split=world.splits[0])
    except ValueError:
        # The world of a language model has no sequences to sample; nothing is masked there.
        return 0
    return int(sampled.loss_mask.any(axis=0).argmax())
