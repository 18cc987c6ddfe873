"""Files: atomic writes, sealed reads, names that stay inside their folder, plain JSON.

A sealed file holds a sha256 over all its other bytes, so that damage is noticed when it is read. A seal is no
signature: it protects from broken disks and interrupted copies, not from someone who can compute a hash.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

UNSEALED = f"sha256:{'0' * 64}"
"""Placeholder for the hash, under the key ``seal``; `seal` replaces it."""

_SEAL = re.compile(rb'"seal": ?"sha256:([0-9a-f]{64})"')
_DRAFT = ".draft"
# Names that Windows reserves for devices, with any extension.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{k}" for port in ("com", "lpt") for k in "123456789¹²³")}
_LONGEST_NAME = 120
_DEEPEST = 100


class SealError(ValueError):
    """Content whose seal is missing or does not match."""


def as_path(path: Any, argument: str = "path") -> Path:
    """Return a path with ``~`` expanded. Raises TypeError for anything but text or a path."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{argument} must be a path, as text or pathlib.Path, got {path!r:.60}")
    return Path(path).expanduser()


def resolve(path: str | os.PathLike[str], argument: str = "path") -> Path:
    """Return an absolute path with ``~`` expanded, so that a later change of folder does not move it."""
    return as_path(path, argument).absolute()


def claim(folder: Path) -> None:
    """Create the folder of an argument ``out``, before any work is done.

    Raises
    ------
    OSError
        If it cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A random name: several processes may check the folder at once.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise type(error)(f"out={str(folder)!r} cannot be written ({error}). Choose another folder.") from error


@contextlib.contextmanager
def draft(path: Path) -> Iterator[Path]:
    """Yield a temporary file in the folder of `path`; it replaces `path` when the block ends without an error.

    The name is random and the file is created exclusively, so a link planted in the folder is not followed.

    Raises
    ------
    OSError
        When the folder cannot be created or written to, or the disk is full; names the file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with draft(Path(folder, "a.txt")) as temporary:
    ...         _ = temporary.write_text("whole")
    ...     Path(folder, "a.txt").read_text()
    'whole'
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_DRAFT)
    except OSError as error:
        raise type(error)(
            f"cannot write {path}: {error.strerror or error}. Choose a folder you can write to"
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            # Without this a power cut can leave the new name with the old bytes, or with none.
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            # The error of a full disk names no file.
            raise OSError(
                f"cannot write {path}: {error.strerror}. Free some space, or choose another folder"
            ) from error
        raise


def write(path: Path, content: bytes | str) -> None:
    """Write a file atomically: a reader gets the old content or the new, never a partial file.

    Raises
    ------
    OSError
        When the file cannot be written; names it.
    """
    with draft(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def remove_drafts(folder: Path) -> None:
    """Delete the temporary files that a killed process left in a folder. No other process may write there."""
    for leftover in folder.glob(f".*{_DRAFT}"):
        leftover.unlink(missing_ok=True)


def seal(content: bytes) -> bytes:
    """Complete content that has the key ``seal`` with the value `UNSEALED`: in JSON, or in a safetensors header.

    Examples
    --------
    >>> sealed = seal(json.dumps({"seal": UNSEALED, "steps": 3}).encode())
    >>> check_seal(sealed)
    >>> check_seal(sealed.replace(b"3", b"4"))
    Traceback (most recent call last):
    nextlat_viz.io.SealError: the content does not match its sha256
    """
    match = _SEAL.search(content)
    if match is None or match[1] != b"0" * 64:
        raise SealError("the content has no empty seal to complete")
    return content[: match.start(1)] + hashlib.sha256(content).hexdigest().encode() + content[match.end(1) :]


def check_seal(content: bytes) -> None:
    """Compare content with the seal in it.

    Raises
    ------
    SealError
        If the seal is missing, or was made for other content.
    """
    match = _SEAL.search(content)
    if match is None:
        raise SealError("the content has no seal")
    unsealed = content[: match.start(1)] + b"0" * 64 + content[match.end(1) :]
    if hashlib.sha256(unsealed).hexdigest().encode() != match[1]:
        raise SealError("the content does not match its sha256")


def parse_json(content: str | bytes) -> Any:
    """Parse JSON of unknown origin.

    Raises
    ------
    ValueError
        When it is not JSON, or nested so deeply that code which walks through it would exceed Python's recursion limit.

    Examples
    --------
    >>> parse_json("[" * 101 + "]" * 101)
    Traceback (most recent call last):
    ValueError: nested more than 100 levels deep
    """
    too_deep = f"nested more than {_DEEPEST} levels deep"
    try:
        data = json.loads(content)
    except RecursionError:
        raise ValueError(too_deep) from None
    level = [data]
    for _ in range(_DEEPEST + 1):
        containers = [value for value in level if isinstance(value, (dict, list))]
        if not containers:
            return data
        level = [item for value in containers for item in (value.values() if isinstance(value, dict) else value)]
    raise ValueError(too_deep)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a sealed JSON object. NaN and infinities, which JSON lacks, become null."""
    text = json.dumps({"seal": UNSEALED, **plain(data)}, indent=1, allow_nan=False)
    write(path, seal(text.encode()))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object written by `write_json`.

    Raises
    ------
    SealError
        When it is damaged or was written by something else.
    OSError
        When it cannot be read.
    """
    content = path.read_bytes()
    check_seal(content)
    try:
        data = parse_json(content)
    except ValueError as error:
        raise SealError(f"the content is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise SealError("the content is not a JSON object")
    return {key: value for key, value in data.items() if key != "seal"}


def plain(value: Any) -> Any:
    """Convert numpy numbers and arrays, paths and pydantic models to JSON values; NaN becomes None.

    Examples
    --------
    >>> import numpy as np
    >>> plain({"seed": np.int64(3), "scores": np.array([0.5, np.nan]), "folder": Path("runs")})
    {'seed': 3, 'scores': [0.5, None], 'folder': 'runs'}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(mode="json"))
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)


def file_name(name: object) -> str:
    """Turn any name into the name of one file: no separators, no dots in front, valid on every system.

    A name that is a valid file name already stays as it is. A name that has to change, or to be cut, gets a short hash
    of the original, so that different names stay different.

    Examples
    --------
    >>> file_name("taxi:width=8")
    'taxi_width=8-5125359b'
    >>> file_name("mess3"), file_name("../../x")
    ('mess3', 'x-9cdf6a50')
    """
    text = str(name)
    safe = re.sub(r"\.{2,}", "_", re.sub(r"[^\w.=,+@()-]", "_", text)).strip("._")[:_LONGEST_NAME]
    if safe == text and safe and safe.split(".")[0].lower() not in _DEVICES:
        return safe
    return f"{safe or 'unnamed'}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file by its name in a folder. The name may come from a file of unknown origin.

    Raises
    ------
    ValueError
        If the name is empty or has a separator, a drive or ``..``: such a path could lead out of the folder.

    Examples
    --------
    >>> inside(Path("models"), "../.bashrc")
    Traceback (most recent call last):
    ValueError: '../.bashrc' is not the name of a file in models: names from a file may not lead out of its folder
    """
    if not name or name in (".", "..") or set(name) & set("/\\:\0") or (folder / name).is_symlink():
        raise ValueError(
            f"{name!r} is not the name of a file in {folder}: names from a file may not lead out of its folder"
        )
    return folder / name
