"""Drafters, which guess the next tokens cheaply (psi of NextLat, heads of MTP, Fetch of JTP), and how many to draft."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nextlat_viz.decoding.predictor import ModelPredictor, as_predictor
from nextlat_viz.errors import unknown
from nextlat_viz.models import JointToken, KVCache, MultiToken, NextLat, Objective
from nextlat_viz.models.torch_state import torch_defaults

MOST = 16
_PRIOR, _WEIGHT = 0.9, 2.0  # acceptance assumed before any draft is tested, and the number of tests it counts as
_PLACE_WEIGHT = 3.0  # at each place, the acceptance over all places counts as this many tests
_DECAY = 0.98  # share of their weight that earlier tests keep after each step
_MARGIN = 0.02  # the length changes only for a rate better by this share


class Drafter(ABC):
    """Guesses the next tokens one by one, starting from the transformer's last state.

    Attributes
    ----------
    longest : int or None
        Most tokens it can guess in a row; None where there is no limit.
    """

    longest: int | None = None

    def __init__(self, model: Objective, rows: int) -> None:
        self.model, self.backbone = model, model.backbone

    def read(self, hidden: Float[Tensor, "b t dim"], counts: Int[Tensor, " b"]) -> None:
        """Take in the transformer's states of further tokens, the first `counts` of each row."""
        return None

    @abstractmethod
    def begin(self, hidden: Float[Tensor, "b dim"], token: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
        """Return the logits of the first draft, from the transformer's last state and the known token after it."""

    @abstractmethod
    def go_on(self, token: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
        """Return the logits of the next draft, given the draft before it."""

    def keep(self, rows: Bool[Tensor, " b"]) -> None:
        """Keep some of the rows."""
        return None

    @abstractmethod
    def parts(self) -> list[nn.Module]:
        """Return the modules that one draft runs, for the estimate of its cost."""


class Psi(Drafter):
    """Rolls the latent dynamics: logits = head(h^), h^ = psi(h^, x). It may go past its training horizon."""

    model: NextLat

    def begin(self, hidden: Float[Tensor, "b dim"], token: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
        self._hidden = self.model.psi(hidden, self.backbone.embed(token))
        return self.model.draft_logits(self._hidden)

    def go_on(self, token: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
        return self.begin(self._hidden, token)

    def parts(self) -> list[nn.Module]:
        return [self.model.psi, self.model.draft_head]


class Heads(Drafter):
    """MTP's heads: draft i comes from head i and the transformer's states; it does not depend on earlier drafts.

    A head is a transformer layer over all states so far, so the heads have their own key-value cache.
    """

    model: MultiToken

    def __init__(self, model: MultiToken, rows: int) -> None:
        super().__init__(model, rows)
        self.longest = model.horizon
        config = self.backbone.config.model_copy(update={"layers": model.horizon})
        self._cache = KVCache(config, rows, self.backbone.head.weight)

    def read(self, hidden: Float[Tensor, "b t dim"], counts: Int[Tensor, " b"]) -> None:
        mask, rotation = self._cache.begin(hidden.shape[1], counts, self.backbone.rotation)
        rows, last = torch.arange(len(hidden)), counts - 1
        self._ahead = [
            head(hidden, rotation, mask, self._cache, i)[rows, last] for i, head in enumerate(self.model.heads)
        ]
        self._cache.end()

    def begin(self, hidden: Float[Tensor, "b dim"], token: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
        self._place = -1
        return self.go_on(token)

    def go_on(self, token: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
        self._place += 1
        return self.model.logits(self.model.norms[self._place](self._ahead[self._place]))

    def keep(self, rows: Bool[Tensor, " b"]) -> None:
        self._cache.keep(rows)
        self._ahead = [states[rows] for states in self._ahead]

    def parts(self) -> list[nn.Module]:
        return [self.model.heads[0], self.backbone.head]


class Fetch(Drafter):
    """JTP's Fetch over the transformer's last state and the tokens after it, drafts included."""

    model: JointToken

    def __init__(self, model: JointToken, rows: int) -> None:
        super().__init__(model, rows)
        self.longest = model.horizon

    def begin(self, hidden: Float[Tensor, "b dim"], token: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
        self._window = hidden[:, None]
        return self.go_on(token)

    def go_on(self, token: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
        self._window = window = torch.cat([self._window, self.backbone.embed(token)[:, None]], dim=1)
        rotation = self.backbone.rotation[:, : window.shape[1]]
        fetched = window[:, -1] + self.model.fetch(self.model.norm_in(window), rotation, None, None, 0)[:, -1]
        return self.model.logits(self.model.norm_out(fetched))

    def parts(self) -> list[nn.Module]:
        return [self.model.fetch, self.backbone.head]


DRAFTERS: dict[str, tuple[type[Objective], type[Drafter]]] = {
    "psi": (NextLat, Psi),
    "mtp": (MultiToken, Heads),
    "jtp": (JointToken, Fetch),
}


def drafter_name(predictor: ModelPredictor, name: str | None = None) -> str:
    """Return the name of the drafter that a model's objective trains; a ValueError if there is none, or not `name`."""
    if name is not None and name not in DRAFTERS:
        raise unknown("drafter", name, DRAFTERS)
    own = next((known for known, (kind, _) in DRAFTERS.items() if isinstance(predictor.model, kind)), None)
    if own is None:
        objectives = ", ".join(f"{kind.name} ({known})" for known, (kind, _) in DRAFTERS.items())
        raise ValueError(
            f"{predictor.name} was trained by {predictor.objective}, which has nothing to draft tokens with: use a "
            f"model trained by one of {objectives}, or generate()"
        )
    if name not in (None, own):
        raise ValueError(
            f"drafter={name!r} needs a model trained by {DRAFTERS[str(name)][0].name}, and {predictor.name} was "
            f"trained by {predictor.objective}: leave drafter out, or give {own!r}"
        )
    return own


def make_drafter(predictor: ModelPredictor, name: str, rows: int) -> Drafter:
    """Return a drafter for a number of rows."""
    return DRAFTERS[name][1](predictor.model, rows)


def check_draft(predictor: ModelPredictor, draft: int, longest: int | None) -> int:
    """Return `draft`; a ValueError if it is under 1, more than the drafter can guess, or more than fit the context."""
    if isinstance(draft, bool) or not isinstance(draft, int) or draft < 1:
        raise ValueError(
            f"draft={draft!r} must be at least 1 token, or 'adaptive'; to decode without drafts use generate()"
        )
    if longest is not None and draft > longest:
        raise ValueError(
            f"draft={draft} is more than the {longest} tokens after the next that {predictor.name} was trained to "
            f"predict, and {predictor.objective} cannot guess past its horizon: draft at most {longest}, or use a "
            "model trained by nextlat, whose psi has no limit"
        )
    context = predictor.context
    if context is not None and draft >= context:
        raise ValueError(
            f"draft={draft} does not fit the context of {predictor.name}, {context}: a pass reads one token and the "
            f"drafts after it, so draft at most {context - 1}"
        )
    return draft


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
    def by_weights(cls, predictor: ModelPredictor, drafter: str | None = None, rows: int = 1) -> DraftCosts:
        """Estimate the cost of guessing by its share of the weights: decoding few rows mostly reads weights.

        A further token in a pass reads no weights. It is assumed to cost a nineteenth of reading them, in each row.
        :func:`measure_costs` measures both on this machine, with results that vary from call to call.
        """
        guesser = make_drafter(predictor, drafter_name(predictor, drafter), 1)
        backbone = predictor.model.backbone
        drafted, read = (
            sum(weights.numel() for part in parts for weights in part.parameters())
            for parts in (guesser.parts(), [backbone.blocks, backbone.head])
        )
        return cls(drafted / read, rows / (rows + 19))


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
        Drafts verified at once, and guessed at once if the drafter can.
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
    device = backbone.head.weight.device
    cache, inputs = backbone.cache(rows), torch.zeros(rows, tokens + 1, dtype=torch.long).to(device)
    start = max(1, (context - tokens - 1) // 2)
    backbone(backbone.started(inputs[:, :1].expand(rows, start)), cache=cache)
    lengths = cache.lengths

    def passes(t: int) -> torch.Tensor:
        hidden = backbone(inputs[:, :t], cache=cache)
        cache.truncate(lengths)
        return predictor.model.logits(hidden)

    hidden = backbone(inputs[:, :1])
    ones = torch.ones(rows, dtype=torch.long)

    def guesses() -> torch.Tensor:
        guesser = make_drafter(predictor, name, rows)
        guesser.read(hidden, ones)
        logits = guesser.begin(hidden[:, 0], inputs[:, 0])
        for _ in range(ahead - 1):
            logits = guesser.go_on(logits.argmax(dim=-1))
        return logits

    # Other processes do not affect the thread's own clock, which is right for a CPU.
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    calls = (lambda: passes(1), lambda: passes(2), lambda: passes(tokens + 1), guesses)
    times = np.empty((repeats + 1, len(calls)))
    for repeat, call in np.ndindex(times.shape):
        started = clock()
        # Reading a number waits until the device has finished.
        float(calls[call]().flatten()[0])
        times[repeat, call] = clock() - started
    # Without the first repeat, which warms up.
    single, double, many, guessed = np.median(times[1:], axis=0).tolist()
    verify = max(0.0, many - double) / (tokens - 1) / single
    return DraftCosts(guessed / ahead / single, verify, max(0.0, double / single - 1 - verify))


class Adaptive:
    """Chooses how many tokens to draft in the next step, by the drafts accepted so far.

    A step of n drafts costs ``1 + costs.start + n (costs.draft + costs.verify)`` passes (without drafts: 1). It gives
    1 + a_1 + a_1 a_2 + ... + a_1 ... a_n tokens, where a_i is the probability that the draft at place i is accepted
    when those before it are. The length with the most expected tokens per cost is chosen; it is the fixed length that
    is fastest as long as the a_i stay the same.

    a_i is estimated by the share accepted at its place, shrunk towards the share at all places, which is shrunk towards
    0.9. Earlier steps lose weight, so that the length follows a text that becomes harder or easier, and a length that
    did not pay is tried again. The length changes only where another promises 2 % more.

    All rows have the same length: one pass verifies them together. It depends on earlier steps alone and never on the
    drafts themselves, so the distribution of the output stays the model's.

    Parameters
    ----------
    costs : DraftCosts
    most : int
        Most drafts in a step.

    Examples
    --------
    >>> policy = Adaptive(DraftCosts(draft=0.1, verify=0.05))
    >>> first = policy.length()
    >>> for _ in range(20):
    ...     policy.learn(np.array([policy.length()]), np.array([0]))
    >>> first, policy.length()
    (8, 0)
    """

    def __init__(self, costs: DraftCosts, most: int = MOST) -> None:
        self.costs, self.most = costs, most
        drafts = np.arange(most + 1)
        self._spent = 1 + drafts * (costs.draft + costs.verify) + (drafts > 0) * costs.start
        self._tested, self._accepted = np.zeros(most), np.zeros(most)
        # Longer than allowed, so that the first call of `length` takes the best.
        self._length = most + 1

    @property
    def chances(self) -> Float[np.ndarray, " most"]:
        """Estimated probability that the draft at each place is accepted, given that those before it are."""
        anywhere = (self._accepted.sum() + _WEIGHT * _PRIOR) / (self._tested.sum() + _WEIGHT)
        return (self._accepted + _PLACE_WEIGHT * anywhere) / (self._tested + _PLACE_WEIGHT)

    def length(self, most: int | None = None) -> int:
        """Tokens to draft in the next step, at most `most`."""
        rate = (np.cumsum(np.append(1.0, np.cumprod(self.chances))) / self._spent)[: None if most is None else most + 1]
        best = int(rate.argmax())
        if self._length >= len(rate) or rate[best] > (1 + _MARGIN) * rate[self._length]:
            self._length = best
        return self._length

    def learn(self, counts: Int[np.ndarray, " b"], kept: Int[np.ndarray, " b"]) -> None:
        """Update the estimates with the drafts of each row in a step, and how many of them were accepted."""
        places = np.arange(self.most)
        # The first rejected draft was tested too; those after it were not.
        tested = places < np.minimum(counts, kept + 1)[:, None]
        self._tested = _DECAY * self._tested + tested.sum(axis=0)
        self._accepted = _DECAY * self._accepted + (places < kept[:, None]).sum(axis=0)
