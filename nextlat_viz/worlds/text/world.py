"""The text world: windows of packed documents."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import ArrayLike

from nextlat_viz.worlds import checks, outside
from nextlat_viz.worlds.base import Episodes, Spec, Tokens, World
from nextlat_viz.worlds.text import cache, corpus
from nextlat_viz.worlds.text.cache import Packed
from nextlat_viz.worlds.text.corpus import BOUNDARY, TextSource


class Text(World):
    """Windows of packed documents; built by ``text`` from a file or a data set.

    A checkpoint keeps the tokenizer but not the corpus. Without the corpus the world still encodes and decodes text,
    and ``sample`` raises a ValueError that says how to provide the corpus.

    Pictures: ``"passage"``, the text of an episode with the current token marked, or the start of the training
    documents; ``"frequencies"``, the frequency of each token by rank.
    """

    name = "text"
    pictures = ("passage", "frequencies")

    def __init__(self, packed: Packed, spec: Spec, entry: str) -> None:
        self._packed, self._entry = packed, entry
        self.spec, self.tokenizer = spec, packed.tokenizer
        self._bytes = corpus.token_bytes(packed.tokenizer)
        self.vocabulary = tuple(map(corpus.readable, self._bytes))
        self.boundary = self._bytes.index(BOUNDARY.encode())
        self.splits = ("train", "test") if spec["test_share"] else ("train",)

    @property
    def packed(self) -> Packed:
        """The packed corpus; a ValueError if neither the world nor the cache has it."""
        if not self._packed.parts:
            corpus = cache.read(self._entry)
            if corpus is None:
                raise ValueError(
                    f"the text of this world is not here, only its tokenizer: source={self.spec['source']!r} with "
                    f"SHA-256 {self.spec['sha256']}. Build the world once from that text, with "
                    "nlv.worlds.from_spec(world.spec | {'source': path}), and call this again; or use text of your "
                    "own: pass Episodes(world.encode(text)[None]) to nlv.extract, and its table to nlv.studio"
                )
            _require_tokenizer(corpus, self.spec["source"], self.spec["tokenizer_sha256"])
            self._packed = corpus
        return self._packed

    def sample(
        self, n: int, length: int | None = None, seed: int = 0, *, split: str = "train", states: bool = True
    ) -> Episodes:
        """Draw windows of the packed text that start at uniform positions.

        Returns
        -------
        Episodes
            With states ``"document"``, the number of the token's document in the window, from 0 (a boundary belongs
            to the document it ends), and ``"document_position"``, the number of tokens of the document before it in the
            window.

        Raises
        ------
        ValueError
            If the split has fewer tokens than one window.
        """
        n, length, rng = checks.sampling(self, n, length, seed, split)
        tokens = self.packed.parts[split]
        if length > len(tokens):
            raise ValueError(
                f"length={length} is longer than the {split} documents, {len(tokens)} tokens in total; choose shorter "
                "windows or use more text"
            )
        start = rng.integers(len(tokens) - length + 1, size=n)
        return self._windows(tokens, start, length, states)

    def sample_held_out(self, n: int, length: int | None = None, seed: int = 0) -> Episodes:
        """Draw windows that do not overlap, so that a probe is not scored on text it was fitted on.

        If the split has fewer than `n` of them, they are drawn by ``sample`` and overlap.
        """
        split = self.held_out_split
        n, length, rng = checks.sampling(self, n, length, seed, split)
        tokens = self.packed.parts[split]
        if (count := len(tokens) // length) < n:
            return self.sample(n, length, seed, split=split)
        return self._windows(tokens, rng.permutation(count)[:n] * length, length)

    def _windows(self, tokens: np.ndarray, start: np.ndarray, length: int, states: bool = True) -> Episodes:
        windows = np.asarray(tokens[start[:, None] + np.arange(length)], np.int64)
        return Episodes(windows, self.replay(windows) if states else {"document": self._documents(windows)})

    def replay(self, tokens: Tokens) -> dict[str, np.ndarray]:
        """Document of each token and its position in it, as in ``sample``."""
        tokens = checks.tokens(self, tokens)
        ends = tokens == self.boundary
        at = np.arange(tokens.shape[1])
        first = np.zeros_like(tokens)
        first[:, 1:] = np.maximum.accumulate(np.where(ends, at + 1, 0), axis=1)[:, :-1]
        return {"document": self._documents(tokens), "document_position": at - first}

    def _documents(self, tokens: Int[np.ndarray, "episodes positions"]) -> Int[np.ndarray, "episodes positions"]:
        ends = tokens == self.boundary
        return ends.cumsum(1) - ends

    def legal_next(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions tokens"]:
        """All tokens may follow any token. The array is read-only."""
        tokens = checks.tokens(self, tokens)
        return np.broadcast_to(np.True_, (*tokens.shape, len(self.vocabulary)))

    def decode(self, tokens: ArrayLike) -> str:
        """The text. A character cut in two by the window becomes the replacement character."""
        return b"".join(self._bytes[token] for token in np.asarray(tokens).tolist()).decode("utf-8", errors="replace")

    def encode(self, text: str) -> Int[np.ndarray, " tokens"]:
        """Tokenise a text, such as a prompt.

        Raises
        ------
        ImportError
            If the package tokenizers is not installed.
        """
        return np.array(self._tokenizer.encode(text).ids, np.int64)

    def facts(self) -> dict[str, str]:
        sizes = {
            split: f"{self._packed.documents[split]:,} documents, {len(tokens):,} tokens"
            for split, tokens in self._packed.parts.items()
        }
        return super().facts() | (sizes or {"text": "not here, only its tokenizer"})

    @cached_property
    def _tokenizer(self) -> Any:
        return corpus.parse(self.tokenizer)


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
    r"""Text from a file or a data set, as in TinyStories: a small byte-level BPE, packed windows.

    A hash of its text assigns a document to a split, so equal documents are in the same split. The byte-level BPE
    tokenizer is trained on the training documents. The documents of a split are concatenated, each followed by the
    token ``<|endoftext|>``, and episodes are windows of that, so there is no padding. The law of the next token is not
    known, so there is no floor. The result is kept in the user's cache and used again for the same corpus.

    Parameters
    ----------
    source : str or Path
        A UTF-8 text file; a ``.jsonl`` file, one object per line; or the name of a data set on the Hugging Face hub
        (its part "train"), such as ``"roneneldan/TinyStories"``.
    vocabulary_size : int
        Number of tokens: 256 bytes, the boundary, and merged pairs, fewer if the corpus has fewer.
    test_share : float
        Fraction of documents held out, in [0, 1); with 0 there is no split ``"test"``.
    separator : str
        Separator between the documents of a text file; ``"\n\n"`` splits at blank lines.
    column : str
        Column or key of the text in a data set or a ``.jsonl`` file.
    documents : int, optional
        Use only this many documents from the start; the rest of a data set is not downloaded.
    subset, revision : str, optional
        Subset and revision of a data set. ``spec`` contains the revision used.
    sha256, tokenizer_sha256 : str, optional
        Expected hashes of the corpus and of the tokenizer; any others are an error. ``spec`` contains them, so that
        ``from_spec`` never uses another text. If the cache has the corpus with this ``sha256``, the source is not
        needed. If only the tokenizer is known, from a checkpoint that was loaded, the world cannot be sampled.

    Raises
    ------
    ImportError
        If an optional package needed for text is not installed.
    ValueError
        If an argument is out of range, the source cannot be read or has too little text, or a hash differs.

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
    size = checks.integer("vocabulary_size", vocabulary_size)
    if size < corpus.SMALLEST:
        raise ValueError(
            f"vocabulary_size must be at least {corpus.SMALLEST}, 256 bytes and the boundary between documents, "
            f"got {vocabulary_size}"
        )
    test_share = checks.number("test_share", test_share, "[0, 1)")
    if not separator:
        raise ValueError("separator must not be empty; '\\n\\n' splits at blank lines")
    limit = None if documents is None else checks.integer("documents", documents)
    origin = TextSource(str(source), separator, column, limit, subset, revision)
    sizes = {"vocabulary_size": size, "test_share": test_share}
    packed, origin, digest = _packed(origin, sizes, sha256, tokenizer_sha256)
    defaults = asdict(TextSource(""))
    changed = {key: value for key, value in asdict(origin).items() if key != "name" and value != defaults[key]}
    if "limit" in changed:
        changed["documents"] = changed.pop("limit")
    hashes = {"sha256": digest, "tokenizer_sha256": _require_tokenizer(packed, origin.name, tokenizer_sha256)}
    spec = {"name": "text", "source": origin.name, **sizes, **changed, **hashes}
    return Text(packed, spec, _entry(origin, sizes, digest))


def _entry(source: TextSource, sizes: Spec, digest: str) -> str:
    """Name of a packed corpus in the cache."""
    options = {"separator": source.separator, "column": source.column, "limit": source.limit}
    return cache.key(sha256=digest, **options, **sizes)


def _require_tokenizer(packed: Packed, source: str, expected: str | None) -> str:
    """Return the hash of a tokenizer; a ValueError if it is not the expected one."""
    digest = hashlib.sha256(packed.tokenizer.encode()).hexdigest()
    if expected not in (None, digest):
        raise ValueError(
            f"the tokenizer trained on source={source!r} has SHA-256 {digest}, expected {expected}: the "
            "installed version of tokenizers merges other pairs; install the version it was made with"
        )
    return digest


def _packed(
    source: TextSource, sizes: Spec, sha256: str | None, tokenizer_sha256: str | None
) -> tuple[Packed, TextSource, str]:
    """The packed corpus, from the cache if possible, its source with the revision used, and its hash."""
    if not source.is_file:
        if not (sha256 and source.revision):
            source = replace(source, revision=corpus.latest(source))
        known_hash = sha256 or cache.recall(cache.key(**asdict(source)))
    else:
        known_hash = None if Path(source.name).expanduser().exists() and not outside.confined() else sha256
    # The hash identifies the text, so a cached result is used without reading the source, which may be gone.
    if known_hash and (hit := cache.read(_entry(source, sizes, known_hash))):
        return hit, source, known_hash
    try:
        texts, digest = corpus.read_file(source) if source.is_file else corpus.read_dataset(source)
    except ValueError:
        # A checkpoint brought the tokenizer, which is enough to read and write text.
        tokenizer = cache.kept_tokenizer(tokenizer_sha256)
        if sha256 is None or tokenizer is None:
            raise
        return Packed(tokenizer, {}, {}), source, sha256
    if sha256 not in (None, digest):
        raise ValueError(
            f"source={source.name!r} has SHA-256 {digest}, expected {sha256}: this is not the text the world was made "
            "from; restore that text, or build a new world without sha256"
        )
    entry = _entry(source, sizes, digest)
    hit = cache.read(entry)
    if hit is None:
        hit = _pack(texts, source, sizes)
        cache.store(entry, hit)
    if not source.is_file:
        cache.remember(cache.key(**asdict(source)), digest)
    return hit, source, digest


def _pack(texts: list[str], source: TextSource, sizes: Spec) -> Packed:
    share = sizes["test_share"]
    parts: dict[str, list[str]] = {"train": [], "test": []}
    for document in texts:
        parts["test" if corpus.in_test(document, share) else "train"].append(document)
    if not share:
        del parts["test"]
    for split, members in parts.items():
        if not members:
            raise ValueError(
                f"none of the {len(texts)} documents of source={source.name!r} is in split {split!r}; "
                "separator='\\n\\n' makes each paragraph a document, test_share=0 holds none out"
            )
    tokenizer = corpus.train_bpe(parts["train"], sizes["vocabulary_size"])
    return Packed(
        tokenizer,
        {split: corpus.pack(tokenizer, members) for split, members in parts.items()},
        {split: len(members) for split, members in parts.items()},
    )
