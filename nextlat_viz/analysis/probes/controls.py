"""Split of a probe's rows by episode, its shuffled control, and its ceiling.

A probe means little without these. Episodes that read the same tokens stay on one side of the split, because their
latents are identical and would carry the answer across. A probe that scores well on shuffled targets has learned the
target by itself, or the position gives it away.
"""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal

import numpy as np
from anndata import AnnData
from jaxtyping import Int

from nextlat_viz.analysis._rows import contents, episode_index
from nextlat_viz.analysis.probes.targets import Classes, Numbers
from nextlat_viz.errors import LatentsError, at_least
from nextlat_viz.latents.table import column

Shuffled = Literal["episodes", "rows"]

MIN_SEQUENCES = 5
# Exact functions of the tokens read: a reader of the whole prefix could have them all.
_KNOWN_FROM_TOKENS = ("belief", "next_token_probs", "next_token_probs_exact", "token", "position")


def split_episodes(
    latents: AnnData, test_size: float = 0.3, seed: int = 0
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """Split the rows by episode, so that no held-out episode reads the tokens of a fitted one.

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
    test_size, seed = _share(test_size), at_least("seed", seed, 0)
    group = contents(latents)
    count = int(group.max(initial=-1)) + 1
    if count < MIN_SEQUENCES:
        raise LatentsError(
            f"these latents hold {count} different token sequences, and a split by episode needs at least "
            f"{MIN_SEQUENCES}: extract more episodes"
        )
    held_out = int(np.clip(round(test_size * count), 1, count - 2))
    chosen = np.random.default_rng(seed).permutation(count)[:held_out]
    test = np.isin(group, chosen)
    return np.flatnonzero(~test), np.flatnonzero(test)


def _share(value: Any) -> float:
    if not isinstance(value, Real) or not 0 < float(value) < 1:
        raise ValueError(f"test_size must be a share between 0 and 1, got {value!r}: try 0.3")
    return float(value)


def swap_episodes(
    latents: AnnData, train: Int[np.ndarray, " train"], test: Int[np.ndarray, " test"], seed: int
) -> tuple[Int[np.ndarray, " moved"], Int[np.ndarray, " moved"]]:
    """Pair each row with the row at its position in another episode of its side of the split.

    Returns the rows that have a partner, and their partners. The end of an episode that is longer than its partner has
    none.
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


def shuffle(
    latents: AnnData,
    truth: Numbers | Classes,
    train: Int[np.ndarray, " train"],
    test: Int[np.ndarray, " test"],
    seed: int,
) -> tuple[Int[np.ndarray, " moved"], Int[np.ndarray, " moved"], Shuffled]:
    """Pair each row with the row whose target it gets in the shuffled control.

    That is the row of another episode at the same position, so that what the position says stays. Where the position
    fixes the target, this would change nothing, and rows are shuffled without regard to position.
    """
    moved, source = swap_episodes(latents, train, test, seed)
    if not truth.fixed(moved, source):
        return moved, source, "episodes"
    rng = np.random.default_rng(seed)
    return np.concatenate([train, test]), np.concatenate([rng.permutation(train), rng.permutation(test)]), "rows"


def ceiling(latents: AnnData, target: str, rows: Int[np.ndarray, " rows"]) -> float | None:
    """Return the best score that can be reached on some rows, None where it is not known.

    It is 1 for functions of the tokens read, and for a hidden state the accuracy of the exact belief.
    """
    if target in _KNOWN_FROM_TOKENS:
        return 1.0
    if target == "state" and "belief" in latents.obsm:
        return float(column(latents, "belief")[rows].max(axis=1).mean())
    return None
