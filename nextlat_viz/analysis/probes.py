"""Linear probes: how much of the truth a linear map can read from a latent.

A probe is honest only with its controls. It is fitted on some episodes and scored on others; episodes that read the
same tokens are kept on one side, because their latents are identical and would carry the answer across. Beside it
stand the same fit on shuffled targets and on the untrained model: a probe that scores well there has learned the
target by itself, or the tokens give it away, and says little about training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Int

from nextlat_viz.analysis._linear import Linear
from nextlat_viz.analysis._rows import contents, episode_index, features, prefixes, require_model, require_same_rows
from nextlat_viz.analysis._targets import target_of
from nextlat_viz.analysis.probe_result import ProbeResult
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents import table
from nextlat_viz.latents.table import column, meta

MIN_SEQUENCES = 5
MIN_UNSEEN = 30
# Exact functions of the tokens read: a perfect reader of the prefix has them all.
KNOWN_FROM_TOKENS = ("belief", "next_token_probs", "next_token_probs_exact", "token", "position")


def split_episodes(
    latents: AnnData, test_size: float = 0.3, seed: int = 0
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """Split the rows by episode, so that no held-out episode reads the tokens of a fitted one.

    Parameters
    ----------
    latents : AnnData
    test_size : float
        Share of the different token sequences to hold out, in (0, 1).
    seed : int

    Returns
    -------
    (train_rows, test_rows) : int arrays
        Row numbers, ascending; together all rows.

    Raises
    ------
    LatentsError
        Fewer than 5 different token sequences.
    """
    if not 0 < test_size < 1:
        raise ValueError(f"test_size must be a share between 0 and 1, got {test_size}: try 0.3")
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


def probe(
    latents: AnnData,
    target: str = "belief",
    site: str = "hidden",
    untrained: AnnData | None = None,
    min_position: int = 1,
    test_size: float = 0.3,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> ProbeResult:
    """Fit a linear probe on some episodes and score it on others.

    Numbers (an array of ``obsm``, a numeric column of ``obs``) are read by ridge regression, scored by R2; names
    (categories, booleans) by multinomial logistic regression, scored by accuracy. Columns are standardised first.

    Parameters
    ----------
    latents : AnnData
        Of one model.
    target : str
        "belief", "state", "token", or any other column or array of the latents.
    site : str
        Which latents: one of `latents.sites`, or "all" for every site side by side.
    untrained : AnnData, optional
        The same rows from the untrained model, for the control.
    min_position : int
        Leave out rows before this position (positions count from 1).
    test_size, n_bootstrap, seed
        Share of token sequences held out, bootstrap resamples of held-out episodes, and the seed of split, folds,
        shuffle and bootstrap.

    Returns
    -------
    ProbeResult

    Raises
    ------
    LatentsError
        Too few episodes, classes or rows; a constant target; NaN in latents or target; `untrained` of other rows.
    UnknownNameError
        No such column or site.

    Examples
    --------
    A model whose hidden state is a linear image of the belief, in a table built by hand:

    >>> from nextlat_viz import worlds
    >>> from nextlat_viz.latents.table import build
    >>> world = worlds.get("mess3")
    >>> episodes = world.sample(40, 8, seed=0)
    >>> belief = world.belief(episodes.tokens)
    >>> meta = {"card": "{}", "weights_sha256": "0", "label": "ideal", "name": "mess3/ideal/seed0", "step": 0}
    >>> latents = build(belief @ np.ones((3, 4)) + belief @ np.eye(3, 4), {}, episodes, world, meta, belief)
    >>> found = probe(latents, "belief")
    >>> round(found.score, 3), found.ceiling
    (1.0, 1.0)
    >>> found.predict(latents).shape
    (320, 3)
    """
    if n_bootstrap < 1:
        raise ValueError(f"n_bootstrap must be at least 1, got {n_bootstrap}")
    train, test = _rows_used(latents, min_position, test_size, seed)
    truth = target_of(latents, target, train, test)
    X, groups = features(latents, site), contents(latents)
    fitted = truth.fit(X, train, groups, seed)
    mistakes = truth.mistakes(fitted, X, test)

    moved, source = _swap_episodes(latents, train, test, seed)
    swapped = truth.swapped(moved, source)
    swapped_train, swapped_test = np.intersect1d(train, moved), np.intersect1d(test, moved)
    swapped_fit = swapped.fit(X, swapped_train, groups, seed)
    shuffled = swapped.score(swapped.mistakes(swapped_fit, X, swapped_test), swapped_test)

    untrained_score = None
    if untrained is not None:
        require_same_rows(latents, untrained, "the trained and the untrained latents")
        X0 = features(untrained, site)
        untrained_score = truth.score(truth.mistakes(truth.fit(X0, train, groups, seed), X0, test), test)

    prefix = prefixes(latents)
    new = ~np.isin(prefix[test], prefix[train])
    # New prefixes are mostly the later ones: their numbers still have ceiling 1, their classes another ceiling.
    unseen = truth.score(mistakes[new], test[new]) if truth.metric == "R2" and new.sum() >= MIN_UNSEEN else None

    episode = column(latents, "episode")
    its = meta(latents)
    return ProbeResult(
        target=target,
        site=site,
        metric=truth.metric,
        score=truth.score(mistakes, test),
        interval=truth.interval(mistakes, test, episode[test], n_bootstrap, seed),
        shuffled=shuffled,
        untrained=untrained_score,
        chance=truth.chance(train, test),
        ceiling=_ceiling(latents, target, test),
        unseen=unseen,
        unseen_rows=int(new.sum()),
        coef=fitted.coef,
        intercept=fitted.intercept,
        names=truth.names,
        penalty=fitted.penalty,
        train_rows=train,
        test_rows=test,
        train_episodes=np.unique(episode[train]),
        test_episodes=np.unique(episode[test]),
        min_position=min_position,
        seed=seed,
        label=its["label"],
        name=its["name"],
        step=its["step"],
        weights_sha256=its["weights_sha256"],
        episodes_sha256=its["episodes_sha256"],
    )


def probe_sites(
    latents: AnnData,
    target: str = "belief",
    untrained: AnnData | None = None,
    sites: Sequence[str] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Probe one site after another, on the same split.

    Parameters
    ----------
    latents, target, untrained
        As in `probe`.
    sites : sequence of str, optional
        Default: every site of the latents, in the order the model computes them. "all" reads them side by side.
    **options
        Handed to `probe`.

    Returns
    -------
    DataFrame
        One row per site: `ProbeResult.to_frame`.
    """
    chosen = table.sites(latents) if sites is None else list(sites)
    if not chosen:
        raise ValueError("sites is empty: name at least one site, or leave it out for all")
    frames = [probe(latents, target, name, untrained, **options).to_frame() for name in chosen]
    return pd.concat(frames, ignore_index=True)


def probe_positions(latents: AnnData, result: ProbeResult) -> pd.DataFrame:
    """Score one fitted probe position by position, on its held-out rows.

    Parameters
    ----------
    latents : AnnData
        The latents `result` was fitted on.
    result : ProbeResult

    Returns
    -------
    DataFrame
        ``position``, ``score`` (as in `result`, SST about the mean of that position; NaN where the target does not
        vary), ``rows``.
    """
    require_model(latents, result.weights_sha256, "probe")
    if meta(latents)["episodes_sha256"] != result.episodes_sha256 or result.test_rows.max() >= latents.n_obs:
        raise LatentsError("probe_positions needs the very latents the probe was fitted on")
    truth = target_of(latents, result.target, result.train_rows, result.test_rows)
    X = features(latents, result.site)
    fitted = Linear(result.coef, result.intercept, result.penalty)
    mistakes = truth.mistakes(fitted, X, result.test_rows)
    position = column(latents, "position")[result.test_rows]
    scores = []
    for at in np.unique(position):
        here = position == at
        score = truth.score(mistakes[here], result.test_rows[here])
        scores.append({"position": int(at), "score": score, "rows": int(here.sum())})
    return pd.DataFrame(scores)


def _rows_used(
    latents: AnnData, min_position: int, test_size: float, seed: int
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    position = column(latents, "position")
    train, test = (
        rows[position[rows] >= min_position] for rows in split_episodes(latents, test_size=test_size, seed=seed)
    )
    if min(train.size, test.size) == 0:
        raise LatentsError(
            f"no row is left from position {min_position} on: positions end at {position.max()}, lower min_position"
        )
    return train, test


def _swap_episodes(
    latents: AnnData, train: Int[np.ndarray, " train"], test: Int[np.ndarray, " test"], seed: int
) -> tuple[Int[np.ndarray, " moved"], Int[np.ndarray, " moved"]]:
    """Give each episode another one's rows, position by position, within each side of the split.

    Returns the rows that found a partner and the partners; an episode longer than its partner loses its end.
    """
    rng = np.random.default_rng(seed)
    index, position = episode_index(latents), column(latents, "position")
    partner = np.arange(index.max() + 1)
    for side in (train, test):
        its = np.unique(index[side])
        partner[its] = rng.permutation(its)
    row_at = np.full((partner.size, position.max() + 1), -1)
    used = np.concatenate([train, test])
    row_at[index[used], position[used]] = used
    source = row_at[partner[index[used]], position[used]]
    return used[source >= 0], source[source >= 0]


def _ceiling(latents: AnnData, target: str, rows: Int[np.ndarray, " rows"]) -> float | None:
    if target in KNOWN_FROM_TOKENS:
        return 1.0
    if target == "state" and "belief" in latents.obsm:
        return float(column(latents, "belief")[rows].max(axis=1).mean())
    return None
