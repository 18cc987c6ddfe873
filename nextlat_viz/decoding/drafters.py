"""Drafters, which guess the next tokens cheaply: NextLat's psi, MTP's heads, JTP's Fetch."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nextlat_viz.decoding.predictor import ModelPredictor
from nextlat_viz.errors import unknown
from nextlat_viz.models import JointToken, KVCache, MultiToken, NextLat, Objective


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
