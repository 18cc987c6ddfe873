"""Path-Star: whether a model finds the path and chooses the right arm."""

from __future__ import annotations

from collections.abc import Sequence

from nextlat_viz.analysis.episodes import answers
from nextlat_viz.analysis.measure import Models, Rows, measure, several, share
from nextlat_viz.errors import at_least, unknown
from nextlat_viz.latents.extraction import HELDOUT_SEED
from nextlat_viz.worlds.path_star import PathStar

GREEDY, SAMPLED = "greedy", "sampled"


@measure(
    "path accuracy",
    by=("part", "decoding"),
    better="higher",
    solved=0.99,
    fits=lambda checkpoint: isinstance(checkpoint.world, PathStar),
)
def path_accuracy(
    models: Models, decodings: str | Sequence[str] = (GREEDY, SAMPLED), n: int = 500, *, seed: int = HELDOUT_SEED
) -> Rows:
    """Share of held-out problems whose path is exactly right, and of right decisions at the branch.

    The first node of an answer is the start, copied from the prompt; the second decides the arm, and every later node
    follows from the list of edges. A model that has not learned to look ahead chooses an arm by chance, 1 / d (Bachmann
    & Nagarajan 2024, arXiv:2403.06963).

    Parameters
    ----------
    decodings : "greedy", "sampled" or both
        Take the likeliest token, or sample at temperature 1.
    n : int
        Problems, of the test split.

    Returns
    -------
    Measure
        By part and decoding: ``"path"``, all nodes from the start to the goal are right, with or without an end after
        them, and ``"branch"``, the node after the start is right. Columns ``wrong_start``, answers that do not begin at
        the start, and ``not_ended``, right paths without an end.

    Raises
    ------
    UnknownNameError
        No such decoding.
    ValueError
        Models of another world; fewer than one problem.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> world = worlds.get("path_star:arms=2,nodes_per_arm=3,train_size=1000,test_size=100")
    >>> accuracy = path_accuracy(world, n=16, progress=False)
    >>> accuracy.table["value"].tolist(), accuracy.references
    ([1.0, 1.0, 1.0, 1.0], {'chance': 0.5})
    """
    decodings = several(decodings)
    for decoding in decodings:
        if decoding not in (GREEDY, SAMPLED):
            raise unknown("decoding", decoding, (GREEDY, SAMPLED))
    world = models.world_of(PathStar, "path_star")
    problems = world.sample(at_least("n", n), seed=seed, split="test", states=False).tokens
    prompts, true = problems[:, : world.prompt], problems[:, world.prompt : -1]
    end = world.vocabulary.index("end")
    for model in models:
        for decoding in decodings:
            temperature = 0.0 if decoding == GREEDY else 1.0
            tokens = answers(model, prompts, world.length, end, temperature, seed)[:, world.prompt :]
            same = tokens[:, :-1] == true
            exact = same.all(axis=1)
            counts = {
                "wrong_start": int((~same[:, 0]).sum()),
                "not_ended": int((exact & (tokens[:, -1] != end)).sum()),
            }
            for part, right in (("path", exact), ("branch", same[:, 1])):
                yield model, {"part": part, "decoding": decoding, **share(int(right.sum()), n), **counts}
    return {
        "references": {"chance": 1 / world.arms},
        "note": f"G({world.arms}, {world.nodes_per_arm}), held-out graphs. The branch is the node after the start, the "
        "only decision in the path. Bachmann & Nagarajan 2024; NextLat (arXiv:2511.05963), section 5.",
    }
