"""Self-speculative decoding: a model drafts by what it was trained with, and verifies the drafts in one pass."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nextlat_viz.decoding.adaptive import MOST, Adaptive, DraftCosts
from nextlat_viz.decoding.drafters import Drafter, check_draft, drafter_name, make_drafter
from nextlat_viz.decoding.generation import Prompts, check_temperature, read_prompts, stop_tokens
from nextlat_viz.decoding.predictor import ModelPredictor, as_predictor
from nextlat_viz.decoding.rejection import acceptance_probs, accepted, draw, replacement
from nextlat_viz.decoding.speculated import Speculated
from nextlat_viz.models import KVCache


class _Drafts(NamedTuple):
    """Drafts of one step, the law each was drawn from (None where greedy), how many each row has, and, where asked
    for, how sure the drafter was, and how many places it was asked about.
    """

    tokens: Int[Tensor, "b k"]
    laws: Float[Tensor, "b k v"] | None
    counts: Int[np.ndarray, " b"]
    confidence: Float[np.ndarray, "b k"] | None
    guessed: int


@torch.inference_mode()
def speculative_generate(
    model: Any,
    prompts: Prompts,
    max_tokens: int,
    *,
    draft: int | Literal["adaptive"] = 4,
    drafter: str | None = None,
    temperature: float = 0.0,
    stop: int | Collection[int] = (),
    seed: int = 0,
    costs: DraftCosts | None = None,
) -> Speculated:
    """Continue every prompt as :func:`generate` does, in fewer passes of the transformer (Teoh et al. 2025, section 5).

    From the last true hidden state the model drafts tokens by what it was trained with; one pass reads them all, and
    speculative sampling (Leviathan et al. 2023, arXiv:2211.17192) accepts as many as leave the law of what comes out
    the transformer's own. Greedily, that is token for token what `generate` gives, but for ties within rounding.

    Parameters
    ----------
    model : Checkpoint or ModelPredictor
        Trained by ``nextlat``, ``mtp`` or ``jtp``.
    prompts : (n, t) ints, or a list of 1-D arrays of any lengths
    max_tokens : int
        Most tokens to add; as many as fit the model's context where that is fewer.
    draft : int or "adaptive"
        Tokens to draft in a step; or as many as pay, see :class:`Adaptive`, but at most 16. psi may draft past the
        horizon it was trained for. Near the end only as many are drafted as may still come.
    drafter : {"psi", "mtp", "jtp"}, optional
        The objective's own unless said.
    temperature : float
        0 takes the likeliest token, 1 samples from the model's own distribution; drafts likewise.
    stop : int or ints
        Tokens that end a sequence.
    seed : int
        Of sampling.
    costs : DraftCosts, optional
        What adaptive drafting reckons with; by the weights read unless said. Those of :func:`measure_costs` fit the
        machine better, and make how many tokens are drafted, and so which ones are sampled, differ from run to run.

    Raises
    ------
    ValueError
        If the model has nothing to draft with, cannot draft so many, or as :func:`generate` raises.

    Examples
    --------
    >>> from nextlat_viz.decoding import generate
    >>> from nextlat_viz.training import load
    >>> checkpoint = load("mess3/nextlat")
    >>> made = speculative_generate(checkpoint, [[0, 0], [1, 2, 1]], 8, draft=3)
    >>> bool((made.tokens == generate(checkpoint, [[0, 0], [1, 2, 1]], 8).tokens).all()), made.drafter
    (True, 'psi')
    """
    predictor = as_predictor(model)
    if not isinstance(predictor, ModelPredictor):
        raise ValueError(f"{predictor.name} is no trained model, so it has nothing to draft with: use generate()")
    name = drafter_name(predictor, drafter)
    read = read_prompts(predictor, prompts)
    check_temperature(temperature)
    tokens, length, limit = read.room(max_tokens, predictor.context)
    guess = make_drafter(predictor, name, len(length))
    if draft == "adaptive":
        longest = min(guess.longest or MOST, MOST, predictor.model.backbone.config.context - 1)
        policy = Adaptive(costs or DraftCosts.by_weights(predictor, name), longest)
    else:
        longest, policy = check_draft(predictor, draft, guess.longest), None
    run = _Run(predictor, guess, temperature, np.random.default_rng(seed), policy)
    stops, n = stop_tokens(stop), len(length)
    stopped, steps, drafted, took = np.zeros(n, bool), *(np.zeros(n, np.int64) for _ in range(3))
    proposed, tested, kept = (np.zeros(longest + 1, np.int64) for _ in range(3))

    going = np.flatnonzero(length < limit)
    if going.size:
        made, fresh = run.read(read.tokens, read.lengths)[:, None], np.ones(n, np.int64)
    while going.size:
        on, fresh = _write(tokens, length, going, made, fresh, stops, stopped, limit)
        going = going[on]
        if going.size == 0:
            break
        if not on.all():
            run.keep(torch.as_tensor(on))
        # Of the tokens that may still come, one needs no draft.
        most = np.minimum(limit[going] - length[going] - 1, longest)
        made, counts, its = run.step(most, stops)
        fresh = its + 1
        steps[going] += 1
        drafted[going] += counts
        took[going] += its
        proposed += np.bincount(counts, minlength=longest + 1)
        kept += np.bincount(its, minlength=longest + 1)
        tested += np.bincount(its[its < counts], minlength=longest + 1)

    # From how many drafts a step had, and how many of them it kept, to how often there was one at each place.
    at_least = [np.cumsum(found[::-1])[::-1][1:] for found in (proposed, kept)]
    used = int((at_least[0] > 0).sum())
    return Speculated(
        tokens[:, : int(length.max(initial=read.width))],
        length,
        read.width,
        stopped,
        read.lengths,
        drafter=name,
        draft=draft,
        steps=steps,
        drafted=drafted,
        accepted=took,
        proposed=at_least[0][:used],
        tested=(at_least[1] + tested[:-1])[:used],
        kept=at_least[1][:used],
    )


def _write(
    tokens: Int[np.ndarray, "n s"],
    length: Int[np.ndarray, " n"],
    going: Int[np.ndarray, " b"],
    made: Int[np.ndarray, "b k"],
    fresh: Int[np.ndarray, " b"],
    stops: Int[np.ndarray, " stops"],
    stopped: np.ndarray,
    limit: Int[np.ndarray, " n"],
) -> tuple[np.ndarray, Int[np.ndarray, " b"]]:
    """Add the first `fresh` of the tokens made, up to a stop token; which rows go on, and how many each was given."""
    columns = np.arange(made.shape[1])
    ends = np.isin(made, stops) & (columns < fresh[:, None])
    ended = ends.any(axis=1)
    fresh = np.where(ended, ends.argmax(axis=1) + 1, fresh)
    rows, places = np.nonzero(columns < fresh[:, None])
    tokens[going[rows], length[going][rows] + places] = made[rows, places]
    length[going] += fresh
    stopped[going] = ended
    return ~ended & (length[going] < limit[going]), fresh


class _Run:
    """The rows that go on: their cache, the last true state of each, and the token after it, which is not read yet."""

    def __init__(
        self,
        predictor: ModelPredictor,
        guess: Drafter,
        temperature: float,
        rng: np.random.Generator,
        policy: Adaptive | None,
    ) -> None:
        self._predictor, self._model, self._guess = predictor, predictor.model, guess
        self._temperature, self._rng, self._policy = temperature, rng, policy

    def read(self, tokens: Int[np.ndarray, "n t"], lengths: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Read the prompts; the first token after each."""
        backbone = self._model.backbone
        self._cache = KVCache(backbone.config, len(tokens), backbone.head.weight)
        counts = torch.as_tensor(lengths)
        states = backbone(self._predictor.tensor(tokens), cache=self._cache, counts=counts)
        self._guess.read(states, counts)
        self._hidden = states[torch.arange(len(counts)), counts - 1]
        logits = self._model.logits(self._hidden)
        self._pending, _ = self._pick(logits, self._uniforms(1, len(counts))[0])
        return self._pending.cpu().numpy()

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the rows."""
        self._cache.keep(rows)
        self._guess.keep(rows)
        self._hidden, self._pending = self._hidden[rows], self._pending[rows]

    def step(
        self, most: Int[np.ndarray, " b"], stops: Int[np.ndarray, " stops"]
    ) -> tuple[Int[np.ndarray, "b _s"], Int[np.ndarray, " b"], Int[np.ndarray, " b"]]:
        """Draft, at most so many tokens in each row, and verify: the tokens made, how many were drafted, how many of
        them accepted. One more than accepted is made.
        """
        drafts = self._draft(most, stops)
        k, held = drafts.tokens.shape[1], self._cache.lengths
        counts = torch.as_tensor(drafts.counts)
        block = torch.cat([self._pending[:, None], drafts.tokens], dim=1)
        states = self._model.backbone(block, cache=self._cache, counts=counts + 1)
        logits = self._model.logits(states)
        rows = torch.arange(len(counts), device=logits.device)
        if drafts.laws is None:
            made = logits.argmax(dim=-1)
            # The model's own choice is drawn with certainty, so a draft is accepted exactly where it is that.
            chances = (made[:, :k] == drafts.tokens).double()
            kept = accepted(chances, counts.to(rows.device), torch.zeros_like(chances))
            self._pending = made[rows, kept]
        else:
            uniforms = self._uniforms(k + 1, len(counts))
            its = counts.to(rows.device)
            laws = self._laws(logits)
            kept = accepted(acceptance_probs(laws, drafts.laws, drafts.tokens), its, uniforms[:k].T)
            self._pending = draw(replacement(laws, drafts.laws, its, kept), uniforms[k])
            made = torch.cat([drafts.tokens, self._pending[:, None]], dim=1)
            made[rows, kept] = self._pending
        self._hidden = states[rows, kept]
        on_cpu = kept.cpu()
        self._cache.truncate(held + 1 + on_cpu)
        self._guess.read(states, on_cpu + 1)
        found = on_cpu.numpy()
        if self._policy is not None and drafts.confidence is not None:
            self._policy.learn(drafts.confidence, drafts.counts, found, drafts.guessed)
        return made.cpu().numpy(), drafts.counts, found

    def _draft(self, most: Int[np.ndarray, " b"], stops: Int[np.ndarray, " stops"]) -> _Drafts:
        found, laws, sure, guessed = [], [], [], 0
        # A draft is made or not by what is before it alone: what it is itself must not matter to the law.
        counts, going, reach = np.zeros_like(most), most > 0, np.ones(len(most))
        uniforms = self._uniforms(int(most.max()), len(most))
        token, fewest = self._pending, int(most.min())
        for place in range(int(most.max())):
            if self._policy is not None:
                going = going & self._policy.worth_guessing(place, reach)
                if place >= fewest:
                    going = going & (place < most)
                if not going.any():
                    break
            logits = self._guess.begin(self._hidden, token) if place == 0 else self._guess.go_on(token)
            guessed += 1
            if self._policy is not None:
                confidence = logits.softmax(dim=-1).amax(dim=-1).cpu().numpy()
                reach = reach * self._policy.chance(place, confidence)
                going = going & self._policy.worth_verifying(reach)
                if not going.any():
                    break
                sure.append(confidence)
                counts = counts + going
            token, law = self._pick(logits, uniforms[place])
            found.append(token)
            if law is not None:
                laws.append(law)
        b, k = len(most), len(found)
        tokens = torch.stack(found, dim=1) if found else self._pending.new_zeros(b, 0)
        if self._policy is None:
            counts = most
        if len(stops) and k:
            ends = np.isin(tokens.cpu().numpy(), stops)
            counts = np.minimum(counts, np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, k))
        drawn: Tensor | None = None
        if self._temperature > 0:
            size = self._model.backbone.config.vocabulary_size
            drawn = torch.stack(laws, dim=1) if laws else self._hidden.new_zeros(b, 0, size, dtype=torch.float64)
        confidences = None
        if self._policy is not None:
            confidences = np.stack(sure, axis=1) if sure else np.zeros((b, 0))
        return _Drafts(tokens, drawn, counts, confidences, guessed)

    def _pick(
        self, logits: Float[Tensor, "b v"], uniforms: Float[Tensor, " b"]
    ) -> tuple[Int[Tensor, " b"], Float[Tensor, "b v"] | None]:
        """A token per row, and the law it was drawn from, None where it is the likeliest."""
        if self._temperature == 0:
            return logits.argmax(dim=-1), None
        laws = self._laws(logits)
        return draw(laws, uniforms), laws

    def _laws(self, logits: Float[Tensor, "*b v"]) -> Float[Tensor, "*b v"]:
        return (logits.double() / self._temperature).softmax(dim=-1)

    def _uniforms(self, k: int, b: int) -> Float[Tensor, "k b"]:
        if self._temperature == 0:
            return torch.zeros(k, b)
        return torch.as_tensor(self._rng.random((k, b)), device=self._predictor.model.backbone.head.weight.device)
