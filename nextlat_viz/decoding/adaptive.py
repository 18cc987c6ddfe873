"""Adaptive drafting: draft another token as long as it is expected to save more than it costs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from nextlat_viz.decoding.drafters import drafter_name, make_drafter
from nextlat_viz.decoding.predictor import ModelPredictor, as_predictor
from nextlat_viz.training.checkpoint import torch_defaults

MOST = 16
# Bins of the drafter's largest probability, narrow near 1, where most drafts are.
_EDGES = np.array([0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995])
# The acceptance assumed before any draft was tested, the number of tests it counts as, and the factor by which the
# weight of earlier tests falls in each step.
_PRIOR, _PRIOR_WEIGHT, _DECAY = 0.9, 2.0, 0.995


@dataclass(frozen=True)
class DraftCosts:
    """Costs of drafting, in passes of the transformer over one token.

    Attributes
    ----------
    draft : float
        Cost of guessing one token.
    verify : float
        Cost of reading one more token in the same pass.
    start : float
        Fixed extra cost of a pass over several tokens: on a CPU, of matrix products over matrix-vector products.

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
        """Estimate the cost of guessing by its share of the weights: decoding few rows mostly reads weights.

        A further token in a pass reads no weights; it is assumed to cost 5 % of a pass. :func:`measure_costs` measures
        both on this machine, with results that vary from call to call.
        """
        guesser = make_drafter(predictor, drafter_name(predictor, drafter), 1)
        backbone = predictor.model.backbone
        drafted, read = (
            sum(weights.numel() for part in parts for weights in part.parameters())
            for parts in (guesser.parts(), [backbone.blocks, backbone.head])
        )
        return cls(drafted / read, 0.05)


@torch_defaults()
@torch.inference_mode()
def measure_costs(
    model: Any, drafter: str | None = None, *, tokens: int = 8, rows: int = 1, repeats: int = 20
) -> DraftCosts:
    """Measure the costs of drafting on this machine, for a number of rows at once.

    Parameters
    ----------
    model : Checkpoint or ModelPredictor
    drafter : str, optional
        Default: that of the model's objective.
    tokens : int
        Drafts verified at once; also guessed at once, where the drafter can.
    rows : int
        Sequences read at once.
    repeats : int
        Timed runs; their median counts.

    Raises
    ------
    ValueError
        If the model has no drafter, `tokens` is under 2, or ``tokens + 2`` is more than the context.

    Examples
    --------
    >>> from nextlat_viz.training import load
    >>> measure_costs(load("rrxor/nextlat"), repeats=3).draft > 0
    True
    """
    predictor = as_predictor(model)
    if not isinstance(predictor, ModelPredictor):
        raise ValueError(f"{predictor.name} is not a trained model, so it has nothing to draft with")
    backbone = predictor.model.backbone
    context = predictor.context or tokens + 2
    if tokens < 2 or tokens + 2 > context:
        raise ValueError(f"tokens={tokens} must be at least 2, and with two more fit the context, {context}")
    name = drafter_name(predictor, drafter)
    ahead = min(tokens, make_drafter(predictor, name, rows).longest or tokens)
    like = backbone.head.weight
    cache, read = backbone.cache(rows), torch.zeros(rows, tokens + 1, dtype=torch.long).to(like.device)
    start = max(1, (context - tokens - 1) // 2)
    backbone(backbone.started(read[:, :1].expand(rows, start)), cache=cache)
    held = cache.length

    def passes(t: int) -> torch.Tensor:
        hidden = backbone(read[:, :t], cache=cache)
        cache.truncate(held)
        return predictor.model.logits(hidden)

    hidden = backbone(read[:, :1])
    ones = torch.ones(rows, dtype=torch.long)

    def guesses() -> torch.Tensor:
        guesser = make_drafter(predictor, name, rows)
        guesser.read(hidden, ones)
        logits = guesser.begin(hidden[:, 0], read[:, 0])
        for _ in range(ahead - 1):
            logits = guesser.go_on(logits.argmax(dim=-1))
        return logits

    # On a CPU the thread's own clock, which other processes on the machine do not change.
    clock = time.thread_time if like.device.type == "cpu" else time.perf_counter
    calls = (lambda: passes(1), lambda: passes(2), lambda: passes(tokens + 1), guesses)
    times = np.empty((repeats + 1, len(calls)))
    for repeat, which in np.ndindex(times.shape):
        started = clock()
        # Reading a number waits until the device has finished.
        float(calls[which]().flatten()[0])
        times[repeat, which] = clock() - started
    # Without the first repeat, which warms up.
    single, double, many, guessed = np.median(times[1:], axis=0).tolist()
    verify = max(0.0, many - double) / (tokens - 1) / single
    return DraftCosts(guessed / ahead / single, verify, max(0.0, double / single - 1 - verify))


class Adaptive:
    """Decides for every row and place whether drafting another token is worth its cost.

    A pass costs 1 and gives one token, and one more for each accepted draft; guessing a token costs ``costs.draft``,
    verifying it ``costs.verify``, and the first draft of a step also ``costs.start``. With r the tokens per unit of
    cost so far, another draft is worthwhile as long as

        P(it and all drafts before it are accepted) >= r (cost of the draft),

    which maximises r (marginal value theorem; Charnov 1976): a draft must earn at least the average rate. The first
    draft must earn the start cost together with the drafts after it.

    The probability is that of the drafts before, times an estimate for this draft: the share accepted among earlier
    drafts at this place whose largest probability under the drafter was similar, shrunk towards the share at all
    places. Before a token is guessed its largest probability is unknown, and all drafts at its place count. Earlier
    drafts lose weight with every step, so that a place that did not pay is tried again.

    Whether draft i is made depends on the tokens before it and never on its own value, so the distribution of the
    output stays the model's.

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
        """Tokens generated per unit of cost."""
        return self._made / self._spent

    def worth_guessing(self, place: int, reach: Float[np.ndarray, " b"]) -> Bool[np.ndarray, " b"]:
        """Whether to guess the draft at a place whose earlier drafts are all accepted with this probability."""
        return np.full(len(reach), self._first) if place == 0 else reach >= self._least[place]

    def worth_verifying(self, chance: Float[np.ndarray, " b"]) -> Bool[np.ndarray, " b"]:
        """Whether to verify a guessed draft that is accepted with this probability."""
        return chance >= self._verified

    def chance(self, place: int, confidence: Float[np.ndarray, " b"]) -> Float[np.ndarray, " b"]:
        """Probability that the draft at a place is accepted, given that those before it are."""
        return self._cells[place, np.searchsorted(_EDGES, confidence)]

    def learn(
        self,
        confidence: Float[np.ndarray, "b k"],
        counts: Int[np.ndarray, " b"],
        kept: Int[np.ndarray, " b"],
        guessed: int,
    ) -> None:
        """Update the estimates with a step: drafts of each row, drafts accepted, places guessed."""
        # The first rejected draft was tested too; those after it were not.
        rows, places = np.nonzero(np.arange(confidence.shape[1]) < np.minimum(counts, kept + 1)[:, None])
        for seen in (self._tested, self._accepted):
            seen *= _DECAY
        cells = places, np.searchsorted(_EDGES, confidence[rows, places])
        np.add.at(self._tested, cells, 1)
        np.add.at(self._accepted, cells, places < kept[rows])
        self._made += float(kept.sum()) + len(kept)
        self._spent += len(kept) * (1 + guessed * self.costs.draft)
        self._spent += float(counts.sum()) * self.costs.verify + float((counts > 0).sum()) * self.costs.start
        self._estimate()

    def _estimate(self) -> None:
        """Compute the acceptance of every place and bin, and the thresholds, from the counts."""

        def shrunk(hits: Any, trials: Any, to: Any) -> Any:
            return (hits + _PRIOR_WEIGHT * to) / (trials + _PRIOR_WEIGHT)

        anywhere = shrunk(self._accepted.sum(axis=0), self._tested.sum(axis=0), _PRIOR)
        self._cells = shrunk(self._accepted, self._tested, anywhere)
        overall = shrunk(self._accepted.sum(), self._tested.sum(), _PRIOR)
        self._at = shrunk(self._accepted.sum(axis=1), self._tested.sum(axis=1), overall)
        # Used for every draft, so computed once per step.
        each = self.rate * (self.costs.draft + self.costs.verify)
        self._first = bool(np.cumsum(np.cumprod(self._at) - each).max() >= self.rate * self.costs.start)
        self._least, self._verified = each / self._at, self.rate * self.costs.verify
