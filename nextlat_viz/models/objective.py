"""What an objective is: a backbone, whatever it adds to it, and named losses from a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nextlat_viz.models.transformer import Transformer
from nextlat_viz.worlds import Episodes


@dataclass(frozen=True)
class Batch:
    """What one training step reads. Index t holds the input x_{t+1} and what is predicted from h_{t+1}.

    `target_mask` is False where the prediction is not scored (prompt, padding), `valid` is False on padding,
    `documents` numbers the documents packed into a row.
    """

    inputs: Int[Tensor, "b t"]
    targets: Int[Tensor, "b t"]
    target_mask: Bool[Tensor, "b t"]
    valid: Bool[Tensor, "b t"]
    documents: Int[Tensor, "b t"] | None = None

    @classmethod
    def from_episodes(cls, episodes: Episodes, device: torch.device | str = "cpu") -> Batch:
        """Inputs are all tokens but the last, targets all but the first; or as the episodes' own `targets` say."""

        def tensor(array: object) -> Tensor:
            return torch.as_tensor(array).to(device, non_blocking=True)

        tokens, mask, length = tensor(episodes.tokens), tensor(episodes.loss_mask), tensor(episodes.length)
        valid = torch.arange(tokens.shape[1], device=tokens.device) < length[:, None]
        if episodes.targets is not None:
            return cls(tokens, tensor(episodes.targets), mask & valid, valid)
        return cls(tokens[:, :-1], tokens[:, 1:], (mask & valid)[:, 1:], valid[:, :-1])


class Objective(nn.Module, ABC):
    """A training objective on the shared backbone.

    Calling it with a :class:`Batch` gives named scalar losses; `"loss"` is the weighted sum that is minimised.
    *The* hidden state of every objective is `backbone(tokens)`.
    """

    name: str
    label: str

    def __init__(self, backbone: Transformer) -> None:
        super().__init__()
        self.backbone = backbone

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]: ...


def masked_mean(values: Float[Tensor, "..."], mask: Bool[Tensor, "..."]) -> Float[Tensor, ""]:
    """Mean of the values where the mask is True; 0 where it is nowhere True."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def next_token_loss(logits: Float[Tensor, "b t v"], batch: Batch) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats of the scored targets."""
    losses = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none")
    return masked_mean(losses.view_as(batch.targets), batch.target_mask)
