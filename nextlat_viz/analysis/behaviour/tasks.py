"""Tasks with a right answer: equations of Countdown, paths of Path-Star, and running products of groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from nextlat_viz.analysis.dynamics import readers
from nextlat_viz.analysis.episodes import answers, over_batches
from nextlat_viz.analysis.measure import Models, Rows, measure, several, share
from nextlat_viz.decoding.predictor import ModelPredictor, Predictor
from nextlat_viz.errors import at_least, one_of
from nextlat_viz.latents.extraction import HELDOUT_SEED
from nextlat_viz.models import Batch
from nextlat_viz.worlds import Episodes
from nextlat_viz.worlds.countdown.world import Countdown
from nextlat_viz.worlds.groups import GroupWorld
from nextlat_viz.worlds.path_star import PathStar

GREEDY, SAMPLED = "greedy", "sampled"


@measure(
    "equation validity",
    by=("part",),
    better="higher",
    references={"true world": 1.0},
    fits=lambda checkpoint: isinstance(checkpoint.world, Countdown),
)
def equation_validity(models: Models, n: int = 200, *, temperature: float = 0.0, seed: int = HELDOUT_SEED) -> Rows:
    """Share of valid equations, first to last, and of right answers, on held-out problems.

    Held-out problems have targets that were not in training. Where the world has one target, as in the 24 game,
    their inputs were not in training.

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
        "note": f"Held-out Countdown problems, {decoding}. An equation is valid if it is true and uses "
        "available numbers. NextLat (arXiv:2511.05963), section 5."
    }


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
        one_of("decoding", decoding, (GREEDY, SAMPLED))
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


@measure(
    "state tracking",
    by=("length", "reader"),
    better="higher",
    note="The running product of a group's elements, after this many tokens; psi reads alone from the beginning "
    "(NextLat, arXiv:2511.05963, section 5).",
    fits=lambda checkpoint: isinstance(checkpoint.world, GroupWorld),
)
def state_tracking(
    models: Models, lengths: int | Sequence[int] | None = None, n: int = 500, *, seed: int = HELDOUT_SEED
) -> Rows:
    """Share of right labels after a number of tokens, of the transformer and of psi rolled from its first state.

    The label is the product of all tokens so far. Past its training length the transformer meets positions it was never
    trained on. Psi starts from the transformer's state at position 0, or after the first token where the model has no
    start token, and reads the other tokens as a recurrent network (NextLat, arXiv:2511.05963, section 5: trained at 12
    tokens and tested at 36, only psi stays above 95%).

    Parameters
    ----------
    lengths : int or several, optional
        Tokens read; by default every length up to four times the training length, or up to 36 where there is none.
    n : int
        Episodes, of the test split where there is one, each as long as the longest of `lengths`.

    Returns
    -------
    Measure
        By length and reader, ``"transformer"`` or ``"psi"`` (for other predictors, their objective): the share of right
        labels at that token. Columns ``all_right``, the share of episodes that are right there and at every token
        before, and ``trained``, whether the length is within the context. Models without psi have no row for it.

    Raises
    ------
    ValueError
        Models of another world; lengths under 1; fewer than one episode.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> tracked = state_tracking(worlds.get("a5"), lengths=(12, 36), n=8, progress=False)
    >>> tracked.table[["length", "reader", "value"]].values.tolist()
    [[12, 'true world', 1.0], [36, 'true world', 1.0]]
    """
    world = models.world_of(GroupWorld, "a5")
    default = range(1, 4 * models.context + 1 if models.context else 37)
    chosen = default if lengths is None else several(lengths)
    lengths = sorted({at_least("lengths", length) for length in chosen})
    if not lengths:
        raise ValueError("lengths is empty: give at least one number of tokens")
    # The first tokens decide whether an episode is in the test split, so none is shorter.
    longest = max(world.opening, lengths[-1])
    episodes = world.sample(at_least("n", n), longest, seed=seed, split=world.splits[-1], states=False)
    for model in models:
        for reader, right in _right(model, episodes).items():
            so_far = right.cumsum(axis=1) == np.arange(1, right.shape[1] + 1)
            for length in lengths:
                within = model.context is None or length <= model.context
                score = share(int(right[:, length - 1].sum()), n) | {"all_right": float(so_far[:, length - 1].mean())}
                yield model, {"length": length, "reader": reader, "trained": within, **score}
    return {"references": {"chance": 1 / len(world.vocabulary)}}


def _right(predictor: Predictor, episodes: Episodes) -> dict[str, Bool[np.ndarray, "n t"]]:
    """Tell whether the likeliest label is right, by episode and token, for each reader."""
    if not isinstance(predictor, ModelPredictor):
        return {predictor.objective: predictor.next_token_probs(episodes.tokens).argmax(axis=-1) == episodes.targets}
    model, all_readers = predictor.model, readers(predictor, episodes.tokens.shape[1])

    def right(rows: slice, batch: Batch) -> dict[str, list[Tensor]]:
        labels = {reader: model.logits(read(batch.inputs)).argmax(dim=-1) for reader, read in all_readers.items()}
        return {reader: [(label == batch.targets)[:, model.backbone.offset :]] for reader, label in labels.items()}

    return {reader: array for reader, (array,) in over_batches(predictor, episodes, right).items()}
