"""Projections on disk, so that UMAP is waited for once.

A projection is found by what it was made from (weights, episodes, world, rows, site, method, parameters), not by the
bytes of the latents, which differ in the last digit between machines. A fingerprint of the latents, compared with
tolerance, guards against latents that were changed by hand. One safetensors file each: reading runs no code.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from nextlat_viz import paths

FORMAT = "nextlat_viz.projection/1"
_warned: set[Path] = set()


class Stored(NamedTuple):
    """What a cache file holds: coordinates, their trust score, and a fingerprint of the latents they came from."""

    coordinates: Float[np.ndarray, "rows 2"]
    trustworthiness: float
    fingerprint: Float[np.ndarray, " numbers"]


def key_of(provenance: Mapping[str, Any]) -> str:
    """Hash what a projection was made from (JSON-able, order of keys aside) to 64 hex digits."""
    return hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()


def fingerprint(X: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, " numbers"]:
    """Sum latents up in ``dim + 33`` numbers: the spread, the column means, and the means of up to 32 rows."""
    some = X[np.linspace(0, len(X) - 1, 32).astype(int)]
    return np.concatenate([[X.std()], X.mean(0), some.mean(1)]).astype(np.float32)


def alike(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " m"]) -> bool:
    """Say whether two fingerprints are of the same latents, up to what machines may differ by."""
    return one.shape == other.shape and bool(np.abs(one - other).max() <= 1e-3 * max(float(one[0]), 1e-12))


@dataclass(frozen=True)
class ProjectionCache:
    """Folders of cached projections.

    Attributes
    ----------
    shipped : tuple of Path
        Looked in first; never written.
    user : Path or None
        Looked in next, and written. Created when first needed; None keeps nothing.
    """

    shipped: tuple[Path, ...] = ()
    user: Path | None = None

    def load(self, key: str) -> Stored | None:
        """Find a projection; a file that is not what it should be is skipped with a warning."""
        for folder in (*self.shipped, *([self.user] if self.user else [])):
            path = folder / f"{key}.safetensors"
            try:
                if path.is_file():
                    return _read(path, key)
            except Exception as error:  # safetensors raises its own, and an unreadable cache must not stop a picture
                warnings.warn(f"cached projection {path} is ignored and made again: {error}", stacklevel=2)
        return None

    def store(self, key: str, projection: Stored, about: Mapping[str, Any]) -> None:
        """Keep a projection, with what it is about in the header; warns once where the folder cannot be written."""
        if self.user is None:
            return
        try:
            self.user.mkdir(parents=True, exist_ok=True)
            _write(self.user / f"{key}.safetensors", key, projection, about)
        except OSError as error:
            if self.user not in _warned:
                _warned.add(self.user)
                warnings.warn(f"projections cannot be cached in {self.user}: {error}", stacklevel=2)


def default_cache() -> ProjectionCache:
    """Look in what came with the shipped checkpoints, then in the user's cache folder."""
    return ProjectionCache((paths.shipped_projections(),), paths.cache_dir() / "projections")


def _read(path: Path, key: str) -> Stored:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        header = file.metadata() or {}
        if header.get("format") != FORMAT or header.get("key") != key:
            raise ValueError(f"it is not a {FORMAT} file for this key")
        coordinates, numbers = file.get_tensor("coordinates"), file.get_tensor("fingerprint")
    if coordinates.ndim != 2 or coordinates.shape[1] != 2 or not np.isfinite(coordinates).all():
        raise ValueError("its coordinates are not finite pairs")
    return Stored(coordinates.astype(np.float32), float(header["trustworthiness"]), numbers.astype(np.float32))


def _write(path: Path, key: str, projection: Stored, about: Mapping[str, Any]) -> None:
    from safetensors.numpy import save

    header = {
        "format": FORMAT,
        "key": key,
        "trustworthiness": repr(projection.trustworthiness),
        "about": json.dumps(about, sort_keys=True),
    }
    tensors = {
        "coordinates": np.ascontiguousarray(projection.coordinates, dtype=np.float32),
        "fingerprint": np.ascontiguousarray(projection.fingerprint, dtype=np.float32),
    }
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(save(tensors, header))
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
