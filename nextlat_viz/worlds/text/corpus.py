"""Read documents from a file or a data set, assign them to a split, and turn them into tokens by a byte-level BPE."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from nextlat_viz.errors import optional
from nextlat_viz.worlds import outside

BOUNDARY = "<|endoftext|>"
SMALLEST = 257
"""Tokens of the smallest byte-level BPE: the bytes and the boundary."""

_AT_ONCE = 4096
_SHOWN = {" ": "␣", "\n": "↵", "\t": "⇥", "\\": "\\\\"}
_FILES = {".txt", ".text", ".md", ".jsonl", ".json"}


@dataclass(frozen=True)
class TextSource:
    """Origin of the documents: a file, or a data set of the Hugging Face Hub with its subset and revision.

    ``separator`` separates the documents of a text file, ``column`` is the column or key of the text, and ``limit`` the
    number of documents to read from the start.
    """

    name: str
    separator: str = BOUNDARY
    column: str = "text"
    limit: int | None = None
    subset: str | None = None
    revision: str | None = None

    @property
    def is_file(self) -> bool:
        """Whether the name is a path: an existing file, or not a valid name of a data set."""
        looks_like_file = Path(self.name).suffix in _FILES or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", self.name)
        return looks_like_file or Path(self.name).expanduser().exists()


def read_file(source: TextSource) -> tuple[list[str], str]:
    """Read the documents of a UTF-8 file, and the SHA-256 of its bytes as hex.

    A ValueError if there is no such file, it is not UTF-8 or valid JSON lines, or it has no text.
    """
    outside.require_asked(f"reads the file {source.name!r}")
    path = Path(source.name).expanduser()
    if not path.is_file():
        names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, names, n=1)
        hint = f"; did you mean {str(path.parent / near[0])!r}?" if near else ""
        problem = "is a folder; name a file in it" if path.is_dir() else f"does not exist{hint}"
        raise ValueError(f"source={source.name!r} {problem}")
    content = path.read_bytes()
    try:
        text = content.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"source={source.name!r} is not UTF-8: byte 0x{content[error.start]:02x} at offset {error.start}; "
            "convert it, for example with iconv -t UTF-8"
        ) from None
    documents = _rows(source, text) if path.suffix == ".jsonl" else text.split(source.separator)
    return _cleaned(source, documents), hashlib.sha256(content).hexdigest()


def latest(source: TextSource) -> str:
    """Look up the commit hash of a data set's revision, the newest by default; a ValueError if that fails."""
    outside.require_asked(f"looks up the data set {source.name!r}")
    hub = package("huggingface_hub")
    try:
        return str(hub.HfApi().dataset_info(source.name, revision=source.revision).sha)
    except Exception as error:
        raise _unreachable(source, error) from None


def read_dataset(source: TextSource) -> tuple[list[str], str]:
    """Read the documents of a data set's split "train", and a SHA-256 of them as hex.

    With a ``limit``, only these documents are downloaded. A ValueError if there is no such data set or column, or the
    Hub cannot be reached.
    """
    outside.require_asked(f"downloads the data set {source.name!r}")
    datasets = package("datasets")
    texts: list[Any] = []
    columns = [source.column]
    try:
        rows = datasets.load_dataset(
            source.name, source.subset, split="train", revision=source.revision, streaming=source.limit is not None
        )
        for row in itertools.islice(rows, source.limit):
            columns = list(row)
            if source.column not in columns:
                break
            texts.append(row[source.column])
    except Exception as error:
        raise _unreachable(source, error) from None
    if source.column not in columns:
        raise ValueError(
            f"data set {source.name!r} has no column {source.column!r}; pass column=... with one of "
            f"{', '.join(map(repr, columns))}"
        )
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"column {source.column!r} of data set {source.name!r} must hold text, got {text!r:.60}")
    documents = _cleaned(source, texts)
    return documents, hashlib.sha256(f"\n{BOUNDARY}\n".join(documents).encode()).hexdigest()


def package(name: str) -> Any:
    """Import an optional package; the ImportError says how to install it."""
    return optional(name, f"the world 'text' needs the package {name}: pip install \"nextlat-viz[text]\"")


def in_test(document: str, share: float) -> bool:
    """Whether a document belongs to the test split, by a hash of its text.

    Examples
    --------
    >>> sum(in_test(str(number), 0.1) for number in range(1000))
    106
    """
    return int.from_bytes(hashlib.sha256(document.encode()).digest()[:8], "big") < share * 2**64


def train_bpe(documents: Sequence[str], size: int) -> str:
    """Train a byte-level BPE of at most ``size`` tokens, including the boundary; return the JSON of ``tokenizers``."""
    tokenizers = package("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[BOUNDARY],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer, length=len(documents))
    text: str = tokenizer.to_str()
    return text


def parse(tokenizer: str) -> Any:
    """The tokenizer object for its JSON."""
    return package("tokenizers").Tokenizer.from_str(tokenizer)


def pack(tokenizer: str, documents: Sequence[str]) -> Integer[np.ndarray, " tokens"]:
    """Token ids of all documents in order, each followed by the boundary."""
    bpe = parse(tokenizer)
    boundary = bpe.token_to_id(BOUNDARY)
    smallest = np.uint16 if bpe.get_vocab_size() <= 2**16 else np.uint32

    def ids() -> Iterator[np.ndarray]:
        for start in range(0, len(documents), _AT_ONCE):
            encoded = bpe.encode_batch_fast(documents[start : start + _AT_ONCE])
            yield np.array([token for document in encoded for token in (*document.ids, boundary)], smallest)

    return np.concatenate(list(ids()))


def token_bytes(tokenizer: str) -> list[bytes]:
    """The bytes of each token, by id."""
    vocabulary: dict[str, int] = json.loads(tokenizer)["model"]["vocab"]
    letters = {letter: byte for byte, letter in enumerate(_letters())}
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    return [word.encode() if word == BOUNDARY else bytes(letters[letter] for letter in word) for word in words]


def readable(word: bytes) -> str:
    r"""A unique name for a token: its text with visible whitespace, and partial characters as ``\x..``.

    Examples
    --------
    >>> readable(b" cat"), readable("é".encode()), readable("é".encode()[:1]), readable(b"\n")
    ('␣cat', 'é', '\\xc3', '↵')
    """
    name = ""
    for letter in word.decode("utf-8", errors="surrogateescape"):
        code = ord(letter)
        if 0xDC80 <= code <= 0xDCFF:
            name += f"\\x{code - 0xDC00:02x}"
        elif letter in _SHOWN:
            name += _SHOWN[letter]
        elif letter.isprintable() and letter not in _SHOWN.values():
            name += letter
        else:
            name += f"\\u{{{code:x}}}"
    return name


def _rows(source: TextSource, text: str) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                value = json.loads(line)[source.column]
                value.encode()
            except (ValueError, KeyError, TypeError, AttributeError):
                value = None
            if not isinstance(value, str):
                raise ValueError(
                    f"line {number} of source={source.name!r} must be a JSON object with text under "
                    f"{source.column!r}, got {line!r:.60}; column=... names another key"
                )
            yield value


def _cleaned(source: TextSource, texts: list[str] | Iterator[str]) -> list[str]:
    """Split documents at boundaries, strip whitespace and drop empty ones."""
    documents = (part.strip() for text in texts for part in text.split(BOUNDARY))
    cleaned = list(itertools.islice((document for document in documents if document), source.limit))
    if not cleaned:
        raise ValueError(f"source={source.name!r} has no text")
    return cleaned


def _unreachable(source: TextSource, error: Exception) -> ValueError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ValueError(
        f"source={source.name!r} is not a file, and cannot be read as a data set of the Hugging Face Hub: "
        f"{reason[:300]}. Check the name and the network, or pass the path of a text file"
    )


def _letters() -> list[str]:
    """The character that byte-level BPE uses for each byte: the byte itself if printable, else one from 256 on."""
    printing = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printing]
    return [chr(byte) if byte in printing else chr(256 + others.index(byte)) for byte in range(256)]
