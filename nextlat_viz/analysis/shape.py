"""How latents move along an episode, and how close the histories of one state come."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int

from nextlat_viz.analysis._rows import episode_index, features, finite, prefixes
from nextlat_viz.analysis.geometry import state_numbers
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents.table import column, tokens_of

PAIRS = 20_000


def path_length(path: Float[np.ndarray, "positions dim"]) -> float:
    """Length of a way through latent space: the sum of the lengths of its steps, in the units of the latents.

    Examples
    --------
    >>> path_length(np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]]))
    6.0
    """
    return float(np.linalg.norm(np.diff(finite(path).astype(np.float64), axis=0), axis=1).sum())


def curvature(path: Float[np.ndarray, "positions dim"]) -> Float[np.ndarray, " turns"]:
    """Angles between successive steps, in radians: 0 goes straight on, pi turns back.

    Parameters
    ----------
    path : (positions, dim) array

    Returns
    -------
    (max(positions - 2, 0),) array
        NaN where one of the two steps has no length and so no direction.

    Notes
    -----
    The mean of it is the curvature of Hénaff, Goris and Simoncelli (2019), "Perceptual straightening of natural
    videos".

    Examples
    --------
    >>> np.degrees(curvature(np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [2.0, 3.0], [2.0, 1.0]]))).round(6).tolist()
    [0.0, 90.0, 180.0]
    """
    steps = np.diff(finite(path).astype(np.float64), axis=0)
    lengths = np.linalg.norm(steps, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        directions = np.where(lengths > 0, steps / lengths, np.nan)
    before, after = directions[:-1], directions[1:]
    # The angle from its half, because the arc cosine loses half of the digits near 0 and pi (Kahan 2006).
    return 2 * np.arctan2(np.linalg.norm(after - before, axis=1), np.linalg.norm(after + before, axis=1))


def trajectory_shapes(latents: AnnData, site: str = "hidden") -> pd.DataFrame:
    """Say of every episode how far its latents travel, and how much they turn.

    Parameters
    ----------
    latents : AnnData
        Of one model, every position between the first and the last of each episode.
    site : str

    Returns
    -------
    DataFrame
        A row per episode: ``episode``, ``steps``; ``path_length`` and ``displacement`` (from the first latent to the
        last) in the units of the latents, and ``relative_length``, the path length over the root mean square distance
        of all latents to their mean, which can be compared between models; ``curvature``, the mean angle between
        successive steps in radians (NaN where there is none), the number of ``angles`` behind it, and of those
        ``undefined`` because the latent stood still.

    Raises
    ------
    LatentsError
        NaN or infinity; positions missing inside an episode; latents that are all alike.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> checkpoint = nlv.load("mess3/nextlat")
    >>> found = trajectory_shapes(nlv.extract(checkpoint, checkpoint.world.sample(3, 6, seed=0), progress=False))
    >>> found["steps"].tolist(), bool((found["path_length"] >= found["displacement"]).all())
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
        raise LatentsError(f"all latents at site {site!r} are alike: there is no way to follow")
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


def different_histories(latents: AnnData, by: str | Sequence[str] | None = None) -> Int[np.ndarray, " rows"]:
    """Rows of states that different histories lead to, one row for each history.

    A history is the tokens read. Episodes that begin alike have the very same latents there: they are one history.

    Parameters
    ----------
    latents : AnnData
    by : str or several, optional
        What makes a state; see `state_numbers`.

    Returns
    -------
    int array
        Row numbers, ascending; none where every state has one history.

    Raises
    ------
    LatentsError
        Rows that were sliced away, so that it is not known what was read before others.
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
    """Distance between latents of one state reached by two histories, over that between different states.

    The mean Euclidean distance over pairs of different histories (token prefixes) that lead to one true state, over
    the mean over pairs that lead to different ones: 0 where histories are merged into their state, 1 where latents
    know nothing of it. Other than `same_state_spread` it is not lowered by states that occur seldom.

    Parameters
    ----------
    latents : AnnData
        Of one model.
    by : str or several, optional
        What makes a state; see `state_numbers`.
    site : str
    pairs : int
        Pairs of each kind at most; where there are more, so many are drawn.
    seed : int
        Of the draw.

    Raises
    ------
    LatentsError
        No state with two histories, or a single state: there is nothing to compare; NaN or infinity; latents of
        different states that are all alike; rows sliced away, so that histories are not known.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> from nextlat_viz.latents.table import build
    >>> world = worlds.get("rrxor")
    >>> episodes = world.sample(40, 8, seed=0)
    >>> belief = world.belief(episodes.tokens)
    >>> meta = {"card": "{}", "weights_sha256": "0", "label": "ideal", "name": "rrxor/ideal/seed0", "step": 0}
    >>> merge_distance(build(belief, {}, episodes, world, meta, belief)) < 1e-6
    True
    """
    if pairs < 1:
        raise ValueError(f"pairs={pairs} must be at least 1")
    X, which = features(latents, site).astype(np.float64), state_numbers(latents, by)
    first = _histories(latents)
    X, which = X[first], which[first]
    rng = np.random.default_rng(seed)
    same, different = _same(which, pairs, rng), _different(which, pairs, rng)
    if len(same) == 0:
        raise LatentsError("no state is reached by two different histories: extract more episodes, or say by=...")
    if len(different) == 0:
        raise LatentsError("all histories lead to one state: there is no other to compare with; say by=...")
    apart = _mean_distance(X, different)
    if apart == 0:
        raise LatentsError(f"the latents of different states at site {site!r} are all alike")
    return _mean_distance(X, same) / apart


def _histories(latents: AnnData) -> Int[np.ndarray, " rows"]:
    """The first row of every token prefix, ascending."""
    tokens, position = tokens_of(latents), column(latents, "position")
    read = (np.cumsum(tokens >= 0, axis=1) == np.arange(1, tokens.shape[1] + 1))[episode_index(latents), position - 1]
    if not read.all():
        raise LatentsError(
            f"of {int((~read).sum())} rows the tokens read before are not in these latents, so histories cannot be "
            "told apart: extract with positions=slice(start, None) in place of selecting rows"
        )
    return np.sort(np.unique(prefixes(latents), return_index=True)[1])


def _same(which: Int[np.ndarray, " n"], most: int, rng: np.random.Generator) -> Int[np.ndarray, "pairs 2"]:
    """Pairs of rows of one state: all of them, or as many drawn uniformly from them, with replacement."""
    order = np.argsort(which, kind="stable")
    size = np.bincount(which)
    start, count = np.cumsum(size) - size, size * (size - 1) // 2
    if count.sum() <= most:
        found = [start[k] + np.stack(np.triu_indices(size[k], 1), axis=1) for k in np.flatnonzero(count)]
        return order[np.concatenate(found)] if found else np.empty((0, 2), np.int64)
    state = rng.choice(len(size), most, p=count / count.sum())
    one = rng.integers(size[state])
    other = rng.integers(size[state] - 1)
    return order[start[state][:, None] + np.stack([one, other + (other >= one)], axis=1)]


def _different(which: Int[np.ndarray, " n"], most: int, rng: np.random.Generator) -> Int[np.ndarray, "pairs 2"]:
    """Pairs of rows of different states: all of them, or as many drawn uniformly from them, with replacement."""
    n, size = len(which), np.bincount(which)
    if n * (n - 1) // 2 <= most:
        every = np.stack(np.triu_indices(n, 1), axis=1)
        return every[which[every[:, 0]] != which[every[:, 1]]]
    # The first with the weight of its partners; the partner by its place among the rows that are not of that state.
    partners = (n - size)[which]
    if partners.sum() == 0:
        return np.empty((0, 2), np.int64)
    order = np.argsort(which, kind="stable")
    start = np.cumsum(size) - size
    one = rng.choice(n, most, p=partners / partners.sum())
    place = rng.integers(partners[one])
    place += np.where(place >= start[which[one]], size[which[one]], 0)
    return np.stack([one, order[place]], axis=1)


def _mean_distance(X: Float[np.ndarray, "n dim"], pairs: Int[np.ndarray, "pairs 2"]) -> float:
    return float(np.linalg.norm(X[pairs[:, 0]] - X[pairs[:, 1]], axis=1).mean())
