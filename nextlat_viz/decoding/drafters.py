"""What a model can draft tokens with: NextLat's psi, MTP's heads, JTP's Fetch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nextlat_viz.decoding.predictor import ModelPredictor
from nextlat_viz.errors import unknown
from nextlat_viz.models import JointToken, KVCache, MultiToken, NextLat, Objective


class Drafter(ABC):
    """Guesses tokens ahead, each from those guessed before it, starting from the transformer's last true state.

    Attributes
    ----------
    longest : int or None
        Most tokens it can guess ahead; None where there is no end.
    """

    longest: int | None = None

    def __init__(self, model: Objective, rows: int) -> None:
        self.model, self.backbone = model, model.backbone

    def read(self, hidden: Float[Tensor, "b t dim"], counts: Int[Tensor, " b"]) -> None:
        """See the true states of more tokens, of which each row has so many."""
        return None

    @abstractmethod
    def begin(self, hidden: Float[Tensor, "b dim"], token: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
        """Logits of the first draft: from the last true state, and the token that is known to come after it."""

    @abstractmethod
    def go_on(self, token: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
        """Logits of the next draft, the one before it being this."""

    def keep(self, rows: Bool[Tensor, " b"]) -> None:
        """Go on with some of the rows."""
        return None

    @abstractmethod
    def parts(self) -> list[nn.Module]:
        """What is computed for one draft."""


class Psi(Drafter):
    """Rolls the latent dynamics: logits = head(h^), h^ = psi(h^, x); past the horizon it was trained for, too."""

    model: NextLat

    def begin(self, hidden: Float[Tensor, "b dim"], token: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
        self._hidden = self.model.psi(hidden, self.backbone.embed(token))
        return self.model.logits(self._hidden)

    def go_on(self, token: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
        return self.begin(self._hidden, token)

    def parts(self) -> list[nn.Module]:
        return [self.model.psi, self.backbone.head]


class Heads(Drafter):
    """MTP's heads: draft i is by head i, from true states alone, whatever the drafts before it.

    A head is a transformer layer over all states so far, so it has a key-value cache of its own.
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
        self._at = -1
        return self.go_on(token)

    def go_on(self, token: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
        self._at += 1
        return self.model.logits(self.model.norms[self._at](self._ahead[self._at]))

    def keep(self, rows: Bool[Tensor, " b"]) -> None:
        self._cache.keep(rows)
        self._ahead = [one[rows] for one in self._ahead]

    def parts(self) -> list[nn.Module]:
        return [self.model.heads[0], self.backbone.head]


class Fetch(Drafter):
    """JTP's Fetch over the last true state and the tokens after it, those drafted so far among them."""

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
    """What a model drafts with: its objective's own.

    Raises
    ------
    UnknownNameError
        If there is no drafter of that name.
    ValueError
        If the model was trained by an objective that brings no drafter, or not this one.
    """
    if name is not None and name not in DRAFTERS:
        raise unknown("drafter", name, DRAFTERS)
    own = next((known for known, (kind, _) in DRAFTERS.items() if isinstance(predictor.model, kind)), None)
    if own is None:
        those = ", ".join(f"{kind.name} ({known})" for known, (kind, _) in DRAFTERS.items())
        raise ValueError(
            f"{predictor.name} was trained by {predictor.objective}, which brings nothing to draft tokens with: use a "
            f"model trained by one of {those}, or generate()"
        )
    if name not in (None, own):
        raise ValueError(
            f"drafter={name!r} needs a model trained by {DRAFTERS[str(name)][0].name}, and {predictor.name} was "
            f"trained by {predictor.objective}: leave drafter out, or say {own!r}"
        )
    return own


def make_drafter(predictor: ModelPredictor, name: str, rows: int) -> Drafter:
    """The drafter of that name for so many rows."""
    kind: Any = DRAFTERS[name][1]
    made: Drafter = kind(predictor.model, rows)
    return made


def check_draft(predictor: ModelPredictor, draft: int, longest: int | None) -> int:
    """How many tokens to draft, if the model can.

    Raises
    ------
    ValueError
        If that is under 1, more than the drafter can guess ahead, or more than fit the context.
    """
    if isinstance(draft, bool) or not isinstance(draft, int) or draft < 1:
        raise ValueError(f"draft={draft!r} must be at least 1 token, or 'adaptive'; without drafts there is generate()")
    if longest is not None and draft > longest:
        raise ValueError(
            f"draft={draft} is more than the {longest} tokens after the next that {predictor.name} was trained to "
            f"predict, and {predictor.objective} cannot guess past its horizon: draft at most {longest}, or use a "
            "model trained by nextlat, whose psi goes on"
        )
    context = predictor.model.backbone.config.context
    if draft >= context:
        raise ValueError(
            f"draft={draft} does not fit the context of {predictor.name}, {context}: a pass reads one token and the "
            f"drafts after it, so draft at most {context - 1}"
        )
    return draft
