"""True states of text, computed from its words: open quotations, ends of sentences, names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int

from nextlat_viz.worlds.base import Episodes, World

NOBODY = "nobody"
_WORD = re.compile(r"[^\W\d_]+")
# A capital after a lower-case letter or a comma does not start a sentence or a quotation.
_INSIDE = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+")
_SENTENCE_END = re.compile(r"[.!?]+[\"”’']*(?=\s+[^a-z\s]|\s*(?:<|$))|\n")
_QUOTE = re.compile(r"[\"“”\n]")
# A word is a name if at least this share of its uses is inside sentences, and if it occurs in lower case at most this
# many times as often.
_LEAST_INSIDE, _MOST_SMALL = 0.2, 0.1
# Tokens decoded together: decoding a whole prefix for each token would be quadratic in the length of the sequence.
_WINDOW = 16


def text_facts(world: World, episodes: Episodes, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Compute what a text says after each token, as columns for ``extract(..., truth=...)``.

    Parameters
    ----------
    world : World
        Decodes the tokens: a world of text, or the `world` of a Hugging Face model.
    episodes : Episodes
        Sequences of N texts of T tokens. A state "document" numbers documents packed into a sequence; facts start anew
        with each document.
    names : iterable of str, optional
        The names to look for; default `names_in` all of the texts.

    Returns
    -------
    dict of (N, T) arrays
        ``quotation_open``, whether a quotation is open (a line break closes it); ``to_sentence_end``, the tokens from
        here to the last of the sentence, NaN if the sequence ends before it; ``last_name``, the name read last, or
        "nobody"; ``names_read``, the number of different names read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from nextlat_viz.worlds import text
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "mice.txt"
    ...     _ = path.write_text("<|endoftext|>".join(f'"{k} mice!" said Tim.' for k in range(50)))
    ...     world = text(path, vocabulary_size=270)
    >>> facts = text_facts(world, Episodes(world.encode('"7 mice!" said Tim.')[None]), ["Tim"])
    >>> facts["quotation_open"][0].tolist()
    [True, True, True, False, False, False, False]
    >>> facts["last_name"][0, [0, -1]].tolist()
    ['nobody', 'Tim']
    """
    texts = [(row, *_decoded(world, episodes, row)) for row in range(len(episodes))]
    names = set(names_in(text for _, text, _ in texts) if names is None else names)
    shape = episodes.tokens.shape
    facts: dict[str, np.ndarray] = {
        "quotation_open": np.zeros(shape, bool),
        "to_sentence_end": np.full(shape, np.nan),
        "last_name": np.full(shape, NOBODY, dtype=object),
        "names_read": np.zeros(shape, np.int64),
    }
    for row, text, ends in texts:
        for start, stop in _documents(episodes, row):
            before = int(ends[start - 1]) if start else 0
            tokens = slice(start, stop)
            for name, values in _facts(text[before : ends[stop - 1]], ends[tokens] - before, names).items():
                facts[name][row, tokens] = values
    return facts


def names_in(texts: Iterable[str]) -> list[str]:
    """Return the names in texts: words with a capital even inside sentences that are rare without the capital.

    Examples
    --------
    >>> names_in(["One day Tim met Sue. They sang.", "One day Sue saw Tim. Suddenly she sang."])
    ['Sue', 'Tim']
    """
    words: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    for text in texts:
        words.update(_WORD.findall(text))
        inside.update(_INSIDE.findall(text))
    return sorted(
        word
        for word, count in inside.items()
        if count >= _LEAST_INSIDE * words[word] and words[word] > 1 and words[word.lower()] <= _MOST_SMALL * words[word]
    )


def _facts(text: str, ends: Int[np.ndarray, " t"], names: set[str]) -> dict[str, np.ndarray]:
    """Compute the facts of one document of t tokens; token k ends before the character ``ends[k]``."""
    quoted, is_open = np.zeros(len(ends), bool), False
    for mark in _QUOTE.finditer(text):
        is_open = not is_open if mark[0] == '"' else mark[0] == "“"
        quoted[_token(ends, mark.start()) :] = is_open
    left = np.full(len(ends), np.nan)
    first = 0
    for match in _SENTENCE_END.finditer(text):
        last = _token(ends, match.end() - 1)
        left[first : last + 1] = np.arange(last - first, -1, -1)
        first = last + 1
    name, count, read = np.full(len(ends), NOBODY, dtype=object), np.zeros(len(ends), np.int64), set()
    for word in _WORD.finditer(text):
        if word[0] in names:
            read.add(word[0])
            at = _token(ends, word.end() - 1)
            name[at:], count[at:] = word[0], len(read)
    return {"quotation_open": quoted, "to_sentence_end": left, "last_name": name, "names_read": count}


def _token(ends: Int[np.ndarray, " t"], character: int) -> int:
    """Return the token that holds a character."""
    return min(int(np.searchsorted(ends, character, side="right")), len(ends) - 1)


def _decoded(world: World, episodes: Episodes, row: int) -> tuple[str, Int[np.ndarray, " t"]]:
    """Decode a sequence, and return where each of its tokens ends in the text.

    The text of a token depends on the tokens before it: a first space is dropped, and a character may take several
    tokens. So each token is decoded together with some tokens before it.
    """
    tokens = episodes.tokens[row, : episodes.length[row]]
    ends = np.zeros(len(tokens) + 1, np.int64)
    for start in range(0, len(tokens), _WINDOW):
        first = max(0, start - _WINDOW)
        stops = range(start, min(start + _WINDOW, len(tokens)) + 1)
        sizes = np.array([len(world.decode(tokens[first:stop])) for stop in stops])
        ends[stops] = ends[start] + sizes - sizes[0]
    text = world.decode(tokens)
    return text, np.minimum(np.maximum.accumulate(ends[1:]), len(text))


def _documents(episodes: Episodes, row: int) -> Iterator[tuple[int, int]]:
    """Yield the first token of each document in a sequence and the one after its last."""
    length = int(episodes.length[row])
    if length == 0:
        return
    numbers = episodes.states.get("document")
    cuts = [] if numbers is None else (np.flatnonzero(np.diff(numbers[row, :length])) + 1).tolist()
    yield from zip([0, *cuts], [*cuts, length], strict=True)
