"""Limit the threads of linear algebra on small arrays."""

from __future__ import annotations

import contextlib

_WORTH_THREADS = 4_000_000


def few_threads(numbers: int) -> contextlib.AbstractContextManager[object]:
    """Keep linear algebra on one thread where the arrays hold fewer numbers than pay for more.

    Threads that wait for each other over 64 columns cost more than they save: on a busy two-core machine the same
    probe took 0.2 s with one thread and 1 to 4 s with two.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return threadpool_limits(1) if numbers < _WORTH_THREADS else contextlib.nullcontext()
