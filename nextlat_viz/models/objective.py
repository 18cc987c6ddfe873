"""The interface of training objectives, the batches they are called with, and the next-token baseline."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nextlat_viz.models.losses import token_loss
from nextlat_viz.models.transformer import Transformer
from nextlat_viz.worlds import Episodes, World


@dataclass(frozen=True)
class Batch:
    """The tokens of one training step. Index t has an input, and the target to predict from the state after it.

    With a start token, index t is position t: index 0 holds the start token and the target x_1, index t the input x_t
    and the target x_{t+1}. Without one, index t has the input x_{t+1} and the target x_{t+2}.

    `target_mask` is False where the prediction is not scored (prompt, padding), `valid` is False on padding,
    `documents` numbers the documents packed into a row, `seed` is for objectives that sample. `step` counts the
    optimiser steps taken on these episodes before, and `carried` holds the states that the last of them passed on.
    """

    inputs: Int[Tensor, "b t"]
    targets: Int[Tensor, "b t"]
    target_mask: Bool[Tensor, "b t"]
    valid: Bool[Tensor, "b t"]
    documents: Int[Tensor, "b t"] | None = None
    seed: int = 0
    step: int = 0
    carried: Float[Tensor, "2 b t dim"] | None = None

    @classmethod
    def from_episodes(
        cls, episodes: Episodes, device: torch.device | str = "cpu", seed: int = 0, *, start: int | None = None
    ) -> Batch:
        """Inputs are all tokens but the last, targets the tokens after them; or all tokens and the episodes' `targets`.

        Parameters
        ----------
        episodes : Episodes
            A state named "document" numbers the documents packed into a row.
        start : int, optional
            Id of the start token, ``backbone.start``: it is put in front of the inputs, and the first token becomes a
            target. If the episodes have `targets`, nothing is predicted from the start token.
        """

        def tensor(array: object) -> Tensor:
            return torch.as_tensor(array).to(device, non_blocking=True)

        tokens, mask, length = tensor(episodes.tokens), tensor(episodes.loss_mask), tensor(episodes.length)
        valid = torch.arange(tokens.shape[1], device=tokens.device) < length[:, None]
        documents = tensor(episodes.states["document"]) if "document" in episodes.states else None
        scored, next_tokens = mask & valid, episodes.targets is None
        inputs, targets = tokens, tokens if next_tokens else tensor(episodes.targets)
        if start is not None:
            inputs, valid = F.pad(tokens, (1, 0), value=start), F.pad(valid, (1, 0), value=True)
            documents = documents if documents is None else torch.cat([documents[:, :1], documents], dim=1)
        if start is not None and not next_tokens:
            targets, scored = F.pad(targets, (1, 0)), F.pad(scored, (1, 0))
        elif start is None and next_tokens:
            targets, scored = targets[:, 1:], scored[:, 1:]
        if next_tokens:
            # Nothing is predicted from the last token.
            inputs, valid = inputs[:, :-1], valid[:, :-1]
            documents = documents if documents is None else documents[:, :-1]
        return cls(inputs, targets, scored, valid, documents, seed)

    def inside(self, i: int) -> Bool[Tensor, "b s"]:
        """Whether position t+i is a token of the same document as position t, for t = 1..T-i."""
        inside = self.valid[:, i:]
        if self.documents is not None:
            inside = inside & (self.documents[:, i:] == self.documents[:, : -i or None])
        return inside


class Objective(nn.Module, ABC):
    """A training objective on the shared backbone.

    Calling it with a :class:`Batch` gives named scalar losses; `"loss"` is the weighted sum that is minimised.
    The hidden state is `backbone(tokens)` for every objective.

    Attributes
    ----------
    name, label : names of the objective in code and in figures.
    own_targets : whether it can be trained on targets other than the next tokens.
    next_tokens : whether it can be trained on next tokens.
    network : class of the backbone.
    updates : maximum number of optimiser steps on the same episodes.
    passes : how often the backbone is applied to a batch.
    """

    name: str
    label: str
    own_targets: bool = True
    next_tokens: bool = True
    network: type[Transformer] = Transformer
    updates: int = 1
    passes: int = 1

    # A Transformer, or a pretrained model with its interface.
    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone: Transformer = backbone

    @classmethod
    def require_world(cls, world: World, start_token: bool) -> None:
        """Raise ValueError unless it can be trained on a world, by a model with a start token or without."""
        if not (cls.own_targets or world.predicts_next_token):
            raise ValueError(
                f"objective={cls.name!r} predicts tokens from both ends, but the targets of world {world.name!r} are "
                "not its tokens: choose another objective"
            )

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]: ...

    @property
    @abstractmethod
    def weights(self) -> dict[str, float]:
        """Weight of each term in the loss."""

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, int]:
        """Number of predictions that each term averages, to weight the pieces of a batch."""

    def following(self, batch: Batch, losses: dict[str, Tensor]) -> Batch | None:
        """Return the batch of the next optimiser step on the same episodes; None, the default, if there is none.

        `losses` are those that the objective returned for `batch`.
        """
        return None

    def logits(self, hidden: Float[Tensor, "*b dim"]) -> Float[Tensor, "*b vocabulary"]:
        """Next-token logits from hidden states, as used in generation."""
        return self.backbone.logits(hidden)


def mean(total: Float[Tensor, ""], count: Int[Tensor, ""]) -> Float[Tensor, ""]:
    """Divide a sum by a count; 0 where the count is 0."""
    return total / count.clamp(min=1)


def next_token_loss(backbone: Transformer, hidden: Float[Tensor, "b t dim"], batch: Batch) -> Float[Tensor, ""]:
    """Mean cross-entropy of the scored targets in nats, from hidden states."""
    total = token_loss(backbone.head, hidden, batch.targets, batch.target_mask)
    return mean(total, batch.target_mask.sum())


def count_ahead(batch: Batch, horizon: int, scored: bool) -> int:
    """Count pairs of a position and one of the `horizon` after it; with `scored`, only those with a scored target."""
    pairs = (batch.inside(i) & batch.target_mask[:, i:] if scored else batch.inside(i) for i in range(1, horizon + 1))
    return sum(int(pair.sum()) for pair in pairs)


def check_horizon(horizon: int, backbone: Transformer) -> int:
    """Return the horizon; raise ValueError if no sequence is long enough for it."""
    if not 1 <= horizon < backbone.config.positions:
        raise ValueError(
            f"horizon={horizon} must be at least 1 and at most {backbone.config.positions - 1}, with a context of "
            f"{backbone.config.context}: nothing can be predicted past the end of a sequence"
        )
    return horizon


class NextToken(Objective):
    """Cross-entropy of the next token, -log p(x_{t+1} | h_t), averaged over scored positions."""

    name = "next_token"
    label = "next-token"

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        hidden = self.backbone(batch.inputs, batch.documents)
        loss = next_token_loss(self.backbone, hidden, batch)
        return {"loss": loss, "next_token": loss}

    @property
    def weights(self) -> dict[str, float]:
        return {"next_token": 1.0}

    def counts(self, batch: Batch) -> dict[str, int]:
        return {"next_token": int(batch.target_mask.sum())}
