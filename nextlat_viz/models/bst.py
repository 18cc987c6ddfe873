"""The belief state transformer: a forward and a backward encoder (Hu et al. 2024, arXiv:2410.23506)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nextlat_viz.models.losses import token_loss
from nextlat_viz.models.objective import Batch, Objective, mean
from nextlat_viz.models.transformer import Transformer


class BeliefState(Objective):
    """L = mean over pairs of a prefix and a suffix of -log p(x_{t+1} | f_t, b_s) - log p(x_{s-1} | f_t, b_s).

    The hidden state f_t is the backbone's after x_1..x_t; b_s is the state of a second encoder of the same
    sizes, which reads the row backwards, x_T..x_s. From the two, predict the token after the prefix and the token
    before the suffix: all pairs with t + 2 <= s <= T + 1, where s = T + 1 is the empty suffix, a learned vector.
    Generation uses the empty suffix alone.

    There are O(T^2) pairs. Those with the empty suffix always count; of the others at most `pairs` per row are drawn in
    each step, by the batch's seed. Pairs across two documents, with padding or with a token that is not scored count in
    neither term.

    Parameters
    ----------
    backbone : Transformer
    pairs : maximum number of pairs with a non-empty suffix per row and step.
    """

    name = "bst"
    label = "BST"
    own_targets = False

    def __init__(self, backbone: Transformer, pairs: int = 256) -> None:
        super().__init__(backbone)
        if pairs < 1:
            raise ValueError(f"pairs={pairs} must be at least 1: the backward encoder learns only from suffixes")
        dim = backbone.config.dim
        self.pairs = pairs
        # The backward encoder also reads the last target. It reads the start token last, as an ordinary token.
        sizes = {"context": backbone.config.positions + 1, "vocabulary_size": len(backbone.embed.weight)}
        self.backward_encoder = Transformer(backbone.config.model_copy(update={**sizes, "start_token": False}))
        # Its head would never be used.
        del self.backward_encoder.head
        self.empty = nn.Parameter(torch.zeros(dim))
        self.join = nn.Linear(2 * dim, 2 * dim)
        self.previous_head = nn.Linear(dim, backbone.config.vocabulary_size, bias=False)
        self.join.apply(backbone.initialise)
        self.previous_head.apply(backbone.initialise)

    def logits(self, hidden: Float[Tensor, "*b dim"]) -> Float[Tensor, "*b vocabulary"]:
        """Next-token logits given the empty suffix."""
        return self.backbone.logits(self._joined(hidden, self.empty.expand_as(hidden))[0])

    def _joined(
        self, forward: Float[Tensor, "*b dim"], backward: Float[Tensor, "*b dim"]
    ) -> tuple[Float[Tensor, "*b dim"], Float[Tensor, "*b dim"]]:
        both = F.gelu(self.join(torch.cat([forward, backward], dim=-1)))
        following, previous = both.chunk(2, dim=-1)
        return forward + following, backward + previous

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        tokens = torch.cat([batch.inputs, batch.targets[:, -1:]], dim=1)
        b, length = tokens.shape
        document = self._documents(batch)
        ahead = self.backbone(batch.inputs, batch.documents)
        back = self._suffixes(tokens, document)

        t, s = self._pairs(length, batch.seed, tokens.device)
        rows = torch.arange(b, device=tokens.device)[:, None]
        following, previous = self._joined(ahead[rows, t], back[rows, s])
        forward_mask, backward_mask = self._masks(batch, document, t, s)
        # The pairs with the empty suffix come first; their loss is also reported alone.
        empty, others = slice(length - 1), slice(length - 1, None)
        empty_loss, other_loss = (
            token_loss(self.backbone.head, following[:, part], tokens[:, t[part] + 1], forward_mask[:, part])
            for part in (empty, others)
        )
        next_term = mean(empty_loss + other_loss, forward_mask.sum())
        previous_loss = token_loss(self.previous_head, previous, tokens[:, s - 1], backward_mask)
        previous_term = mean(previous_loss, backward_mask.sum())
        return {
            "loss": next_term + previous_term,
            "next_token": mean(empty_loss, forward_mask[:, empty].sum()).detach(),
            "next": next_term,
            "previous": previous_term,
        }

    @property
    def weights(self) -> dict[str, float]:
        # The loss with the empty suffix alone is only reported: "next" includes it.
        return {"next_token": 0.0, "next": 1.0, "previous": 1.0}

    def counts(self, batch: Batch) -> dict[str, int]:
        document = self._documents(batch)
        length = document.shape[1]
        t, s = self._pairs(length, batch.seed, document.device)
        ahead, back = self._masks(batch, document, t, s)
        return {"next_token": int(ahead[:, s == length].sum()), "next": int(ahead.sum()), "previous": int(back.sum())}

    def _masks(
        self, batch: Batch, document: Int[Tensor, "b length"], t: Int[Tensor, " pairs"], s: Int[Tensor, " pairs"]
    ) -> tuple[Bool[Tensor, "b pairs"], Bool[Tensor, "b pairs"]]:
        """Which pairs count for the token after the prefix, and which for the one before the suffix."""
        b, length = document.shape
        # A token that is not scored as a target is not scored before a suffix either; the first token never is.
        scored = torch.cat([batch.target_mask.new_zeros(b, 1), batch.target_mask], dim=1)
        prefix = document[:, t]
        together = (document[:, s.clamp(max=length - 1)] == prefix) | (s == length)
        return scored[:, t + 1] & together, scored[:, s - 1] & together & (document[:, s - 1] == prefix)

    def _documents(self, batch: Batch) -> Int[Tensor, "b length"]:
        """Return the document number of every token of the row, -1 on padding.

        For the last target the batch only states whether it is scored: if it is, it belongs to the document before it;
        if not, it counts as padding.
        """
        documents = torch.zeros_like(batch.inputs) if batch.documents is None else batch.documents
        documents = documents.masked_fill(~batch.valid, -1)
        last = torch.where(batch.target_mask[:, -1:], documents[:, -1:], -1)
        return torch.cat([documents, last], dim=1)

    def _suffixes(self, tokens: Int[Tensor, "b t"], document: Int[Tensor, "b t"]) -> Float[Tensor, "b s dim"]:
        """Entry s (from 0) is the state after reading the row backwards to token s; the last is the empty suffix."""
        back = self.backward_encoder(tokens.flip(1), document.flip(1)).flip(1)
        return torch.cat([back, self.empty.expand(len(back), 1, -1)], dim=1)

    def _pairs(
        self, length: int, seed: int, device: torch.device
    ) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
        """Positions (t, s) from 0, the same for every row: each t with the empty suffix, and a sample of the rest."""
        first = torch.arange(length - 1)
        t, s = torch.triu_indices(length, length, offset=2)
        if len(t) > self.pairs:
            sample = torch.randperm(len(t), generator=torch.Generator().manual_seed(seed))[: self.pairs]
            t, s = t[sample], s[sample]
        t, s = torch.cat([first, t]), torch.cat([torch.full_like(first, length), s])
        return t.to(device), s.to(device)
