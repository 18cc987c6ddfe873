"""Threads that help, and threads that wait for each other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float


@contextlib.contextmanager
def few_threads(X: Float[np.ndarray, "rows dim"]) -> Iterator[None]:
    """Keep linear algebra on small arrays to one thread.

    Threads that wait for each other over 64 columns cost more than they save: on a busy two-core machine the same
    probe took 0.2 s with one thread and 1 to 4 s with two.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1) if X.size < 4_000_000 else contextlib.nullcontext():
        yield
