"""UMAP layouts, seeded, from exact nearest neighbours, and the cache of projections on disk."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from nextlat_viz import io, paths
from nextlat_viz.errors import shown

# Above this many rows, all distances take longer than approximate neighbours with their compilation.
BRUTE_ROWS = 20_000
FORMAT = "nextlat_viz.projection/1"
_warned: set[Path] = set()


class Progress(NamedTuple):
    """The present stage of a layout: ``done`` of ``total`` epochs, 0 of 0 before the first."""

    stage: str
    done: int = 0
    total: int = 0


def neighbours(
    fitted: Float[np.ndarray, "n dim"], X: Float[np.ndarray, "rows dim"], k: int
) -> tuple[Int[np.ndarray, "rows k"], Float[np.ndarray, "rows k"]]:
    """Find the `k` nearest fitted rows of each row, exactly, nearest first: ``(indices, Euclidean distances)``."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(fitted.astype(np.float64))
    distances, indices = search.kneighbors(X.astype(np.float64))
    return indices, distances


def umap_layout(
    X: Float[np.ndarray, "rows dim"],
    n_neighbors: int = 15,
    min_dist: float | int = 0.1,
    n_epochs: int = 200,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> Float[np.ndarray, "rows 2"]:
    """Lay rows out in the plane by UMAP (McInnes et al. 2018).

    The layout starts from PCA, so that left and right do not depend on the seed. All of it runs on one thread, so that
    a seed gives the same bytes on one machine, whatever its number of threads; other processors round differently. Up
    to `BRUTE_ROWS` rows the neighbours are exact. The first call in a process compiles for 20 s and more;
    `project_in_process` runs it in another process.

    The rows must differ: many copies of one row would fill its list of neighbours. `progress` is called with the
    present stage, a few times a second at most.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    tell = progress or (lambda _: None)
    tell(Progress("loading UMAP"))
    # With another number of BLAS threads sums are rounded differently, and a layout amplifies such differences.
    with warnings.catch_warnings(), threadpool_limits(1):
        # umap warns when imported without TensorFlow, and about precomputed neighbours without a search index.
        warnings.simplefilter("ignore")
        from umap import UMAP

        known = {}
        if len(X) <= BRUTE_ROWS:
            tell(Progress("finding neighbours"))
            indices, distances = neighbours(X, X, n_neighbors)
            known["precomputed_knn"] = (indices.astype(np.int32), distances.astype(np.float32), None)
        tell(Progress("compiling and laying out"))
        model = UMAP(
            n_neighbors=n_neighbors,
            min_dist=min_dist,
            n_epochs=n_epochs,
            init="pca",
            random_state=seed,
            n_jobs=1,
            tqdm_kwds={
                "file": _Epochs(tell, n_epochs),
                "disable": progress is None,
                "bar_format": "{n}",
                "mininterval": 0.2,
            },
            **known,
        )
        layout = model.fit_transform(X.astype(np.float32))
    return np.asarray(layout, dtype=np.float32)


class _Epochs(StringIO):
    """A file for umap's tqdm bar, which prints only the number of the epoch: reports it as `Progress`."""

    def __init__(self, report: Callable[[Progress], None], total: int) -> None:
        super().__init__()
        self.report, self.total = report, total

    def write(self, text: str) -> int:
        if text.strip().isdigit():
            self.report(Progress("laying out", int(text), self.total))
        return len(text)


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
    """Folders of cached projections, so that each UMAP is computed once.

    The key of a projection hashes its origin (weights, episodes, world, rows, site, method, parameters), not the bytes
    of the latents, which differ in the last digit between machines. A fingerprint of the latents, compared with
    tolerance, guards against latents that were changed by hand. Each projection is a sealed safetensors file.

    Attributes
    ----------
    shipped : tuple of Path
        Read first; never written.
    user : Path or None
        Read next, and written. Created when first needed; with None nothing is kept.
    """

    shipped: tuple[Path, ...] = ()
    user: Path | None = None

    def __post_init__(self) -> None:
        if isinstance(self.shipped, (str, os.PathLike)):
            raise TypeError(
                f"shipped must be several folders to read, got {shown(self.shipped)}: to read and write one folder, "
                "give ProjectionCache((), folder)"
            )

    def load(self, key: str) -> Stored | None:
        """Return a projection, None where there is none. A file without a valid seal is ignored with a warning."""
        for folder in (*self.shipped, *([self.user] if self.user else [])):
            path = folder / f"{key}.safetensors"
            try:
                if path.is_file():
                    return _read(path, key)
            except Exception as error:  # also safetensors' own types: a damaged cache must not stop a figure
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
    header = io.parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
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
