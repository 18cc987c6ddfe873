"""Byte-level BPE: training, packed token ids, and tokens as bytes and readable names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer

from nextlat_viz.worlds.text.corpus import BOUNDARY, package

SMALLEST = 257
_AT_ONCE = 4096
_SHOWN = {" ": "␣", "\n": "↵", "\t": "⇥", "\\": "\\\\"}


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
    shown = ""
    for letter in word.decode("utf-8", errors="surrogateescape"):
        code = ord(letter)
        if 0xDC80 <= code <= 0xDCFF:
            shown += f"\\x{code - 0xDC00:02x}"
        elif letter in _SHOWN:
            shown += _SHOWN[letter]
        elif letter.isprintable() and letter not in _SHOWN.values():
            shown += letter
        else:
            shown += f"\\u{{{code:x}}}"
    return shown


def _letters() -> list[str]:
    """The character that byte-level BPE uses for each byte: the byte itself if printable, else one from 256 on."""
    printing = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printing]
    return [chr(byte) if byte in printing else chr(256 + others.index(byte)) for byte in range(256)]
