"""Self-speculative decoding: a model drafts tokens with its own psi or heads and verifies them in one pass."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nextlat_viz.decoding.drafters import Adaptive, DraftCosts, Drafter, check_draft, drafter_name, make_drafter
from nextlat_viz.decoding.generation import Continuations, OnTokens, Prompts, check_sampling, nucleus, read_prompts
from nextlat_viz.decoding.predictor import ModelPredictor, as_predictor
from nextlat_viz.decoding.result import Speculated
from nextlat_viz.errors import require_callable
from nextlat_viz.models.torch_state import torch_defaults


@torch_defaults()
@torch.inference_mode()
def speculative_generate(
    model: Any,
    prompts: Prompts,
    max_tokens: int,
    *,
    draft: int | Literal["adaptive"] | Adaptive = 4,
    drafter: str | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    stop: int | Collection[int] | None = None,
    seed: int = 0,
    on_tokens: OnTokens | None = None,
) -> Speculated:
    """Continue every prompt as :func:`generate` does, in fewer passes of the transformer (Teoh et al. 2025, section 5).

    psi, or the heads, draft tokens from the transformer's last hidden state. One pass reads them all, and speculative
    sampling (Leviathan et al. 2023, arXiv:2211.17192) accepts drafts so that the output has the transformer's own
    distribution. At temperature 0 the tokens are those of `generate`, except for ties within rounding.

    Parameters
    ----------
    model : Checkpoint, its name, a fine-tuned model or ModelPredictor
        Trained by ``nextlat``, ``mtp`` or ``jtp``.
    prompts : (n, t) ints, or a list of 1-D arrays of any lengths
    max_tokens : int
        Most tokens to add; fewer where the model's context ends.
    draft : int, "adaptive" or Adaptive
        Tokens to draft in a step, or "adaptive" for the number that is fastest with the drafts accepted so far.
        "adaptive" estimates costs by numbers of weights and starts anew in every call, so the same seed samples the
        same tokens. ``Adaptive(measure_costs(model))`` has costs measured on this machine, and keeps what it learns
        when it is given to further calls. psi may draft past its training horizon. Near the end fewer are drafted.
    drafter : {"psi", "mtp", "jtp"}, optional
        Default: that of the model's objective.
    temperature : float
        0 takes the most probable token, 1 samples from the model's distribution; the same for drafts.
    top_p, stop, on_tokens
        As in :func:`generate`.
    seed : int
        Seed of the sampling.

    Raises
    ------
    ValueError
        If the model has no drafter or cannot draft so many tokens, and where :func:`generate` raises it.

    Examples
    --------
    >>> from nextlat_viz.decoding import generate
    >>> from nextlat_viz.training import load
    >>> checkpoint = load("mess3/nextlat")
    >>> result = speculative_generate(checkpoint, [[0, 0], [1, 2, 1]], 8, draft=3)
    >>> bool((result.tokens == generate(checkpoint, [[0, 0], [1, 2, 1]], 8).tokens).all()), result.drafter
    (True, 'psi')
    """
    predictor = as_predictor(model)
    if not isinstance(predictor, ModelPredictor):
        raise ValueError(f"{predictor.name} is not a trained model, so it has nothing to draft with: use generate()")
    name = drafter_name(predictor, drafter)
    tokens, lengths = read_prompts(predictor, prompts)
    check_sampling(temperature, top_p)
    require_callable("on_tokens", on_tokens)
    written, n = Continuations(predictor, tokens, lengths, max_tokens, stop, on_tokens), len(lengths)
    guess = make_drafter(predictor, name, n)
    if draft == "adaptive":
        draft = Adaptive(DraftCosts.by_weights(predictor, name, n))
    if isinstance(draft, Adaptive):
        policy, draft = draft, "adaptive"
        longest = min(policy.most, guess.longest or policy.most, (predictor.context or policy.most + 1) - 1)
    else:
        longest, policy = check_draft(predictor, draft, guess.longest), None
    run = _Run(predictor, guess, temperature, top_p, np.random.default_rng(seed))
    steps, drafted, accepted_drafts = (np.zeros(n, np.int64) for _ in range(3))
    proposed, tested, kept = (np.zeros(longest + 1, np.int64) for _ in range(3))

    if written.active.size:
        new, fresh = run.read(tokens, lengths)[:, None], np.ones(n, np.int64)
    while written.active.size:
        unfinished = written.add(new, fresh)
        active = written.active
        if active.size == 0:
            break
        if not unfinished.all():
            run.keep(torch.as_tensor(unfinished))
        # Every step gives one token besides the accepted drafts, so the last token needs no draft.
        room = written.limit[active] - written.length[active] - 1
        most = np.minimum(room, longest if policy is None else policy.length(longest))
        new, counts, accepted_now = run.step(most, written.stops)
        if policy is not None:
            policy.learn(counts, accepted_now)
        fresh = accepted_now + 1
        steps[active] += 1
        drafted[active] += counts
        accepted_drafts[active] += accepted_now
        proposed += np.bincount(counts, minlength=longest + 1)
        kept += np.bincount(accepted_now, minlength=longest + 1)
        tested += np.bincount(accepted_now[accepted_now < counts], minlength=longest + 1)

    # Steps were counted by number of drafts. A step with n drafts has one at each of the places 1 to n.
    at_least = [np.cumsum(steps_with[::-1])[::-1][1:] for steps_with in (proposed, kept)]
    used = int((at_least[0] > 0).sum())
    return Speculated(
        *written.result(),
        drafter=name,
        draft=draft,
        steps=steps,
        drafted=drafted,
        accepted=accepted_drafts,
        proposed=at_least[0][:used],
        tested=(at_least[1] + tested[:-1])[:used],
        kept=at_least[1][:used],
    )


@dataclass(eq=False)
class _Run:
    """The unfinished rows: their cache, the last state of each, and the token after it, which is not read yet."""

    predictor: ModelPredictor
    guess: Drafter
    temperature: float
    top_p: float
    rng: np.random.Generator

    def read(self, tokens: Int[np.ndarray, "n t"], lengths: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Read the prompts; return the first token after each."""
        backbone = self.predictor.model.backbone
        self._cache = backbone.cache(len(tokens))
        counts = torch.as_tensor(lengths) + backbone.offset
        states = backbone(backbone.started(self.predictor.tensor(tokens)), cache=self._cache, counts=counts)
        self.guess.read(states, counts)
        self._hidden = states[torch.arange(len(counts)), counts - 1]
        logits = self.predictor.model.logits(self._hidden)
        self._pending, _ = self._pick(logits, self._uniforms(1, len(counts))[0])
        return self._pending.cpu().numpy()

    def keep(self, rows: Tensor) -> None:
        """Keep some of the rows."""
        self._cache.keep(rows)
        self.guess.keep(rows)
        self._hidden, self._pending = self._hidden[rows], self._pending[rows]

    def step(
        self, most: Int[np.ndarray, " b"], stops: Int[np.ndarray, " stops"]
    ) -> tuple[Int[np.ndarray, "b _s"], Int[np.ndarray, " b"], Int[np.ndarray, " b"]]:
        """Draft `most` tokens in each row, up to a stop token, and verify them in one pass.

        Returns for each row its new tokens, the number of drafts and the number accepted. The first accepted + 1 of the
        new tokens are valid.
        """
        drafts, drawn_from, drafted = self._draft(most, stops)
        k, lengths = drafts.shape[1], self._cache.lengths
        counts = torch.as_tensor(drafted)
        block = torch.cat([self._pending[:, None], drafts], dim=1)
        states = self.predictor.model.backbone(block, cache=self._cache, counts=counts + 1)
        logits = self.predictor.model.logits(states)
        rows = torch.arange(len(counts), device=logits.device)
        if drawn_from is None:
            new = most_probable(logits)
            # All probability is on one token: a draft is accepted if it is that token.
            chances = (new[:, :k] == drafts).double()
            kept = accepted(chances, counts.to(rows.device), torch.zeros_like(chances))
            self._pending = new[rows, kept]
        else:
            uniforms = self._uniforms(k + 1, len(counts))
            on_device = counts.to(rows.device)
            laws = self._laws(logits)
            kept = accepted(acceptance_probs(laws, drawn_from, drafts), on_device, uniforms[:k].T)
            self._pending = sample_rows(replacement(laws, drawn_from, on_device, kept), uniforms[k])
            new = torch.cat([drafts, self._pending[:, None]], dim=1)
            new[rows, kept] = self._pending
        self._hidden = states[rows, kept]
        on_cpu = kept.cpu()
        # Keys and values of rejected drafts are dropped; the next tokens overwrite them.
        self._cache.truncate(lengths + 1 + on_cpu)
        self.guess.read(states, on_cpu + 1)
        return new.cpu().numpy(), drafted, on_cpu.numpy()

    def _draft(
        self, most: Int[np.ndarray, " b"], stops: Int[np.ndarray, " stops"]
    ) -> tuple[Int[Tensor, "b k"], Float[Tensor, "b k v"] | None, Int[np.ndarray, " b"]]:
        """Return drafts, the laws they were drawn from (None if greedy), and their number in each row."""
        guesses, laws, token = [], [], self._pending
        uniforms = self._uniforms(int(most.max()), len(most))
        for place, uniform in enumerate(uniforms):
            logits = self.guess.begin(self._hidden, token) if place == 0 else self.guess.go_on(token)
            token, law = self._pick(logits, uniform)
            guesses.append(token)
            if law is not None:
                laws.append(law)
        b, k = len(most), len(guesses)
        tokens = torch.stack(guesses, dim=1) if guesses else self._pending.new_zeros(b, 0)
        counts = most
        # Drafts after a stop token are useless.
        if len(stops) and k:
            ends = np.isin(tokens.cpu().numpy(), stops)
            counts = np.minimum(counts, np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, k))
        drawn: Tensor | None = None
        if self.temperature > 0:
            size = len(self.predictor.world.vocabulary)
            drawn = torch.stack(laws, dim=1) if laws else self._hidden.new_zeros(b, 0, size)
        return tokens, drawn, counts

    def _pick(
        self, logits: Float[Tensor, "b v"], uniforms: Float[Tensor, " b"]
    ) -> tuple[Int[Tensor, " b"], Float[Tensor, "b v"] | None]:
        """Return a token per row, and the distributions they were drawn from; None if greedy."""
        if self.temperature == 0:
            return most_probable(logits), None
        laws = self._laws(logits)
        return sample_rows(laws, uniforms), laws

    def _laws(self, logits: Float[Tensor, "*b v"]) -> Float[Tensor, "*b v"]:
        return nucleus((logits / self.temperature).softmax(dim=-1), self.top_p)

    def _uniforms(self, k: int, b: int) -> Float[Tensor, "k b"]:
        if self.temperature == 0:
            return torch.zeros(k, b)
        return torch.as_tensor(self.rng.random((k, b)), device=self.predictor.model.backbone.head.weight.device)


def acceptance_probs(
    p: Float[Tensor, "b _k v"], q: Float[Tensor, "b k v"], drafts: Int[Tensor, "b k"]
) -> Float[Tensor, "b k"]:
    """Return min(1, p(x) / q(x)) for every draft x (Leviathan et al. 2023, arXiv:2211.17192, algorithm 1).

    `p` are the model's distributions at the places of the drafts (more are ignored), `q` those the drafts came from.

    Examples
    --------
    >>> p, q = torch.tensor([[[0.2, 0.8]]]), torch.tensor([[[0.4, 0.6]]])
    >>> acceptance_probs(p, q, torch.tensor([[0]])).item(), acceptance_probs(p, q, torch.tensor([[1]])).item()
    (0.5, 1.0)
    """
    k = drafts.shape[1]
    drafted_p, drafted_q = (law[:, :k].gather(2, drafts[..., None])[..., 0] for law in (p, q))
    # No draft is drawn where q is 0: that is padding, which is never accepted.
    return torch.where(drafted_q > 0, drafted_p / drafted_q, 0).clamp(max=1)


def accepted(
    chances: Float[Tensor, "b k"], counts: Int[Tensor, " b"], uniforms: Float[Tensor, "b k"]
) -> Int[Tensor, " b"]:
    """Count the accepted drafts of each row: those before the first rejected one, among the row's `counts`."""
    inside = torch.arange(chances.shape[1], device=chances.device) < counts[:, None]
    return ((uniforms < chances) & inside).long().cumprod(dim=1).sum(dim=1)


def replacement(
    p: Float[Tensor, "b _k v"], q: Float[Tensor, "b k v"], counts: Int[Tensor, " b"], kept: Int[Tensor, " b"]
) -> Float[Tensor, "b v"]:
    """Return the distribution of the token after the accepted drafts.

    After a rejection it is max(0, p - q), normalised; where all `counts` drafts were accepted, p.

    Examples
    --------
    >>> p, q = torch.tensor([[[0.2, 0.8], [0.5, 0.5]]]), torch.tensor([[[0.4, 0.6]]])
    >>> replacement(p, q, torch.tensor([1]), torch.tensor([0])).tolist()
    [[0.0, 1.0]]
    >>> replacement(p, q, torch.tensor([1]), torch.tensor([1])).tolist()
    [[0.5, 0.5]]
    """
    rows = torch.arange(len(p), device=p.device)
    own = p[rows, kept]
    if q.shape[1] == 0:
        return own
    drafted = q[rows, kept.clamp(max=q.shape[1] - 1)]
    more = (own - torch.where((kept < counts)[:, None], drafted, 0)).clamp(min=0)
    total = more.sum(dim=1, keepdim=True)
    # If p and q differ only by rounding, p - q may have no positive part.
    return torch.where(total > 0, more / total.clamp(min=torch.finfo(total.dtype).tiny), own)


def most_probable(logits: Float[Tensor, "*b v"]) -> Int[Tensor, "*b"]:
    """Take the token with the largest logit, the first of equals."""
    # Over tens of thousands of tokens NumPy is many times faster than torch.
    return torch.from_numpy(logits.numpy().argmax(axis=-1)) if logits.device.type == "cpu" else logits.argmax(dim=-1)


def sample_rows(probs: Float[Tensor, "b v"], uniforms: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
    """Take a token per row, by inverting the cumulative distribution at a uniform number.

    Examples
    --------
    >>> sample_rows(torch.tensor([[0.5, 0.0, 0.5], [0.5, 0.0, 0.5]]), torch.tensor([0.4, 0.6])).tolist()
    [0, 2]
    """
    # In double precision: a sum over tens of thousands of tokens.
    cumulative = probs.cumsum(dim=1, dtype=torch.float64)
    drawn = torch.searchsorted(cumulative, (uniforms * cumulative[:, -1])[:, None], right=True)
    return drawn[:, 0].clamp(max=probs.shape[1] - 1)
