"""The corpus of fine-tuning: convert it to sequences, check them against the model, and hold some out."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import ArrayLike

from nextlat_viz.hf.backbone import Shape
from nextlat_viz.worlds import Episodes, World, checks
from nextlat_viz.worlds.base import Tokens
from nextlat_viz.worlds.text.corpus import TextSource, read_file

# The share held out of a corpus without its own split, and the seeds of episodes drawn from a world.
HELD_OUT_SHARE = 0.1
TRAIN_SEED, HELD_OUT_SEED = 0, 10_260_000


class Corpus(World):
    """The tokens of a language model and sequences held out of its corpus, as a world of unknown state and law.

    Any token may follow any other.

    Parameters
    ----------
    model : str
        Name of the model, for error messages.
    size : int
        Number of tokens.
    tokenizer : transformers tokenizer, optional
        Gives tokens their names; default their numbers.
    held_out : Episodes, optional
        What `sample` draws from.
    """

    name = "corpus"
    splits = ("test",)
    rules_known = False

    def __init__(self, model: str, size: int, tokenizer: Any = None, held_out: Episodes | None = None) -> None:
        self._model, self._tokenizer, self.held_out = model, tokenizer, held_out
        names = tokenizer.convert_ids_to_tokens(range(size)) if tokenizer is not None else [None] * size
        self.vocabulary = tuple(str(token) if name is None else name for token, name in enumerate(names))
        self.spec = {"name": self.name, "sha256": None if held_out is None else held_out.sha256}
        self.length = None if held_out is None else held_out.tokens.shape[1]

    def sample(
        self, n: int, length: int | None = None, seed: int = 0, *, split: str = "test", states: bool = True
    ) -> Episodes:
        """Draw different sequences; all of them if there are no more than `n`."""
        if self.held_out is None:
            raise ValueError(
                f"{self._model} comes without sequences to measure on: give texts or tokens, as in nlv.extract(model, "
                "texts), or add psi with nlv.finetune, which keeps the sequences it holds out"
            )
        n, _, rng = checks.sampling(self, n, length, seed, split)
        return self.held_out[np.sort(rng.permutation(len(self.held_out))[:n])]

    def legal_next(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions tokens"]:
        """All tokens may follow any token. The array is read-only."""
        return np.broadcast_to(np.True_, (*checks.tokens(self, tokens).shape, len(self.vocabulary)))

    def encode(self, text: str) -> Int[np.ndarray, " tokens"]:
        """Tokenise a text, such as a prompt."""
        if self._tokenizer is None:
            raise ValueError(f"{self._model} has no tokenizer: give token ids instead of texts")
        return np.array(self._tokenizer([text])["input_ids"][0], np.int64)

    def decode(self, tokens: ArrayLike) -> str:
        """Return the text, or the names of the tokens if there is no tokenizer; -1 after the end is left out."""
        ids = [token for token in np.asarray(tokens).tolist() if token >= 0]
        return super().decode(ids) if self._tokenizer is None else str(self._tokenizer.decode(ids))


@dataclass(frozen=True)
class Sequences:
    """Sequences for training and for measuring, without overlap; `about` describes them in the card."""

    train: Episodes
    held_out: Episodes
    about: dict[str, Any]


def sequences(
    corpus: Any,
    shape: Shape,
    *,
    horizon: int = 1,
    length: int | None = None,
    count: int = 10_000,
    held_out: int = 512,
    tokenizer: Any = None,
) -> Sequences:
    """Convert a corpus to sequences that a model can read, and hold some out by a hash of their content.

    Parameters
    ----------
    corpus : World, Episodes, (N, T) integers, list of token id lists or of texts, or path of a file of texts
        From a world `count` episodes are drawn; those held out are from its split "test" where it has one. Items of a
        list are documents: a long one is cut into several sequences, either all for training or all held out. A file
        is as :func:`nextlat_viz.worlds.text` reads it: documents separated by ``<|endoftext|>``, or a ``.jsonl``.
    shape : Shape
        Sizes of the model.
    horizon : int
        Steps of psi.
    length : int, optional
        Most tokens in a sequence; default all, and for lists the model's context. Required for a world whose episodes
        may have any length.
    count, held_out : int
        Episodes drawn of a world; most sequences held out.
    tokenizer : callable, optional
        For texts: ``tokenizer(texts)["input_ids"]`` is a list of token ids for each.

    Raises
    ------
    ValueError
        If there are no sequences, the model cannot read them, or they are too short for the horizon.

    Examples
    --------
    >>> tokens = np.arange(60)[:, None] * 7 % 60 + np.arange(4)
    >>> parts = sequences(tokens, Shape(dim=8, context=16, vocabulary_size=63))
    >>> len(parts.train), len(parts.held_out), parts.about["kind"]
    (54, 6, 'sequences')
    """
    context = shape.context
    if length is not None and (length < 3 or (context is not None and length > context)):
        most = f", at most the {context} positions of this model" if context is not None else ""
        raise ValueError(f"length={length} must be at least 3, for one state to be predicted from another{most}")
    about: dict[str, Any] = {"kind": "sequences"}
    test: Episodes | None = None
    if isinstance(corpus, World):
        train, test = _drawn(corpus, shape, length, count, held_out)
        about = {"kind": "world", "world": corpus.spec}
    elif isinstance(corpus, Episodes | np.ndarray):
        train = corpus if isinstance(corpus, Episodes) else Episodes(corpus)
    else:
        train, test = _documents(documents_of(corpus), length or context, tokenizer)
        about = {"kind": "documents"}
        if isinstance(corpus, str | os.PathLike):
            about["source"] = os.fspath(corpus)
    train = _fit(train, shape, length)
    if test is None:
        is_test = np.array([_is_held_out(row) for row in _rows(train)], bool)
        train, test = train[~is_test], train[is_test]
    else:
        test = _fit(test, shape, length)
        known = {row.tobytes() for row in _rows(train)}
        fresh = np.array([row.tobytes() not in known for row in _rows(test)], bool)
        if len(fresh) and not fresh.any():
            raise ValueError(
                "corpus: once cut, every sequence to hold out also occurs in training: give a longer length"
            )
        test = test[fresh]
    test = test[:held_out]
    if not (len(train) and len(test)):
        raise ValueError(
            "corpus is empty, or too small for a tenth to be held out by content: give tens of different sequences "
            "of 2 tokens or more"
        )
    _check_horizon(horizon, min(int(part.length.max()) for part in (train, test)))
    digest = hashlib.sha256((train.sha256 + test.sha256).encode()).hexdigest()
    about |= {"train": len(train), "held_out": len(test), "length": train.tokens.shape[1], "sha256": digest}
    return Sequences(train, test, about)


def documents_of(corpus: Any) -> Any:
    """Read the documents of a file, given by its path; anything else is returned as it is.

    Raises ValueError if there is no such file, or no text in it.
    """
    return read_file(TextSource(os.fspath(corpus)))[0] if isinstance(corpus, str | os.PathLike) else corpus


def _drawn(
    world: World, shape: Shape, length: int | None, count: int, held_out: int
) -> tuple[Episodes, Episodes | None]:
    """Draw episodes for training, and for measuring if the world has a test split, else None."""
    if not world.predicts_next_token:
        raise ValueError(
            f"corpus: models of world {world.name!r} predict targets, but a language model predicts its next tokens: "
            "use another world"
        )
    if len(world.vocabulary) > shape.vocabulary_size:
        raise ValueError(
            f"corpus: world {world.name!r} has {len(world.vocabulary)} tokens, this model's embedding only "
            f"{shape.vocabulary_size}: use a world built with the model's own vocabulary"
        )
    if world.length is None and length is None:
        raise ValueError(f"length is needed: episodes of world {world.name!r} are as long as asked for")
    length = length if world.length is None else None
    train = world.sample(count, length, seed=TRAIN_SEED, states=False)
    if "test" not in world.splits:
        return train, None
    return train, world.sample(held_out, length, seed=HELD_OUT_SEED, split="test", states=False)


def _documents(corpus: Any, length: int | None, tokenizer: Any) -> tuple[Episodes, Episodes]:
    """Cut documents into sequences for training and sequences held out."""
    if not isinstance(corpus, list | tuple):
        raise ValueError(
            "corpus must be a World, Episodes, an array of integers (sequences, positions), a list of token id lists "
            f"or of texts, or the path of a file of texts, got {type(corpus).__name__}"
        )
    items = list(corpus)
    if any(isinstance(item, str) for item in items):
        if tokenizer is None:
            raise ValueError(
                "corpus holds texts, and there is no tokenizer in the folder of the model: give tokenizer=..."
            )
        items = tokenizer(items)["input_ids"]
    parts: dict[bool, list[np.ndarray]] = {False: [], True: []}
    for item in items:
        ids = np.asarray(item)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            raise ValueError(
                f"corpus: each item must be a list of token ids or a text, got {ids.dtype} of shape {ids.shape}"
            )
        step = length or max(len(ids), 1)
        parts[_is_held_out(ids)] += [ids[start : start + step] for start in range(0, len(ids), step)]
    train, held_out = (Episodes(tokens, length=length) for tokens, length in map(checks.padded, parts.values()))
    return train, held_out


def _fit(episodes: Episodes, shape: Shape, length: int | None) -> Episodes:
    """Cut and check sequences; those of one token are left out, because they have nothing to predict."""
    if episodes.targets is not None:
        raise ValueError("corpus has targets of its own, but a language model predicts its next tokens: leave them out")
    t = min(length or episodes.tokens.shape[1], episodes.tokens.shape[1])
    if shape.context is not None and t > shape.context:
        raise ValueError(
            f"corpus has sequences of {t} tokens, more than the {shape.context} positions of this model: give "
            f"length={shape.context} to cut them"
        )
    lengths = np.minimum(episodes.length, t)
    keep = lengths >= 2
    tokens, lengths = episodes.tokens[keep, :t], lengths[keep]
    valid = np.arange(t) < lengths[:, None]
    wrong = valid & ((tokens < 0) | (tokens >= shape.vocabulary_size))
    if wrong.any():
        row, position = np.argwhere(wrong)[0]
        raise ValueError(
            f"corpus: token {tokens[row, position]}, in position {position + 1} of a sequence, is outside this model's "
            f"vocabulary, 0 to {shape.vocabulary_size - 1}: use the model's own tokenizer"
        )
    documents = {"document": episodes.states["document"][keep, :t]} if "document" in episodes.states else {}
    return Episodes(np.where(valid, tokens, 0), documents, episodes.loss_mask[keep, :t], lengths)


def _check_horizon(horizon: int, longest: int) -> None:
    if not 1 <= horizon <= longest - 2:
        raise ValueError(
            f"horizon={horizon} must be at least 1 and at most {longest - 2}: sequences have {longest} tokens, psi "
            "starts after the first, and the last is not read"
        )


def _rows(episodes: Episodes) -> list[Int[np.ndarray, " positions"]]:
    return [row[:n] for row, n in zip(episodes.tokens, episodes.length.tolist(), strict=True)]


def _is_held_out(tokens: Int[np.ndarray, " positions"] | np.ndarray) -> bool:
    digest = hashlib.sha256(np.ascontiguousarray(tokens, dtype="<i8").tobytes()).digest()
    return int.from_bytes(digest[:8], "little") < HELD_OUT_SHARE * 2**64
