"""Path-Star: whether a model finds the path, and whether it sets out along the right arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from nextlat_viz.analysis import _models
from nextlat_viz.analysis.measure import Measure, share
from nextlat_viz.analysis.tasks import _problems
from nextlat_viz.errors import unknown
from nextlat_viz.latents.extraction import HELDOUT_SEED
from nextlat_viz.worlds.path_star import PathStar

SOLVED = 0.99
GREEDY, SAMPLED = "greedy", "sampled"


def path_accuracy(
    models: Any,
    decodings: Sequence[str] = (GREEDY, SAMPLED),
    n: int = 500,
    *,
    seed: int = HELDOUT_SEED,
    progress: bool = True,
) -> Measure:
    """Share of held-out problems whose path is exactly right, and of right decisions at the branch.

    The first node of an answer is the start, a copy from the prompt; the one after it decides the arm, and every later
    one follows from the list of edges. A model that has not learned to look ahead takes an arm by chance, 1 / d
    (Bachmann & Nagarajan 2024, arXiv:2403.06963).

    Parameters
    ----------
    models : Checkpoint, Predictor or several
        Of the world Path-Star.
    decodings : "greedy", "sampled" or both
        The likeliest token, or a draw from the model's own distribution (temperature 1).
    n : int
        Problems, of the test split.
    seed : int
        Of problems and sampling.
    progress : bool

    Returns
    -------
    Measure
        By part and decoding: ``"path"``, all nodes from the start to the goal are right (whether the end follows is
        not asked), and ``"branch"``, the node after the start is. Columns ``wrong_start``, answers that do not even
        begin at the start, and ``not_ended``, right paths without an end after them. All runs are there: they solve
        the task or stay near chance.

    Raises
    ------
    UnknownNameError
        No such decoding.
    ValueError
        Models of another world; fewer than one problem.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> from nextlat_viz.decoding import WorldPredictor
    >>> world = worlds.get("path_star:arms=2,nodes_per_arm=3,train_size=1000,test_size=100")
    >>> found = path_accuracy(WorldPredictor(world), n=16, progress=False)
    >>> found.table["value"].tolist(), found.references
    ([1.0, 1.0, 1.0, 1.0], {'chance': 0.5})
    """
    decodings = [decodings] if isinstance(decodings, str) else list(decodings)
    for decoding in decodings:
        if decoding not in (GREEDY, SAMPLED):
            raise unknown("decoding", decoding, (GREEDY, SAMPLED))
    predictors, world = _problems.of_world(models, PathStar, "path accuracy", "path_star")
    problems = world.sample(_problems.check_n(n), seed=seed, split="test", states=False).tokens
    true = problems[:, world.prompt : -1]
    end = world.vocabulary.index("end")
    rows = []
    for predictor in tqdm(predictors, desc="path-star", unit="model", disable=not progress):
        for decoding in decodings:
            temperature = 0.0 if decoding == GREEDY else 1.0
            prompts = problems[:, : world.prompt]
            tokens = _problems.answers(predictor, prompts, world.length, end, temperature, seed)[:, world.prompt :]
            same = tokens[:, :-1] == true
            exact = same.all(axis=1)
            counts = {
                "wrong_start": int((~same[:, 0]).sum()),
                "not_ended": int((exact & (tokens[:, -1] != end)).sum()),
            }
            for part, right in (("path", exact), ("branch", same[:, 1])):
                where = {"part": part, "decoding": decoding}
                found = share(int(right.sum()), n) | counts
                rows.append(_models.row(predictor, **where, **found))
    return Measure(
        "path accuracy",
        pd.DataFrame(rows),
        by=("part", "decoding"),
        better="higher",
        references={"chance": 1 / world.arms},
        solved=SOLVED,
        note=f"G({world.arms}, {world.nodes_per_arm}), held-out graphs. The branch is the node after the start, "
        "the one decision there is. Bachmann & Nagarajan 2024; NextLat (arXiv:2511.05963), section 5.",
    )
