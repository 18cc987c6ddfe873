"""The world of text: windows of packed documents."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import ArrayLike

from nextlat_viz.worlds import checks
from nextlat_viz.worlds.base import Episodes, Spec, Tokens, World
from nextlat_viz.worlds.text import cache, corpus, tokenizer
from nextlat_viz.worlds.text.cache import Packed
from nextlat_viz.worlds.text.corpus import BOUNDARY, Source

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class Text(World):
    """Windows of packed documents; ``text`` builds one from a file or a data set.

    Parameters
    ----------
    packed : Packed
        The tokenizer and the token ids of each split.
    spec : dict
    """

    pictures = ("passage", "frequencies")

    def __init__(self, packed: Packed, spec: Spec) -> None:
        self.packed = packed
        self.name = "text"
        self.spec = spec
        self._bytes = tokenizer.token_bytes(packed.tokenizer)
        self.vocabulary = tuple(map(tokenizer.readable, self._bytes))
        self.boundary = self._bytes.index(BOUNDARY.encode())
        self.splits = tuple(packed.parts)

    def sample(
        self, n: int, length: int | None = None, seed: int = 0, *, split: str = "train", states: bool = True
    ) -> Episodes:
        """Draw windows of the packed text, each as likely to start at any token.

        Parameters
        ----------
        n, length : int
        seed : int
        split : str
            No document of ``"test"`` is ever in ``"train"``.
        states : bool
            False leaves out all but the document, which attention needs to know.

        Returns
        -------
        Episodes
            With states ``"document"``, which document of the window a token belongs to, counted from 0 (a boundary
            belongs to the one it ends), and ``"document_position"``, how many tokens of the document came before it
            within the window.

        Raises
        ------
        ValueError
            If the split holds fewer tokens than one window.
        """
        n, length = checks.positive("n", n), checks.episode_length(self, length)
        tokens = self.packed.parts[checks.split(self, split)]
        if length > len(tokens):
            raise ValueError(
                f"length={length} is longer than all of the {split} documents together, {len(tokens)} tokens; ask for "
                "shorter windows or bring more text"
            )
        start = np.random.default_rng(checks.seed(seed)).integers(len(tokens) - length + 1, size=(n, 1))
        found = np.asarray(tokens[start + np.arange(length)], np.int64)
        return Episodes(found, self.replay(found) if states else {"document": self._documents(found)})

    def replay(self, tokens: Tokens) -> dict[str, np.ndarray]:
        """Document and place in it, for each token, as in ``sample``."""
        tokens = checks.tokens(tokens, self.name, self.vocabulary)
        ends = tokens == self.boundary
        at = np.arange(tokens.shape[1])
        first = np.zeros_like(tokens)
        first[:, 1:] = np.maximum.accumulate(np.where(ends, at + 1, 0), axis=1)[:, :-1]
        return {"document": self._documents(tokens), "document_position": at - first}

    def _documents(self, tokens: Int[np.ndarray, "episodes positions"]) -> Int[np.ndarray, "episodes positions"]:
        ends = tokens == self.boundary
        return ends.cumsum(1) - ends

    def legal_next(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions tokens"]:
        """All of them: any token may follow any other. The array is read-only."""
        tokens = checks.tokens(tokens, self.name, self.vocabulary)
        return np.broadcast_to(np.True_, (*tokens.shape, len(self.vocabulary)))

    def legal(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions"]:
        """True everywhere."""
        return np.ones(checks.tokens(tokens, self.name, self.vocabulary).shape, bool)

    def decode(self, tokens: ArrayLike) -> str:
        """The text; where a window cuts a character in two, its half is shown as the replacement character."""
        return b"".join(self._bytes[token] for token in np.asarray(tokens).tolist()).decode("utf-8", errors="replace")

    def encode(self, text: str) -> Int[np.ndarray, " tokens"]:
        """Token ids of a text, such as a prompt.

        Raises
        ------
        ImportError
            If the package tokenizers is not installed.
        """
        return np.array(self._tokenizer.encode(text).ids, np.int64)

    def draw(
        self, kind: str = "passage", *, episode: Episodes | None = None, position: int | None = None, **options: Any
    ) -> Figure:
        """A plotly picture: ``"passage"``, text to read, or ``"frequencies"``, how often each token is used.

        With an ``episode`` the passage is that window with the token at ``position`` marked, and so is its frequency;
        without one it is the start of the training documents. Options: ``width``, ``height``.

        Raises
        ------
        UnknownNameError
            If there is no such kind or option.
        ValueError
            If ``episode`` holds more or fewer than one, or the position is outside it.
        """
        from nextlat_viz.worlds.text.draw import draw

        return draw(self, kind, episode, position, **options)

    def facts(self) -> dict[str, str]:
        """What a notebook shows of the world, line by line."""
        sizes = {
            split: f"{self.packed.documents[split]:,} documents, {len(tokens):,} tokens"
            for split, tokens in self.packed.parts.items()
        }
        return super().facts() | sizes

    @cached_property
    def _tokenizer(self) -> Any:
        return tokenizer.load(self.packed.tokenizer)


def text(
    source: str | Path,
    *,
    vocabulary_size: int = 1000,
    test_share: float = 0.1,
    separator: str = BOUNDARY,
    column: str = "text",
    documents: int | None = None,
    subset: str | None = None,
    revision: str | None = None,
    sha256: str | None = None,
    tokenizer_sha256: str | None = None,
) -> Text:
    r"""Text from a file or a data set, as TinyStories was used: a small byte-level BPE, packed windows.

    Documents go to ``"test"`` by a hash of their text, so that equal ones land on the same side. The tokenizer, a
    byte-level BPE, is trained on the rest. The documents of a split are written one after another, each followed by
    the token ``<|endoftext|>``, and episodes are windows of that, so no token is padding. What the next token's law
    is nobody knows, hence there is no floor. The result is kept in the user's cache and serves again as long as the
    corpus is the same.

    Parameters
    ----------
    source : str or Path
        A UTF-8 text file; a ``.jsonl`` file, one object per line; or the name of a data set on the Hugging Face hub
        (its part "train"), such as ``"roneneldan/TinyStories"``.
    vocabulary_size : int
        Tokens: 256 bytes, the boundary, and as many merged pairs as that leaves, or as the corpus has.
    test_share : float
        Share of documents held out, in [0, 1); 0 leaves no split ``"test"``.
    separator : str
        What stands between the documents of a text file; ``"\n\n"`` takes blank lines.
    column : str
        Where a data set or a ``.jsonl`` file keeps its text.
    documents : int, optional
        Take so many from the start. Of a data set no more is fetched then.
    subset, revision : str, optional
        Of a data set. The revision found is written into ``spec``.
    sha256, tokenizer_sha256 : str, optional
        Refuse a corpus, or a tokenizer trained on it, with another hash: written into ``spec``, so that ``from_spec``
        never takes other text for this. Where the cache has what ``sha256`` names, the source need not be there.

    Raises
    ------
    ImportError
        If a package that only text needs is not installed.
    ValueError
        If an argument is out of range, the source cannot be read or holds too little, or its hash is another.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "rhymes.txt"
    ...     _ = path.write_text("\n\n".join(f"{k} mice ran up the clock" for k in range(50)))
    ...     world = text(path, vocabulary_size=280, separator="\n\n")
    >>> episodes = world.sample(2, 16, seed=2)
    >>> world.decode(episodes.tokens[0])
    ' clock<|endoftext|>41 mice ran up the clock<|endoftext|>42 mice ran up the'
    >>> episodes.states["document"][0].tolist()
    [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    """
    size = checks.positive("vocabulary_size", vocabulary_size)
    if size < tokenizer.SMALLEST:
        raise ValueError(
            f"vocabulary_size must be at least {tokenizer.SMALLEST}, 256 bytes and the boundary between documents, "
            f"got {vocabulary_size}"
        )
    if isinstance(test_share, bool) or not 0 <= test_share < 1:
        raise ValueError(f"test_share must be in [0, 1), got {test_share!r}")
    if not separator:
        raise ValueError("separator must not be empty; '\\n\\n' takes blank lines")
    limit = None if documents is None else checks.positive("documents", documents)
    found = Source(str(source), separator, column, limit, subset, revision)
    made = {"vocabulary_size": size, "test_share": float(test_share)}
    packed, found, digest = _packed(found, made, sha256)
    trained = hashlib.sha256(packed.tokenizer.encode()).hexdigest()
    if tokenizer_sha256 not in (None, trained):
        raise ValueError(
            f"the tokenizer trained on source={found.name!r} has SHA-256 {trained}, expected {tokenizer_sha256}: the "
            "installed version of tokenizers merges other pairs; install the one it was made with"
        )
    usual = asdict(Source(""))
    chosen = {key: value for key, value in asdict(found).items() if key != "name" and value != usual[key]}
    if "limit" in chosen:
        chosen["documents"] = chosen.pop("limit")
    hashes = {"sha256": digest, "tokenizer_sha256": trained}
    return Text(packed, {"name": "text", "source": found.name, **made, **chosen, **hashes})


def _packed(source: Source, made: Spec, sha256: str | None) -> tuple[Packed, Source, str]:
    """The packed corpus, its source with the revision found, and its hash; from the cache where that has it."""

    def cached(digest: str) -> tuple[str, Packed | None]:
        told = {"separator": source.separator, "column": source.column, "limit": source.limit}
        entry = cache.key(sha256=digest, **told, **made)
        return entry, cache.load(entry)

    if not source.is_file:
        if not (sha256 and source.revision):
            source = replace(source, revision=corpus.latest(source))
        known = sha256 or cache.recall(cache.key(**asdict(source)))
    else:
        known = None if Path(source.name).expanduser().exists() else sha256
    # A hash says what the text is, so that what was made of it need not be read again, or even be there.
    if known and (hit := cached(known)[1]):
        return hit, source, known
    texts, digest = corpus.read_file(source) if source.is_file else corpus.read_dataset(source)
    if sha256 not in (None, digest):
        raise ValueError(
            f"source={source.name!r} has SHA-256 {digest}, expected {sha256}: it is not the text this world was made "
            "from; bring that one back, or build a world of its own from this"
        )
    entry, hit = cached(digest)
    if hit is None:
        hit = _pack(texts, source, made)
        cache.store(entry, hit)
    if not source.is_file:
        cache.remember(cache.key(**asdict(source)), digest)
    return hit, source, digest


def _pack(texts: list[str], source: Source, made: Spec) -> Packed:
    share = made["test_share"]
    parts: dict[str, list[str]] = {"train": [], "test": []}
    for document in texts:
        parts["test" if corpus.in_test(document, share) else "train"].append(document)
    if not share:
        del parts["test"]
    for split, some in parts.items():
        if not some:
            raise ValueError(
                f"none of the {len(texts)} documents of source={source.name!r} falls to {split!r}; separator='\\n\\n' "
                "makes documents of paragraphs, test_share=0 holds none out"
            )
    trained = tokenizer.train(parts["train"], made["vocabulary_size"])
    return Packed(
        trained,
        {split: tokenizer.pack(trained, some) for split, some in parts.items()},
        {split: len(some) for split, some in parts.items()},
    )
