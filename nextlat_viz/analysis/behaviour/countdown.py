"""Countdown: whether the equations of a model are valid and reach the target."""

from __future__ import annotations

from nextlat_viz.analysis.episodes import answers
from nextlat_viz.analysis.measure import Models, Rows, measure, share
from nextlat_viz.errors import at_least
from nextlat_viz.latents.extraction import HELDOUT_SEED
from nextlat_viz.worlds.countdown.world import Countdown


@measure(
    "equation validity",
    by=("part",),
    better="higher",
    references={"true world": 1.0},
    fits=lambda checkpoint: isinstance(checkpoint.world, Countdown),
)
def equation_validity(models: Models, n: int = 200, *, temperature: float = 0.0, seed: int = HELDOUT_SEED) -> Rows:
    """Share of valid equations, first to last, and of right answers, on problems with held-out targets.

    An equation is valid if it is true and uses available numbers (``world.verify``). A model that plans only the next
    token makes valid equations first and is then forced into a wrong last one, the "regretful compromise" (Ye et al.
    2024, arXiv:2410.14157; NextLat, arXiv:2511.05963, section 5).

    Parameters
    ----------
    n : int
        Problems, of the test split.

    Returns
    -------
    Measure
        By part: ``"equation 1"``, ... and ``"answer"``, which is right if all equations are valid and the last result
        is the target. Columns count failed equations by the first reason that applies: ``malformed`` (or missing),
        ``unavailable`` (uses a number that is not available), ``untrue``.

    Raises
    ------
    ValueError
        Models of another world; fewer than one problem.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> world = worlds.get("countdown", numbers=3, largest=9, targets=(10, 20), limit=100)
    >>> valid = equation_validity(world, n=8, temperature=1.0, progress=False)
    >>> valid.table[["part", "value"]].values.tolist()
    [['equation 1', 1.0], ['equation 2', 1.0], ['answer', 1.0]]
    """
    world = models.world_of(Countdown, "countdown")
    prompts = world.sample(at_least("n", n), seed=seed, split="test", states=False).tokens[:, : world.prompt]
    for model in models:
        verdict = world.verify(answers(model, prompts, world.length, world.end, temperature, seed))
        for k in range(world.equations):
            formed, available = verdict.well_formed[:, k], verdict.available[:, k]
            reasons = {
                "malformed": ~formed,
                "unavailable": formed & ~available,
                "untrue": available & ~verdict.true[:, k],
            }
            counts = {reason: int(failed.sum()) for reason, failed in reasons.items()}
            yield model, {"part": f"equation {k + 1}", **share(int(verdict.valid[:, k].sum()), n), **counts}
        yield model, {"part": "answer", **share(int(verdict.solved.sum()), n)}
    decoding = "greedy" if temperature == 0 else "sampled"
    return {
        "note": f"Countdown problems with held-out targets, {decoding}. An equation is valid if it is true and uses "
        "available numbers. NextLat (arXiv:2511.05963), section 5."
    }
