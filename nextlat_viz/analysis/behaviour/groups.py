"""Word problems of groups: whether a model tracks the state past its training length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool

from nextlat_viz.analysis.measure import Models, Rows, measure, several, share
from nextlat_viz.analysis.psi import batches, readers
from nextlat_viz.decoding.predictor import ModelPredictor, Predictor
from nextlat_viz.errors import at_least
from nextlat_viz.latents.extraction import HELDOUT_SEED
from nextlat_viz.worlds import Episodes
from nextlat_viz.worlds.groups import GroupWorld


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
    asked = range(1, 4 * models.context + 1 if models.context else 37) if lengths is None else several(lengths)
    lengths = sorted({at_least("lengths", length) for length in asked})
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


@torch.no_grad()
def _right(predictor: Predictor, episodes: Episodes) -> dict[str, Bool[np.ndarray, "n t"]]:
    """Tell whether the likeliest label is right, by episode and token, for each reader."""
    if not isinstance(predictor, ModelPredictor):
        return {predictor.objective: predictor.next_token_probs(episodes.tokens).argmax(axis=-1) == episodes.targets}
    parts: dict[str, list[np.ndarray]] = {}
    all_readers = readers(predictor, episodes.tokens.shape[1])
    for _, batch in batches(predictor, episodes):
        for reader, read in all_readers.items():
            right = predictor.model.logits(read(batch.inputs)).argmax(dim=-1) == batch.targets
            parts.setdefault(reader, []).append(right[:, predictor.model.backbone.offset :].cpu().numpy())
    return {reader: np.concatenate(pieces) for reader, pieces in parts.items()}
