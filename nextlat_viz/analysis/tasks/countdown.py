"""Countdown: which equations of a model's answers hold, and whether they come to the target."""

from __future__ import annotations

from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from nextlat_viz.analysis import _models
from nextlat_viz.analysis.measure import Measure, share
from nextlat_viz.analysis.tasks import _problems
from nextlat_viz.latents.extraction import HELDOUT_SEED
from nextlat_viz.worlds.countdown.world import Countdown


def equation_validity(
    models: Any, n: int = 200, *, temperature: float = 0.0, seed: int = HELDOUT_SEED, progress: bool = True
) -> Measure:
    """Share of valid equations, first to last, and of right answers, on problems with held-out targets.

    An equation is valid if it is true and takes numbers that are there (``world.verify``). A model that plans only
    the next token finds its first equations valid and is forced into a wrong last one, the "regretful compromise" (Ye
    et al. 2024, arXiv:2410.14157; NextLat, arXiv:2511.05963, section 5).

    Parameters
    ----------
    models : Checkpoint, Predictor or several
        Of the world Countdown.
    n : int
        Problems, of the test split.
    temperature : float
        0 takes the likeliest token, 1 samples.
    seed : int
        Of problems and sampling.
    progress : bool

    Returns
    -------
    Measure
        By part: ``"equation 1"``, ... and ``"answer"``, which is right if all equations are valid and the last comes
        to the target. Columns count why equations fail, in this order: ``malformed`` (missing ones too),
        ``unavailable`` (takes a number that is not there), ``untrue``; a right equation counts in none.

    Raises
    ------
    ValueError
        Models of another world; fewer than one problem.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> from nextlat_viz.decoding import WorldPredictor
    >>> world = worlds.get("countdown", numbers=3, largest=9, targets=(10, 20), limit=100)
    >>> found = equation_validity(WorldPredictor(world), n=8, temperature=1.0, progress=False)
    >>> found.table[["part", "value"]].values.tolist()
    [['equation 1', 1.0], ['equation 2', 1.0], ['answer', 1.0]]
    """
    predictors, world = _problems.of_world(models, Countdown, "equation validity", "countdown")
    problems = world.sample(_problems.check_n(n), seed=seed, split="test", states=False).tokens[:, : world.prompt]
    rows = []
    for predictor in tqdm(predictors, desc="countdown", unit="model", disable=not progress):
        tokens = _problems.answers(predictor, problems, world.length, world.end, temperature, seed)
        verdict = world.verify(tokens)
        for k in range(world.equations):
            formed, there, true = (one[:, k] for one in (verdict.well_formed, verdict.available, verdict.true))
            why = {"malformed": ~formed, "unavailable": formed & ~there, "untrue": there & ~true}
            counts = {name: int(failed.sum()) for name, failed in why.items()}
            valid = int(verdict.valid[:, k].sum())
            rows.append(_models.row(predictor, part=f"equation {k + 1}", **share(valid, n), **counts))
        rows.append(_models.row(predictor, part="answer", **share(int(verdict.solved.sum()), n)))
    return Measure(
        "equation validity",
        pd.DataFrame(rows).astype({"malformed": "Int64", "unavailable": "Int64", "untrue": "Int64"}),
        by=("part",),
        better="higher",
        references={"true world": 1.0},
        note=f"Countdown problems with held-out targets, {'greedy' if temperature == 0 else 'sampled'}. An equation is "
        "valid if it is true and takes numbers that are there. NextLat (arXiv:2511.05963), section 5.",
    )
