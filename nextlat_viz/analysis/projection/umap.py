"""UMAP layouts, seeded, from exact nearest neighbours."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

# Above this many rows, distances between all pairs take longer than approximate neighbours and their compilation.
BRUTE_ROWS = 20_000


class Progress(NamedTuple):
    """The present stage of a layout: ``done`` of ``total`` epochs while it runs, before that 0 of 0."""

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

    Parameters
    ----------
    X : (rows, dim) array
        Different rows: many copies of one row would fill its list of neighbours.
    n_neighbors, min_dist, n_epochs, seed
        As in ``umap.UMAP``.
    progress : callable, optional
        Called with the present stage, a few times a second at most.
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


class _Epochs(io.StringIO):
    """A file for umap's tqdm bar, which is set to print the bare number of the epoch: reports it as `Progress`."""

    def __init__(self, report: Callable[[Progress], None], total: int) -> None:
        super().__init__()
        self.report, self.total = report, total

    def write(self, text: str) -> int:
        if text.strip().isdigit():
            self.report(Progress("laying out", int(text), self.total))
        return len(text)
