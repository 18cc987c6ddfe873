"""Limits on a world built from a card: no file, no server and no large size that the user did not ask for.

A card may come from an untrusted source. The user asks for a world by building it, with `worlds.get` or by training on
it; a card of that same world is then built in full. Worlds trained on are remembered in the user's cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from nextlat_viz import io
from nextlat_viz.paths import cache_dir

LARGEST = 1_000_000
"""Largest number in a card's world; seeds are not sizes and may be larger."""

_confined: ContextVar[bool] = ContextVar("confined", default=False)
_asked: set[str] = set()


def confined() -> bool:
    """Whether the world being built is one that the user did not ask for."""
    return _confined.get()


@contextlib.contextmanager
def confine() -> Iterator[None]:
    """Refuse files, servers and large sizes while the block runs."""
    token = _confined.set(True)
    try:
        yield
    finally:
        _confined.reset(token)


def require_asked(action: str) -> None:
    """Raise ValueError inside a `confine` block: the user did not ask for this world.

    Examples
    --------
    >>> with confine():
    ...     require_asked("reads the file notes.txt")
    Traceback (most recent call last):
    ValueError: this world reads the file notes.txt, which is refused when a card asks for it. If you trust it, ...
    """
    if confined():
        raise ValueError(
            f"this world {action}, which is refused when a card asks for it. If you trust it, build the world "
            "once with worlds.from_spec and the card's spec, then load again"
        )


def require_moderate(parameters: Mapping[str, Any]) -> None:
    """Raise ValueError for a number above `LARGEST` in a world that the user did not ask for."""
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            require_moderate(value)
        elif not name.endswith("seed"):
            for number in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(number, (int, float)) and not abs(number) <= LARGEST:
                    require_asked(f"has {name}={number!r:.40}, more than {LARGEST:,}")


def ask(spec: Mapping[str, Any], *, remember: bool = False) -> None:
    """Note that the user built the world of this spec; with `remember`, later sessions know it too."""
    _asked.add(_digest(spec))
    path = _note(spec)
    if remember and not path.exists():
        # Without the note a later session refuses files and servers, which is safe.
        with contextlib.suppress(OSError):
            io.write(path, json.dumps(spec))


def asked(spec: Mapping[str, Any]) -> bool:
    """Whether the user built the world of this spec before."""
    return _digest(spec) in _asked or _note(spec).is_file()


def _note(spec: Mapping[str, Any]) -> Path:
    return cache_dir() / "worlds" / f"{_digest(spec)}.json"


def _digest(spec: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True, default=str).encode()).hexdigest()
