"""Shape of the latents of one model: spread and merging of histories of one state, and trajectories of episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int

from nextlat_viz.analysis._rows import episode_index, features, number_rows, prefixes
from nextlat_viz.analysis.geometry import curvature, path_length
from nextlat_viz.errors import LatentsError, at_least
from nextlat_viz.latents.table import column, columns, tokens_of

PAIRS = 20_000


def trajectory_shapes(latents: AnnData, site: str = "hidden") -> pd.DataFrame:
    """Measure for every episode how far its latents move, and how much they turn.

    Parameters
    ----------
    latents : AnnData
        Of one model, with every position between the first and the last of each episode.

    Returns
    -------
    DataFrame
        A row per episode: ``episode``, ``steps``; ``path_length`` and ``displacement`` (from the first latent to the
        last) in the units of the latents; ``relative_length``, the path length over the root mean square distance of
        all latents to their mean, which is comparable between models; ``curvature``, the mean angle between successive
        steps in radians (NaN where there is none), the number of ``angles`` in it, and the number ``undefined`` because
        the latent did not move.

    Raises
    ------
    LatentsError
        NaN or infinity; positions missing inside an episode; latents that are all equal.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> checkpoint = nlv.load("mess3/nextlat")
    >>> shapes = trajectory_shapes(nlv.extract(checkpoint, checkpoint.world.sample(3, 6, seed=0), progress=False))
    >>> shapes["steps"].tolist(), bool((shapes["path_length"] >= shapes["displacement"]).all())
    ([5, 5, 5], True)
    """
    X, episode, position = features(latents, site), column(latents, "episode"), column(latents, "position")
    order = np.lexsort((position, episode))
    X, episode, position = X[order].astype(np.float64), episode[order], position[order]
    gaps = (episode[1:] == episode[:-1]) & (np.diff(position) != 1)
    if gaps.any():
        at = int(gaps.argmax())
        raise LatentsError(
            f"episode {episode[at]} goes from position {position[at]} to {position[at + 1]}: a trajectory needs every "
            "position between its first and its last; extract or select without gaps"
        )
    radius = float(np.sqrt(np.square(X - X.mean(axis=0)).sum(axis=1).mean()))
    if radius == 0:
        raise LatentsError(f"all latents at site {site!r} are equal, so there is no trajectory")
    rows = []
    for path in np.split(np.arange(len(X)), np.flatnonzero(np.diff(episode)) + 1):
        length, angles = path_length(X[path]), curvature(X[path])
        defined = angles[~np.isnan(angles)]
        rows.append(
            {
                "episode": int(episode[path[0]]),
                "steps": len(path) - 1,
                "path_length": length,
                "displacement": float(np.linalg.norm(X[path[-1]] - X[path[0]])),
                "relative_length": length / radius,
                "curvature": float(defined.mean()) if defined.size else np.nan,
                "angles": defined.size,
                "undefined": angles.size - defined.size,
            }
        )
    return pd.DataFrame(rows)


def state_numbers(latents: AnnData, by: str | Sequence[str] | None = None) -> Int[np.ndarray, " rows"]:
    """Number the true states: rows have the same number exactly when they agree in every column of `by`.

    Parameters
    ----------
    by : str or several, optional
        Columns that define the state: of ``obs`` ("state"), or exact arrays of ``obsm`` ("belief": rows equal to 8
        decimals are one belief). Default "belief" where there is one, else all states of the world. On Path-Star these
        are not the whole truth, because the graph is not a state: name columns.

    Raises
    ------
    LatentsError
        No `by`, and no state in the table.
    UnknownNameError
        No such column.
    """
    if by is None:
        not_states = ("episode", "position", "token", "model", "next_token_probs", "next_token_probs_exact")
        by = [name for name in columns(latents) if name not in not_states and not name.startswith("X_")]
        by = ["belief"] if "belief" in by else by
    if not by:
        raise LatentsError("these latents hold no state of their world: give the columns that define a state as by=...")
    return number_rows(column(latents, name) for name in ([by] if isinstance(by, str) else by))


def same_state_spread(
    latents: AnnData, by: str | Sequence[str] | None = "belief", site: str = "hidden", min_position: int = 0
) -> float:
    """Return the spread of latents within one true state: 0 when its histories are merged, about 1 when unrelated.

    It is the mean squared distance of a latent to the mean of its state, over the total variance.

    Parameters
    ----------
    by : str, several or None
        Columns that define the state; see `state_numbers`.
    min_position : int
        Leave out positions before this one.

    Notes
    -----
    Episodes that begin alike have equal latents there, which have spread 0, and so has a state that occurs once. To
    compare different histories of one state, raise `min_position`, or select the rows of `different_histories`. The
    spread of unrelated latents is ``(rows - states) / (rows - 1)``, near 1 only where states occur often.
    """
    use = column(latents, "position") >= min_position
    X = features(latents, site)[use].astype(np.float64)
    states = state_numbers(latents, by)[use]
    if len(X) < 2:
        raise LatentsError(f"spread needs at least two rows, found {len(X)} from position {min_position} on")
    means = pd.DataFrame(X).groupby(states).transform("mean").to_numpy()
    total = np.square(X - X.mean(0)).sum()
    if total == 0:
        raise LatentsError(f"all latents at site {site!r} are equal, so there is no variance to compare with")
    return float(np.square(X - means).sum() / total)


def different_histories(latents: AnnData, by: str | Sequence[str] | None = None) -> Int[np.ndarray, " rows"]:
    """Return the rows of states that several histories lead to, one row for each history.

    A history is the sequence of tokens read. Episodes that begin alike share it, and have equal latents there.

    Parameters
    ----------
    by : str or several, optional
        Columns that define the state; see `state_numbers`.

    Returns
    -------
    int array
        Row numbers, ascending; empty where every state has one history.

    Raises
    ------
    LatentsError
        Rows were sliced away, so the tokens read before other rows are unknown.
    """
    first = _histories(latents)
    states = state_numbers(latents, by)[first]
    return first[np.bincount(states)[states] > 1]


def merge_distance(
    latents: AnnData,
    by: str | Sequence[str] | None = None,
    site: str = "hidden",
    pairs: int = PAIRS,
    seed: int = 0,
) -> float:
    """Return the distance between histories of one state, over the distance between different states.

    It is the mean Euclidean distance over pairs of different histories (token prefixes) that lead to one true state,
    divided by the mean over pairs that lead to different states: 0 where histories are merged into their state, 1 where
    latents do not depend on it. Unlike `same_state_spread` it is not lowered by rare states.

    Parameters
    ----------
    latents : AnnData
        Of one model.
    by : str or several, optional
        Columns that define the state; see `state_numbers`.
    pairs : int
        Most pairs of each kind; where there are more, this many are drawn.
    seed : int
        Of the draw.

    Raises
    ------
    LatentsError
        No state with two histories, or a single state; NaN or infinity; equal latents of different states; rows
        sliced away, so that histories are unknown.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> merge_distance(nlv.extract(nlv.load("rrxor/nextlat"), progress=False)) < 0.5
    True
    """
    at_least("pairs", pairs)
    rows = _histories(latents)
    X, states = features(latents, site)[rows].astype(np.float64), state_numbers(latents, by)[rows]
    rng = np.random.default_rng(seed)
    same, different = _pairs_within_states(states, pairs, rng), pairs_between_states(states, pairs, rng)
    if len(same) == 0:
        raise LatentsError(
            "no state is reached by two different histories: extract more episodes, or give other columns as by=..."
        )
    if len(different) == 0:
        raise LatentsError("all histories lead to one state, and a second is needed: give other columns as by=...")
    between = mean_distance(X, different)
    if between == 0:
        raise LatentsError(f"the latents of different states at site {site!r} are equal")
    return mean_distance(X, same) / between


def _histories(latents: AnnData) -> Int[np.ndarray, " rows"]:
    """Return the first row of every token prefix, ascending."""
    tokens, position = tokens_of(latents), column(latents, "position")
    known = np.pad(np.cumsum(tokens >= 0, axis=1), ((0, 0), (1, 0))) == np.arange(tokens.shape[1] + 1)
    read = known[episode_index(latents), position]
    if not read.all():
        raise LatentsError(
            f"the tokens read before {int((~read).sum())} of the rows are not in these latents, so histories are "
            "unknown: extract with positions=slice(start, None) instead of selecting rows"
        )
    return np.sort(np.unique(prefixes(latents), return_index=True)[1])


def _pairs_within_states(
    states: Int[np.ndarray, " n"], most: int, rng: np.random.Generator
) -> Int[np.ndarray, "pairs 2"]:
    """Return pairs of rows of one state: all, or `most` drawn uniformly with replacement."""
    order = np.argsort(states, kind="stable")
    size = np.bincount(states)
    start, count = np.cumsum(size) - size, size * (size - 1) // 2
    if count.sum() <= most:
        every = [start[k] + np.stack(np.triu_indices(size[k], 1), axis=1) for k in np.flatnonzero(count)]
        return order[np.concatenate(every)] if every else np.empty((0, 2), np.int64)
    state = rng.choice(len(size), most, p=count / count.sum())
    first = rng.integers(size[state])
    second = rng.integers(size[state] - 1)
    return order[start[state][:, None] + np.stack([first, second + (second >= first)], axis=1)]


def pairs_between_states(
    states: Int[np.ndarray, " n"], most: int, rng: np.random.Generator
) -> Int[np.ndarray, "pairs 2"]:
    """Return pairs of rows of different states: all, or `most` drawn uniformly with replacement."""
    n, size = len(states), np.bincount(states)
    if n * (n - 1) // 2 <= most:
        every = np.stack(np.triu_indices(n, 1), axis=1)
        return every[states[every[:, 0]] != states[every[:, 1]]]
    # The first row is drawn by its number of partners, then the partner by its place among the rows of other states.
    partners = (n - size)[states]
    if partners.sum() == 0:
        return np.empty((0, 2), np.int64)
    order = np.argsort(states, kind="stable")
    start = np.cumsum(size) - size
    first = rng.choice(n, most, p=partners / partners.sum())
    place = rng.integers(partners[first])
    place += np.where(place >= start[states[first]], size[states[first]], 0)
    return np.stack([first, order[place]], axis=1)


def mean_distance(X: Float[np.ndarray, "n dim"], pairs: Int[np.ndarray, "pairs 2"]) -> float:
    return float(np.linalg.norm(X[pairs[:, 0]] - X[pairs[:, 1]], axis=1).mean())
