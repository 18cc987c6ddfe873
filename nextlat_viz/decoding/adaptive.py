"""How many tokens to draft: until another costs more than it saves."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from nextlat_viz.decoding.drafters import drafter_name, make_drafter
from nextlat_viz.decoding.predictor import ModelPredictor, as_predictor
from nextlat_viz.models import KVCache

MOST = 16
_EDGES = np.array([0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995])
_HOPED, _WEIGHT, _FADING = 0.9, 2.0, 0.995


@dataclass(frozen=True)
class DraftCosts:
    """What drafting costs, in passes of the transformer over one token.

    Attributes
    ----------
    draft : float
        Guessing one token.
    verify : float
        Reading one more token in a pass that is made anyway.
    start : float
        What a pass over several tokens costs more than that, however many: on a processor, a product of matrices over
        one of a matrix and a vector.

    Examples
    --------
    >>> from nextlat_viz.training import load
    >>> costs = DraftCosts.by_weights(ModelPredictor(load("rrxor/nextlat")))
    >>> 0 < costs.draft < 1
    True
    """

    draft: float
    verify: float
    start: float = 0.0

    def __post_init__(self) -> None:
        for name in ("draft", "verify", "start"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be a cost of at least 0, in passes over one token")

    @classmethod
    def by_weights(cls, predictor: ModelPredictor, drafter: str | None = None) -> DraftCosts:
        """Guessing costs its share of the weights, which is what decoding few rows spends its time on reading.

        Another token in a pass reads none, and is taken to cost 5 % of one. :func:`measure_costs` says what they cost
        here, but not twice the same.
        """
        its = make_drafter(predictor, drafter_name(predictor, drafter), 1)
        backbone = predictor.model.backbone
        drafted, read = (
            sum(weights.numel() for part in parts for weights in part.parameters())
            for parts in (its.parts(), [backbone.blocks, backbone.head])
        )
        return cls(drafted / read, 0.05)


@torch.inference_mode()
def measure_costs(
    model: Any, drafter: str | None = None, *, tokens: int = 8, rows: int = 1, repeats: int = 20
) -> DraftCosts:
    """Time what drafting costs on this machine, for so many rows at once.

    Parameters
    ----------
    model : Checkpoint or ModelPredictor
    drafter : str, optional
        Its own unless said.
    tokens : int
        Drafts verified at once, and guessed where the drafter can guess so many.
    rows : int
        Sequences read at once.
    repeats : int
        Of which the median counts.

    Raises
    ------
    ValueError
        If the model has no drafter, `tokens` is under 2, or ``tokens + 2`` do not fit the context.

    Examples
    --------
    >>> from nextlat_viz.training import load
    >>> measure_costs(load("rrxor/nextlat"), repeats=3).draft > 0
    True
    """
    predictor = as_predictor(model)
    if not isinstance(predictor, ModelPredictor):
        raise ValueError(f"{predictor.name} is no trained model, so it has nothing to draft with")
    backbone = predictor.model.backbone
    if tokens < 2 or tokens + 2 > backbone.config.context:
        raise ValueError(
            f"tokens={tokens} must be at least 2, and with two more fit the context, {backbone.config.context}"
        )
    name = drafter_name(predictor, drafter)
    ahead = min(tokens, make_drafter(predictor, name, rows).longest or tokens)
    like = backbone.head.weight
    cache, read = KVCache(backbone.config, rows, like), torch.zeros(rows, tokens + 1, dtype=torch.long).to(like.device)
    start = max(1, (backbone.config.context - tokens - 1) // 2)
    backbone(read[:, :1].expand(rows, start), cache=cache)

    def passes(t: int) -> torch.Tensor:
        hidden = backbone(read[:, :t], cache=cache)
        cache.truncate(start)
        return predictor.model.logits(hidden)

    hidden = backbone(read[:, :1])
    ones = torch.ones(rows, dtype=torch.long)

    def guesses() -> torch.Tensor:
        its = make_drafter(predictor, name, rows)
        its.read(hidden, ones)
        logits = its.begin(hidden[:, 0], read[:, 0])
        for _ in range(ahead - 1):
            logits = its.go_on(logits.argmax(dim=-1))
        return logits

    # What else the machine does is no cost of drafting; a processor's own clock leaves it out.
    clock = time.thread_time if like.device.type == "cpu" else time.perf_counter
    calls = (lambda: passes(1), lambda: passes(2), lambda: passes(tokens + 1), guesses)
    times = np.empty((repeats + 1, len(calls)))
    for repeat, which in np.ndindex(times.shape):
        started = clock()
        # Looking at a number waits for the device.
        float(calls[which]().flatten()[0])
        times[repeat, which] = clock() - started
    one, two, more, guessed = np.median(times[1:], axis=0).tolist()
    verify = max(0.0, more - two) / (tokens - 1) / one
    return DraftCosts(guessed / ahead / one, verify, max(0.0, two / one - 1 - verify))


class Adaptive:
    """Decides for every row and draft whether it pays.

    A pass costs 1 and gives one token, and one more for each draft that is accepted; guessing a token costs
    ``costs.draft``, verifying it ``costs.verify``, and the first draft of a step ``costs.start`` besides. With r the
    tokens per unit of cost so far, another draft pays as long as

        P(it and all before it are accepted) >= r (cost of the draft),

    which is the rule that maximises r (marginal value theorem; Charnov 1976): time spent on a draft must earn what
    time earns on average. The first has to pay for the start together with those that follow.

    The probability is that of the drafts before, times an estimate for this one: of the drafts so far at this place,
    and with as high a largest probability under the drafter, the share that was accepted, shrunk to that at all places.
    Before a token is guessed its largest probability is not known, and all of its place count. Drafts count less as
    steps go by, so that what did not pay is tried again.

    Whether draft i is made depends on what is before it, never on what it is, so the law of what comes out stays the
    model's own.

    Parameters
    ----------
    costs : DraftCosts
    most : int
        Most drafts in a step.

    Examples
    --------
    >>> policy = Adaptive(DraftCosts(draft=0.1, verify=0.05), most=2)
    >>> bool(policy.worth_guessing(0, np.ones(1))[0]), bool(policy.worth_guessing(1, np.full(1, 0.1))[0])
    (True, False)
    """

    def __init__(self, costs: DraftCosts, most: int) -> None:
        self.costs = costs
        self._tested, self._accepted = (np.zeros((most, len(_EDGES) + 1)) for _ in range(2))
        self._made = self._spent = 1.0
        self._estimate()

    @property
    def rate(self) -> float:
        """Tokens made per unit of cost."""
        return self._made / self._spent

    def worth_guessing(self, place: int, reach: Float[np.ndarray, " b"]) -> Bool[np.ndarray, " b"]:
        """Whether to ask the drafter for the draft at a place that is reached with this probability."""
        return np.full(len(reach), self._first) if place == 0 else reach >= self._least[place]

    def worth_verifying(self, chance: Float[np.ndarray, " b"]) -> Bool[np.ndarray, " b"]:
        """Whether to keep a draft, already guessed, that is accepted with this probability."""
        return chance >= self._verified

    def chance(self, place: int, confidence: Float[np.ndarray, " b"]) -> Float[np.ndarray, " b"]:
        """Probability that the draft at a place is accepted when those before it are."""
        return self._cells[place, np.searchsorted(_EDGES, confidence)]

    def learn(
        self,
        confidence: Float[np.ndarray, "b k"],
        counts: Int[np.ndarray, " b"],
        kept: Int[np.ndarray, " b"],
        guessed: int,
    ) -> None:
        """Take in one step: the drafts of each row and how many were kept, and how many places were guessed."""
        rows, places = np.nonzero(np.arange(confidence.shape[1]) < np.minimum(counts, kept + 1)[:, None])
        for seen in (self._tested, self._accepted):
            seen *= _FADING
        cells = places, np.searchsorted(_EDGES, confidence[rows, places])
        np.add.at(self._tested, cells, 1)
        np.add.at(self._accepted, cells, places < kept[rows])
        self._made += float(kept.sum()) + len(kept)
        self._spent += len(kept) * (1 + guessed * self.costs.draft)
        self._spent += float(counts.sum()) * self.costs.verify + float((counts > 0).sum()) * self.costs.start
        self._estimate()

    def _estimate(self) -> None:
        def shrunk(hits: Any, trials: Any, to: Any) -> Any:
            return (hits + _WEIGHT * to) / (trials + _WEIGHT)

        anywhere = shrunk(self._accepted.sum(axis=0), self._tested.sum(axis=0), _HOPED)
        self._cells = shrunk(self._accepted, self._tested, anywhere)
        overall = shrunk(self._accepted.sum(), self._tested.sum(), _HOPED)
        self._at = shrunk(self._accepted.sum(axis=1), self._tested.sum(axis=1), overall)
        # Asked for every draft, so worked out once a step.
        each = self.rate * (self.costs.draft + self.costs.verify)
        self._first = bool(np.cumsum(np.cumprod(self._at) - each).max() >= self.rate * self.costs.start)
        self._least, self._verified = each / self._at, self.rate * self.costs.verify
