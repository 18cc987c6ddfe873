"""Rows of a latents table: finite numbers, equal prefixes, splits by episode, checks that two tables match, threads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from jaxtyping import Float, Int

from nextlat_viz.errors import LatentsError, at_least, is_number, unknown
from nextlat_viz.latents.table import column, meta, site, sites, tokens_of, world_of
from nextlat_viz.worlds import HiddenMarkovWorld

ALL_SITES = "all"
_MIN_SEQUENCES = 5
_WORTH_THREADS = 4_000_000


def latents_of(value: Any, argument: str = "latents", *, untrained: bool = False) -> AnnData:
    """Return a table of latents. A checkpoint, or the name of one, is extracted on its held-out episodes.

    With `untrained` a checkpoint is extracted as it was before its training.
    """
    if isinstance(value, AnnData):
        return value
    from nextlat_viz.latents.extraction import extract
    from nextlat_viz.training.checkpoint import load
    from nextlat_viz.training.trained import TrainedModel

    if isinstance(value, (str, os.PathLike)):
        value = load(value)
    if isinstance(value, TrainedModel):
        return extract(value.untrained() if untrained else value, progress=False)
    raise TypeError(
        f"{argument} must be a table of latents, a checkpoint or the name of one, got {type(value).__name__}: make a "
        "table with nlv.extract(checkpoint)"
    )


def finite(X: Float[np.ndarray, "rows dim"], what: str = "the latents") -> Float[np.ndarray, "rows dim"]:
    """Return `X`. Raises LatentsError where it holds NaN or infinity, with the number of such rows."""
    bad = ~np.isfinite(X).all(axis=1)
    if bad.any():
        raise LatentsError(
            f"{what} hold NaN or infinity in {int(bad.sum())} of {len(X)} rows: was the learning rate too high? "
            "Use other latents, or only the rows that are finite"
        )
    return X


def features(
    latents: AnnData, name: str = "hidden", rows: Sequence[int] | slice = slice(None)
) -> Float[np.ndarray, "rows dim"]:
    """Return the latents of a site, checked to be finite; site ``"all"`` joins the columns of all sites.

    Of a few `rows`, this is faster than slicing the table.
    """
    if name == ALL_SITES:
        joined = np.concatenate([site(latents, name)[rows] for name in sites(latents)], axis=1)
        return finite(joined, "the latents of all sites")
    return finite(site(latents, name)[rows], f"the latents at site {name!r}")


def sites_named(latents: AnnData, names: Any) -> list[str]:
    """Check the names of sites in an argument and return them as a list; None means every site of the latents."""
    known = sites(latents)
    if names is None:
        return known
    if not isinstance(names, (str, Iterable)):
        raise TypeError(f"sites={names!r} must be names of sites: {', '.join((*known, ALL_SITES))}")
    chosen = [names] if isinstance(names, str) else list(names)
    if not chosen:
        raise ValueError("sites is empty: name at least one site, or leave it out for all")
    for name in chosen:
        if name not in (ALL_SITES, *known):
            raise unknown("site", name, known)
    return chosen


def prefixes(latents: AnnData) -> Int[np.ndarray, " rows"]:
    """Number the prefixes: rows have the same number exactly when the tokens read up to them are the same."""
    # The added first column is position 0, where no token has been read.
    tokens = np.pad(tokens_of(latents), ((0, 0), (1, 0)), constant_values=-1)
    return prefix_ids(tokens)[episode_index(latents), column(latents, "position")]


def prefix_ids(tokens: Int[np.ndarray, "n t"]) -> Int[np.ndarray, "n t"]:
    """Number the prefixes of sequences: equal prefixes have equal numbers. A token may be -1, for none."""
    ids, number, used = np.empty_like(tokens), np.zeros(len(tokens), np.int64), 0
    for t in range(tokens.shape[1]):
        _, number = np.unique(number * (tokens.max(initial=0) + 2) + tokens[:, t] + 1, return_inverse=True)
        ids[:, t] = number + used
        used += int(number.max()) + 1
    return ids


def number_rows(columns: Iterable[np.ndarray]) -> Int[np.ndarray, " rows"]:
    """Number rows: two rows have the same number exactly when all columns agree, floats to 8 decimals."""
    numbers = np.zeros(1, dtype=np.int64)
    for values in columns:
        if values.dtype.kind == "f":
            values = np.round(values, 8) + 0.0
        _, which = np.unique(values, axis=0, return_inverse=True)
        # Comparing integers is faster than comparing rows.
        _, numbers = np.unique(numbers * (int(which.max(initial=0)) + 1) + which.reshape(-1), return_inverse=True)
    return numbers


def contents(latents: AnnData) -> Int[np.ndarray, " rows"]:
    """Number the token sequences: rows have the same number exactly when all tokens of their episodes agree."""
    _, which = np.unique(tokens_of(latents), axis=0, return_inverse=True)
    return which.reshape(-1)[episode_index(latents)]


def episode_index(latents: AnnData) -> Int[np.ndarray, " rows"]:
    """Return each row's episode as 0, 1, ... in ascending order, the order of the rows of `tokens_of`."""
    return np.unique(column(latents, "episode"), return_inverse=True)[1]


def split_episodes(
    latents: AnnData, test_size: float = 0.3, seed: int = 0
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """Split the rows by episode; episodes of the same tokens go to the same side.

    Such episodes have equal latents, so with one on each side a probe would be scored on rows that it was fitted on.

    Parameters
    ----------
    test_size : float
        Share of the different token sequences to hold out, in (0, 1).

    Returns
    -------
    (train_rows, test_rows) : int arrays
        Row numbers, ascending; together all rows.

    Raises
    ------
    LatentsError
        Fewer than 5 different token sequences.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> train, test = split_episodes(nlv.extract(nlv.load("mess3/nextlat"), progress=False), test_size=0.25)
    >>> len(np.intersect1d(train, test))
    0
    """
    if not is_number(test_size) or not 0 < test_size < 1:
        raise ValueError(f"test_size must be a share between 0 and 1, got {test_size!r}: try 0.3")
    seed = at_least("seed", seed, 0)
    group = contents(latents)
    count = int(group.max(initial=-1)) + 1
    if count < _MIN_SEQUENCES:
        raise LatentsError(
            f"these latents hold {count} different token sequences, and a split by episode needs at least "
            f"{_MIN_SEQUENCES}: extract more episodes"
        )
    held_out = int(np.clip(round(test_size * count), 1, count - 2))
    chosen = np.random.default_rng(seed).permutation(count)[:held_out]
    test = np.isin(group, chosen)
    return np.flatnonzero(~test), np.flatnonzero(test)


def swap_episodes(
    latents: AnnData, train: Int[np.ndarray, " train"], test: Int[np.ndarray, " test"], seed: int
) -> tuple[Int[np.ndarray, " moved"], Int[np.ndarray, " moved"]]:
    """Pair each row with the row at the same position in another episode on the same side of the split.

    Returns the rows that have a partner, and their partners. Rows past the end of the partner episode have none.
    """
    rng = np.random.default_rng(seed)
    index, position = episode_index(latents), column(latents, "position")
    partner = np.arange(index.max() + 1)
    for side in (train, test):
        episodes = np.unique(index[side])
        partner[episodes] = rng.permutation(episodes)
    row_at = np.full((partner.size, position.max() + 1), -1)
    used = np.concatenate([train, test])
    row_at[index[used], position[used]] = used
    source = row_at[partner[index[used]], position[used]]
    return used[source >= 0], source[source >= 0]


def require_same_rows(latents: AnnData, other: AnnData, what: str) -> None:
    """Raise unless both tables are of the same episodes, row by row."""
    if meta(latents)["episodes_sha256"] != meta(other)["episodes_sha256"]:
        raise LatentsError(f"{what} must be of the same episodes: extract both with the same episodes=...")
    if latents.n_obs != other.n_obs or any(
        not np.array_equal(column(latents, key), column(other, key)) for key in ("episode", "position")
    ):
        raise LatentsError(
            f"{what} must have the same rows in the same order, got {latents.n_obs} and {other.n_obs} rows: "
            "select the same rows from both"
        )


def require_model(latents: AnnData, weights_sha256: str, what: str) -> None:
    """Raise unless the latents come from the weights that `what` was fitted on."""
    about = meta(latents)
    if about["weights_sha256"] != weights_sha256:
        raise LatentsError(
            f"this {what} was fitted on the latents of weights {weights_sha256[:12]}, but these latents are of "
            f"{about['name']!r} (weights {about['weights_sha256'][:12]}): a {what} holds for one model, fit another"
        )


def picture_world(latents: AnnData) -> HiddenMarkovWorld:
    """Return the world of the latents, which must have picture coordinates of its beliefs."""
    world = world_of(latents)
    if not isinstance(world, HiddenMarkovWorld):
        raise LatentsError(
            f"world {world.name!r} has no picture coordinates of its beliefs: this needs a hidden Markov world"
        )
    return world


def few_threads(numbers: int) -> contextlib.AbstractContextManager[object]:
    """Limit linear algebra to one thread for arrays of few numbers.

    With 64 columns, threads lose more time waiting for each other than they save: on a busy two-core machine the same
    probe took 0.2 s with one thread and 1 to 4 s with two.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return threadpool_limits(1) if numbers < _WORTH_THREADS else contextlib.nullcontext()
