"""Inputs of extraction: convert tokens to episodes, check them against the model, and name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from nextlat_viz.errors import LatentsError, shown
from nextlat_viz.latents.facts import MOST_TOKENS, Positions, Reading, Truth, kept, own_columns, valid
from nextlat_viz.latents.readers import LatentsReader
from nextlat_viz.worlds import Episodes, World


def episodes_from(episodes: Any, lengths: Any, mask: Any, truth: Truth | None) -> tuple[Episodes, Truth | None]:
    """Convert tokens to Episodes, with padding last; `truth` is moved with them."""
    if isinstance(episodes, Episodes):
        if lengths is not None or mask is not None:
            raise LatentsError("lengths and mask are for arrays of tokens: Episodes have their own lengths")
        return episodes, truth
    try:
        tokens: np.ndarray = np.asarray(episodes) if episodes is not None else np.zeros(0)
    except ValueError as error:
        raise LatentsError(
            "episodes are lists of different lengths: pad them to one length, and give lengths=[...] or mask="
        ) from error
    if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
        raise TypeError(
            "episodes must be Episodes or integers of shape (episodes, positions), got "
            f"{type(episodes).__name__} of {tokens.dtype}, shape {tokens.shape}"
        )
    if mask is not None:
        given = np.asarray(mask)
        if lengths is not None:
            raise LatentsError("give lengths or mask, not both")
        if given.shape != tokens.shape:
            raise LatentsError(f"mask must have the shape of the tokens, {tokens.shape}, got {given.shape}")
        columns = {name: np.asarray(v) for name, v in truth.items()} if isinstance(truth, Mapping) else {}
        lengths, moved = shifted(given, {"": tokens, **columns})
        tokens = moved.pop("")
        truth = moved if isinstance(truth, Mapping) else truth
    if lengths is None:
        return Episodes(tokens), truth
    count, longest = tokens.shape
    real = np.asarray(lengths)
    if real.shape != (count,) or real.dtype.kind not in "iu" or ((real < 0) | (real > longest)).any():
        raise LatentsError(
            f"lengths must be {count} integers from 0 to {longest}, one per episode, got {shown(lengths)}"
        )
    return Episodes(tokens, length=real), truth


def make_reading(
    episodes: Episodes,
    world: World | None,
    vocabulary: Any,
    size: int | None,
    truth: Truth | None,
    positions: Positions | None,
) -> Reading:
    """Combine the rows to keep, the names of their tokens, and the user's own columns.

    Of a large vocabulary only the tokens that are read get a name.
    """
    keep = kept(episodes, positions)
    columns, values = own_columns(truth, episodes, keep)
    if world is not None:
        return Reading(episodes, keep, world, tuple(world.vocabulary), None, columns, values)
    size = size or int(episodes.tokens.max(where=valid(episodes), initial=0)) + 1
    if size <= MOST_TOKENS:
        return Reading(episodes, keep, None, tuple(names_of(vocabulary, np.arange(size))), None, columns, values)
    ids = np.unique(episodes.tokens[valid(episodes)])
    return Reading(episodes, keep, None, tuple(names_of(vocabulary, ids)), ids, columns, values)


def require_readable(episodes: Episodes, reader: LatentsReader, world: World | None) -> None:
    """Raise LatentsError if the model or the world does not know the tokens, or the sequences are too long."""
    longest = int(episodes.length.max(initial=0))
    if longest == 0:
        raise LatentsError("episodes hold no tokens: there is nothing to extract")
    if reader.context is not None and longest > reader.context:
        raise LatentsError(
            f"episodes have up to {longest} tokens, but this model's context is {reader.context}: "
            "give shorter ones, e.g. world.sample(n, length=context, seed)"
        )
    known = [size for size in (reader.vocabulary_size, None if world is None else len(world.vocabulary)) if size]
    most = min(known, default=np.iinfo(np.int64).max)
    wrong = valid(episodes) & ((episodes.tokens < 0) | (episodes.tokens >= most))
    if wrong.any():
        episode, position = np.argwhere(wrong)[0]
        raise LatentsError(
            f"token {episodes.tokens[episode, position]} of episode {episode}, position {position + 1}, is outside "
            f"the vocabulary of {reader.meta['name'] if world is None else world.name}: ids go from 0 to {most - 1}"
            + (". Padding is left out with lengths= or mask=" if episodes.tokens[episode, position] < 0 else "")
        )


def names_of(vocabulary: Any, ids: Int[np.ndarray, " n"]) -> list[str]:
    """Return the names of token ids: from a list of all names, from a tokenizer, or their numbers.

    Tokens with the same name get their number added.

    Examples
    --------
    >>> names_of(["a", "b", "a"], np.arange(3)), names_of(None, np.array([7]))
    (['a', 'b', 'a (2)'], ['7'])
    """
    if vocabulary is None:
        return [str(token) for token in ids.tolist()]
    if hasattr(vocabulary, "convert_ids_to_tokens"):
        given = vocabulary.convert_ids_to_tokens(ids.tolist())
    else:
        if ids.size and int(ids.max()) >= len(vocabulary):
            raise LatentsError(
                f"vocabulary has {len(vocabulary)} names, and the tokens need at least {int(ids.max()) + 1}: give all"
            )
        given = [vocabulary[token] for token in ids.tolist()]
    names: list[str] = []
    taken: set[str] = set()
    for token, name in zip(ids.tolist(), given, strict=True):
        text = str(token) if name is None else str(name)
        text = f"{text} ({token})" if text in taken else text
        names.append(text)
        taken.add(text)
    return names


def shifted(mask: np.ndarray, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Move the real tokens of every row to its start, and other arrays with them.

    Parameters
    ----------
    mask : (N, T) of 0 and 1
        Attention mask: 1 at tokens, which are contiguous, with padding before or after.
    arrays : dict of (N, T, ...) arrays

    Returns
    -------
    lengths : (N,) integers
    arrays : dict of (N, T, ...) arrays

    Raises
    ------
    LatentsError
        If the tokens of a row are not contiguous.

    Examples
    --------
    >>> lengths, moved = shifted(np.array([[0, 1, 1]]), {"tokens": np.array([[9, 4, 5]])})
    >>> lengths.tolist(), moved["tokens"].tolist()
    ([2], [[4, 5, 9]])
    """
    real = np.asarray(mask).astype(bool)
    lengths = real.sum(axis=1)
    first = np.where(lengths > 0, real.argmax(axis=1), 0)
    order = (np.arange(real.shape[1]) + first[:, None]) % real.shape[1]
    ordered = np.take_along_axis(real, order, axis=1)
    holes = (ordered != (np.arange(real.shape[1]) < lengths[:, None])).any(axis=1)
    if holes.any():
        raise LatentsError(
            f"mask has holes in {int(holes.sum())} of {len(real)} rows, such as row {int(holes.argmax())}: real tokens "
            "must be contiguous, with padding before or after"
        )
    return lengths, {
        name: np.take_along_axis(values, order.reshape(*order.shape, *[1] * (values.ndim - 2)), axis=1)
        for name, values in arrays.items()
    }
