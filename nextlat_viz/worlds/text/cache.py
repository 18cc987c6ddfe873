"""A cache of packed text on disk, and the tokenizers of loaded checkpoints."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from nextlat_viz import io
from nextlat_viz.paths import cache_dir

_FORMAT = "nextlat_viz.text/1"
# In memory only: loading a checkpoint writes nothing.
_tokenizers: dict[str, str] = {}


@dataclass(frozen=True, eq=False)
class Packed:
    """A tokenizer as JSON; for each split, if the corpus is known, its packed tokens and its number of documents."""

    tokenizer: str
    parts: dict[str, Integer[np.ndarray, " tokens"]]
    documents: dict[str, int]


def folder() -> Path:
    """Folder of the cache, which may not exist yet."""
    return cache_dir() / "text"


def key(**inputs: Any) -> str:
    """Name of the entry that was computed from these inputs; their order does not matter."""
    return hashlib.sha256(json.dumps([_FORMAT, inputs], sort_keys=True).encode()).hexdigest()[:32]


def store(name: str, packed: Packed) -> None:
    """Write an entry, its description last. Errors of the disk are ignored: the cache is optional."""
    with contextlib.suppress(OSError):
        hashes = {"tokenizer": _write(folder() / f"{name}.tokenizer.json", packed.tokenizer.encode())}
        for part, tokens in packed.parts.items():
            content = BytesIO()
            np.save(content, tokens)
            hashes[part] = _write(folder() / f"{name}.{part}.npy", content.getvalue())
        description = {"format": _FORMAT, "sha256": hashes, "documents": packed.documents}
        _write(folder() / f"{name}.json", json.dumps(description).encode())


def read(name: str) -> Packed | None:
    """Read an entry; None if there is none or a file of it is damaged."""
    try:
        description = io.parse_json((folder() / f"{name}.json").read_bytes())
        hashes = dict(description["sha256"])
        tokenizer = _verified(folder() / f"{name}.tokenizer.json", hashes.pop("tokenizer")).read_text("utf-8")
        parts = {
            part: np.load(_verified(folder() / f"{name}.{part}.npy", sha256), mmap_mode="r")
            for part, sha256 in hashes.items()
        }
        return Packed(tokenizer, parts, dict(description["documents"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def remember(name: str, value: str) -> None:
    """Store one string under a name."""
    with contextlib.suppress(OSError):
        _write(folder() / f"{name}.txt", value.encode())


def recall(name: str) -> str | None:
    """The string stored under a name, or None."""
    try:
        return (folder() / f"{name}.txt").read_text("utf-8")
    except (OSError, ValueError):
        return None


def keep_tokenizer(tokenizer: str) -> None:
    """Keep a tokenizer, as JSON, until the process ends."""
    _tokenizers[hashlib.sha256(tokenizer.encode()).hexdigest()] = tokenizer


def kept_tokenizer(sha256: str | None) -> str | None:
    """Return the tokenizer of this hash as JSON, if a checkpoint that was loaded in this process had it."""
    return None if sha256 is None else _tokenizers.get(sha256)


def _write(path: Path, content: bytes) -> str:
    io.write(path, content)
    return hashlib.sha256(content).hexdigest()


def _verified(path: Path, sha256: str) -> Path:
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise ValueError(f"{path} is damaged")
    return path
