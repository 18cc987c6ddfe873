"""Fit a linear probe on the latents of one model, score it on held-out episodes, and take its controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from nextlat_viz.analysis._rows import (
    contents,
    features,
    latents_of,
    prefixes,
    require_model,
    require_same_rows,
    sites_named,
    split_episodes,
    swap_episodes,
)
from nextlat_viz.analysis.probes.fit import Linear
from nextlat_viz.analysis.probes.result import ProbeResult, Shuffled
from nextlat_viz.analysis.probes.targets import MOST_CLASSES, Classes, Numbers, target_of
from nextlat_viz.errors import LatentsError, at_least
from nextlat_viz.latents.table import column, meta

MIN_UNSEEN = 30
_SLOW_CLASSES = 100
# Exact functions of the tokens read: a model that reads them could know all of these.
_KNOWN_FROM_TOKENS = ("belief", "next_token_probs", "next_token_probs_exact", "token", "position")


def probe(
    latents: Any,
    target: str = "belief",
    site: str = "hidden",
    untrained: Any = None,
    min_position: int = 0,
    test_size: float = 0.3,
    n_bootstrap: int = 200,
    seed: int = 0,
    most_classes: int = MOST_CLASSES,
    progress: bool = True,
) -> ProbeResult:
    """Fit a linear probe on some episodes and score it on others.

    Numbers (an array of ``obsm``, a numeric column of ``obs``) are read by ridge regression and scored by R2. Names
    (categories, booleans, integers that the world gives names to) are read by multinomial logistic regression and
    scored by accuracy; of several columns, such as the squares of a board, by the mean of their accuracies. The columns
    of the latents are standardised first.

    Parameters
    ----------
    latents : AnnData, Checkpoint or name
        Of one model. A checkpoint is extracted on its held-out episodes.
    target : str
        "belief", "state", "token", or any other column or array of the latents.
    site : str
        Which latents: one of `latents.sites`, or "all" for the concatenation of all sites.
    untrained : AnnData, Checkpoint or name, optional
        The same rows from the untrained model, for the control. A checkpoint is extracted as it was before its
        training, on its held-out episodes.
    min_position : int
        Leave out rows before this position.
    test_size : float
        Share of the token sequences to hold out.
    n_bootstrap : int
        Bootstrap resamples of the held-out episodes.
    seed : int
        Of split, folds, shuffle and bootstrap.
    most_classes : int
        Most classes told apart. Where a target has more names, such as the tokens of a real vocabulary, the rarest are
        one class, and the result's `note` says so. A small number makes a coarse target, which is fitted faster.
    progress : bool
        Show a progress bar over the fits of a target with more than 100 classes, which may take minutes.

    Raises
    ------
    LatentsError
        Too few episodes, classes or rows; a constant target; NaN in latents or target; `untrained` of other rows.
    UnknownNameError
        No such column or site.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> latents = nlv.extract(nlv.load("mess3/nextlat"), progress=False)
    >>> result = probe(latents, "belief")
    >>> bool(result.score > 0.9 > result.shuffled), result.ceiling
    (True, 1.0)
    >>> result.predict(latents[:5]).shape
    (5, 3)
    """
    n_bootstrap, seed = at_least("n_bootstrap", n_bootstrap), at_least("seed", seed, 0)
    most_classes = at_least("most_classes", most_classes, 2)
    min_position = at_least("min_position", min_position, 0)
    latents = latents_of(latents)
    position, episode = column(latents, "position"), column(latents, "episode")
    train, test = (
        rows[position[rows] >= min_position] for rows in split_episodes(latents, test_size=test_size, seed=seed)
    )
    if min(train.size, test.size) == 0:
        raise LatentsError(
            f"no row is left from position {min_position} on: positions end at {position.max()}, lower min_position"
        )
    truth = target_of(latents, target, train, test, most_classes)
    X, groups = features(latents, site), contents(latents)
    moved, source, shuffled_by = _shuffle(latents, truth, train, test, seed)
    swapped = truth.swapped(moved, source)
    swapped_train, swapped_test = np.intersect1d(train, moved), np.intersect1d(test, moved)
    untrained_score = None
    with tqdm(
        total=2 + (untrained is not None),
        desc=f"probe of {target}, {truth.classes} classes",
        unit="fit",
        disable=not progress or truth.classes <= _SLOW_CLASSES,
    ) as bar:
        fitted = truth.fit(X, train, groups, seed)
        mistakes = truth.mistakes(fitted, X, test)
        bar.update()
        swapped_fit = swapped.fit(X, swapped_train, groups, seed)
        shuffled = swapped.score(swapped.mistakes(swapped_fit, X, swapped_test), swapped_test)
        bar.update()
        if untrained is not None:
            untrained = latents_of(untrained, "untrained", untrained=True)
            require_same_rows(latents, untrained, "the trained and the untrained latents")
            X0 = features(untrained, site)
            untrained_score = truth.score(truth.mistakes(truth.fit(X0, train, groups, seed), X0, test), test)
            bar.update()

    prefix = prefixes(latents)
    new = ~np.isin(prefix[test], prefix[train])
    # Numbers only: the ceiling of classes differs on new prefixes, which are mostly late.
    unseen = truth.score(mistakes[new], test[new]) if truth.metric == "R2" and new.sum() >= MIN_UNSEEN else None

    about = meta(latents)
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
        columns=1 if truth.metric == "R2" else len(truth.columns),
        balanced=truth.balanced(mistakes, test),
        shuffled_by=shuffled_by,
        label=about["label"],
        name=about["name"],
        step=about["step"],
        weights_sha256=about["weights_sha256"],
        episodes_sha256=about["episodes_sha256"],
        most_classes=most_classes,
        merged=truth.merged,
    )


def probe_sites(
    latents: Any,
    target: str = "belief",
    untrained: Any = None,
    sites: str | Sequence[str] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Probe several sites on the same split.

    Parameters
    ----------
    latents, target, untrained
        As in `probe`.
    sites : str or several, optional
        Default: every site of the latents, in the order the model computes them. "all" is their concatenation.
    **options
        Passed to `probe`.

    Returns
    -------
    DataFrame
        One row per site: `ProbeResult.to_frame`.
    """
    latents = latents_of(latents)
    chosen = sites_named(latents, sites)
    frames = [probe(latents, target, name, untrained, **options).to_frame() for name in chosen]
    return pd.concat(frames, ignore_index=True)


def probe_positions(latents: AnnData, result: ProbeResult) -> pd.DataFrame:
    """Score one fitted probe position by position, on its held-out rows.

    Parameters
    ----------
    latents : AnnData
        The latents `result` was fitted on.

    Returns
    -------
    DataFrame
        ``position``, ``score`` (as in `result`, SST about the mean of that position; NaN where the target does not
        vary), ``rows``.
    """
    require_model(latents, result.weights_sha256, "probe")
    if meta(latents)["episodes_sha256"] != result.episodes_sha256 or result.test_rows.max() >= latents.n_obs:
        raise LatentsError("probe_positions needs the very latents the probe was fitted on, with all their rows")
    truth, mistakes = _mistakes(latents, result, result.test_rows)
    position = column(latents, "position")[result.test_rows]
    scores = []
    for at in np.unique(position):
        here = position == at
        score = truth.score(mistakes[here], result.test_rows[here])
        scores.append({"position": int(at), "score": score, "rows": int(here.sum())})
    return pd.DataFrame(scores)


def probe_mistakes(latents: AnnData, result: ProbeResult) -> Float[np.ndarray, " rows"]:
    """Return the mistake of a probe at every row of its latents: the squared error, or the share of wrong classes.

    Parameters
    ----------
    latents : AnnData
        The latents `result` was fitted on.
    """
    return _mistakes(latents, result, np.arange(latents.n_obs))[1].mean(axis=1)


def _mistakes(
    latents: AnnData, result: ProbeResult, rows: Int[np.ndarray, " rows"]
) -> tuple[Numbers | Classes, Float[np.ndarray, "rows columns"]]:
    truth = target_of(latents, result.target, result.train_rows, result.test_rows, result.most_classes)
    fitted = Linear(result.coef, result.intercept, result.penalty)
    return truth, truth.mistakes(fitted, features(latents, result.site), rows)


def _shuffle(
    latents: AnnData,
    truth: Numbers | Classes,
    train: Int[np.ndarray, " train"],
    test: Int[np.ndarray, " test"],
    seed: int,
) -> tuple[Int[np.ndarray, " moved"], Int[np.ndarray, " moved"], Shuffled]:
    """Pair each row with the row whose target it gets in the shuffled control.

    It is the row at the same position of another episode, so the control keeps what the position says of the target.
    Where the position fixes the target, this would change nothing, and rows are shuffled without regard to position.
    """
    moved, source = swap_episodes(latents, train, test, seed)
    if not truth.fixed(moved, source):
        return moved, source, "episodes"
    rng = np.random.default_rng(seed)
    return np.concatenate([train, test]), np.concatenate([rng.permutation(train), rng.permutation(test)]), "rows"


def _ceiling(latents: AnnData, target: str, rows: Int[np.ndarray, " rows"]) -> float | None:
    """Return the best possible score on some rows: 1 for functions of the tokens read; None where it is not known.

    For the state of a hidden Markov world it is the accuracy of the exact belief.
    """
    if target in _KNOWN_FROM_TOKENS:
        return 1.0
    if target == "state" and "belief" in latents.obsm:
        return float(column(latents, "belief")[rows].max(axis=1).mean())
    return None
