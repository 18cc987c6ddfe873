"""Projections on disk, so that each UMAP is computed once.

The key of a projection hashes its origin (weights, episodes, world, rows, site, method, parameters), not the bytes of
the latents, which differ in the last digit between machines. A fingerprint of the latents, compared with tolerance,
guards against latents that were changed by hand. Each projection is a sealed safetensors file: reading runs no code,
and damage is noticed.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from nextlat_viz import io, paths

FORMAT = "nextlat_viz.projection/1"
_warned: set[Path] = set()


class Stored(NamedTuple):
    """Content of a cache file: coordinates, their trustworthiness, and a fingerprint of the latents."""

    coordinates: Float[np.ndarray, "rows 2"]
    trustworthiness: float
    fingerprint: Float[np.ndarray, " numbers"]


def key_of(provenance: Mapping[str, Any]) -> str:
    """Hash the origin of a projection, as JSON with sorted keys, to 64 hex digits."""
    return hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()


def fingerprint(X: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, " numbers"]:
    """Summarise latents by ``dim + 33`` numbers: the spread, the column means, and the means of up to 32 rows."""
    some = X[np.linspace(0, len(X) - 1, 32).astype(int)]
    return np.concatenate([[X.std()], X.mean(0), some.mean(1)]).astype(np.float32)


def alike(known: Float[np.ndarray, " n"], other: Float[np.ndarray, " m"]) -> bool:
    """Compare two fingerprints up to the differences between machines."""
    return known.shape == other.shape and bool(np.abs(known - other).max() <= 1e-3 * max(float(known[0]), 1e-12))


@dataclass(frozen=True)
class ProjectionCache:
    """Folders of cached projections.

    Attributes
    ----------
    shipped : tuple of Path
        Read first; never written.
    user : Path or None
        Read next, and written. Created when first needed; with None nothing is kept.
    """

    shipped: tuple[Path, ...] = ()
    user: Path | None = None

    def load(self, key: str) -> Stored | None:
        """Return a projection, None where there is none. A file without a valid seal is ignored with a warning."""
        for folder in (*self.shipped, *([self.user] if self.user else [])):
            path = folder / f"{key}.safetensors"
            try:
                if path.is_file():
                    return _read(path, key)
            except Exception as error:  # safetensors has errors of its own; a damaged cache must not stop a figure
                warnings.warn(f"cached projection {path} is ignored and computed again: {error}", stacklevel=2)
        return None

    def store(self, key: str, projection: Stored, about: Mapping[str, Any]) -> None:
        """Write a projection, with its origin in the header. Warns once where the folder cannot be written."""
        if self.user is None:
            return
        try:
            _write(self.user / f"{key}.safetensors", key, projection, about)
        except OSError as error:
            if self.user not in _warned:
                _warned.add(self.user)
                warnings.warn(f"projections cannot be cached in {self.user}: {error}", stacklevel=2)


def default_cache() -> ProjectionCache:
    """Return the cache of the shipped projections and the user's cache folder."""
    return ProjectionCache((paths.shipped_projections(),), paths.cache_dir() / "projections")


def _read(path: Path, key: str) -> Stored:
    from safetensors.numpy import load

    content = path.read_bytes()
    io.check_seal(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    if header.get("format") != FORMAT or header.get("key") != key:
        raise ValueError(f"it is not a {FORMAT} file for this key")
    tensors = load(content)
    coordinates = tensors["coordinates"]
    if coordinates.ndim != 2 or coordinates.shape[1] != 2 or not np.isfinite(coordinates).all():
        raise ValueError("its coordinates are not finite pairs")
    return Stored(coordinates, float(header["trustworthiness"]), tensors["fingerprint"])


def _write(path: Path, key: str, projection: Stored, about: Mapping[str, Any]) -> None:
    from safetensors.numpy import save

    metadata = {
        "format": FORMAT,
        "key": key,
        "trustworthiness": repr(projection.trustworthiness),
        "about": json.dumps(about, sort_keys=True),
        "seal": io.UNSEALED,
    }
    content = save(
        {
            "coordinates": np.ascontiguousarray(projection.coordinates, dtype=np.float32),
            "fingerprint": np.ascontiguousarray(projection.fingerprint, dtype=np.float32),
        }
    )
    # safetensors orders metadata at random. Written here, the same projection gives the same bytes.
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps({"__metadata__": metadata, **json.loads(content[8:start])}).encode()
    header += b" " * (-len(header) % 8)
    io.write(path, io.seal(len(header).to_bytes(8, "little") + header + content[start:]))
