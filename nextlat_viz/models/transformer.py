"""The decoder-only transformer that all objectives share as their backbone.

Rotary positions, RMSNorm before each sublayer and at the end, SwiGLU, no biases, PyTorch's fused attention with an
optional key-value cache (`attention.py`). The output head is not tied to the embedding, because the NextLat losses
train the embedding but not the head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nextlat_viz.models.attention import Attention, KVCache, TransformerConfig, causal, fits


class SwiGLU(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.dim, 2 * config.mlp_dim, bias=False)
        self.down = nn.Linear(config.mlp_dim, config.dim, bias=False)

    def forward(self, x: Float[Tensor, "b t dim"]) -> Float[Tensor, "b t dim"]:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.dim)
        self.attention = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.dim)
        self.mlp = SwiGLU(config)

    def forward(
        self,
        x: Float[Tensor, "b t dim"],
        rotation: Float[Tensor, "2 *places half"],
        mask: Bool[Tensor, "..."] | None,
        cache: KVCache | None,
        layer: int,
    ) -> Float[Tensor, "b t dim"]:
        x = x + self.attention(self.attention_norm(x), rotation, mask, cache, layer)
        return x + self.mlp(self.mlp_norm(x))


class Transformer(nn.Module):
    """Decoder-only transformer; calling it gives the hidden state at every position.

    With `config.start_token` a sequence begins with a learned start token, which :meth:`started` puts in front of the
    tokens: position 0, where nothing has been read. Without one, a sequence of one repeated token has the same state at
    every position, because attention over equal values gives that value. Where the length of such a sequence matters,
    as in RRXOR, no training can then bring the loss down to the floor.

    Parameters
    ----------
    config : TransformerConfig
        Sizes. `vocabulary_size` is the world's number of tokens; the start token has the id after them, which is never
        predicted.

    Examples
    --------
    >>> model = Transformer(TransformerConfig(vocabulary_size=2, layers=2, dim=16, heads=2, mlp_dim=32))
    >>> hidden = model(model.started(torch.zeros(3, 5, dtype=torch.long)))
    >>> hidden.shape, model.logits(hidden).shape
    (torch.Size([3, 6, 16]), torch.Size([3, 6, 2]))
    >>> model.sites
    ['embed', 'block0', 'block1', 'hidden']
    """

    rotation: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocabulary_size + config.start_token, config.dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.dim)
        self.head = nn.Linear(config.dim, config.vocabulary_size, bias=False)
        self.register_buffer("rotation", rotation_table(config), persistent=False)
        self.apply(self.initialise)

    def initialise(self, module: nn.Module) -> None:
        """Initialise a module's weights like the backbone's, for ``module.apply``."""
        # Residual branches start small so that depth does not change the scale of the stream (GPT-2).
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        for branch in (getattr(module, "out", None), getattr(module, "down", None)):
            if branch is not None:
                nn.init.normal_(branch.weight, std=0.02 / (2 * self.config.layers) ** 0.5)

    @property
    def start(self) -> int | None:
        """Id of the start token; None for a model without one."""
        return self.config.vocabulary_size if self.config.start_token else None

    @property
    def offset(self) -> int:
        """Columns before token 1: 1 with a start token, else 0."""
        return int(self.config.start_token)

    def started(self, tokens: Int[Tensor, "b _t"]) -> Int[Tensor, "b _s"]:
        """Put the start token in front of whole sequences, if the model has one: position t is then column t."""
        return tokens if self.start is None else F.pad(tokens, (1, 0), value=self.start)

    @property
    def sites(self) -> list[str]:
        """Names of the states that can be read, in the order they are computed."""
        return ["embed", *(f"block{i}" for i in range(self.config.layers)), "hidden"]

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        documents: Int[Tensor, "b t"] | None = None,
        cache: KVCache | None = None,
        counts: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b t dim"]:
        """Hidden state after the last norm, which the head reads to predict the next token.

        Parameters
        ----------
        tokens : (B, T) integers under `vocabulary_size`, after the start token if the model has one: see `started`.
        documents : (B, T) document number of each token if several are packed in a row. A document's states are those
            of the document alone: attention stays inside and reaches the start token, which has the first document's
            number.
        cache : earlier tokens of the same rows, possibly a different number in each; the T tokens are added to it.
        counts : with a cache, how many of the T tokens are real in each row; states of the rest are meaningless.

        Raises
        ------
        ValueError
            If the tokens (with the cached ones) are more than `config.context`.
        """
        return self.states(tokens, documents, cache, counts)["hidden"]

    def states(
        self,
        tokens: Int[Tensor, "b t"],
        documents: Int[Tensor, "b t"] | None = None,
        cache: KVCache | None = None,
        counts: Int[Tensor, " b"] | None = None,
    ) -> dict[str, Float[Tensor, "b t dim"]]:
        """Every named state: the embedding, the residual stream after each block, and the hidden state."""
        t = tokens.shape[1]
        if cache is None:
            if counts is not None:
                raise ValueError("counts needs a cache: without one, padding at the end changes nothing")
            fits(t - self.offset, self.config.context)
            mask, rotation = self.geometry(t, documents)
        else:
            if documents is not None:
                raise ValueError("documents cannot be combined with a cache: generation continues a single document")
            mask, rotation = cache.begin(t, counts, self.rotation)
        states = {"embed": self.embed(tokens)}
        x = states["embed"]
        for i, block in enumerate(self.blocks):
            states[f"block{i}"] = x = block(x, rotation, mask, cache, i)
        if cache is not None:
            cache.end()
        states["hidden"] = self.norm(x)
        return states

    def cache(self, batch_size: int) -> KVCache:
        """Return an empty cache for `batch_size` rows."""
        return KVCache(self.config, batch_size, self.head.weight)

    def logits(self, hidden: Float[Tensor, "*b dim"]) -> Float[Tensor, "*b vocabulary"]:
        """Next-token logits read from hidden states by the output head."""
        return self.head(hidden)

    def geometry(
        self, t: int, documents: Int[Tensor, "b t"] | None
    ) -> tuple[Bool[Tensor, "b 1 t t"] | None, Float[Tensor, "2 *places half"]]:
        """Return the attention mask of t positions (None: causal) and their rotations."""
        rotation = self.rotation[:, :t]
        if documents is None:
            return None, rotation
        together = documents[:, None, :, None] == documents[:, None, None, :]
        if self.start is not None:
            # Every document sees the start token, and counts its positions from there.
            together[..., 0] = True
            column = torch.arange(t, device=documents.device)
            begins = F.pad(documents.diff(dim=1) != 0, (1, 0))
            places = column - (torch.where(begins, column - 1, 0)).cummax(dim=1).values
            rotation = self.rotation[:, places][:, :, None]
        return together & causal(0, t, self.rotation.device), rotation


def rotation_table(config: TransformerConfig) -> Float[Tensor, "2 positions half"]:
    """Cosines and sines of the rotary position embedding (Su et al. 2021, arXiv:2104.09864)."""
    half = config.dim // config.heads // 2
    frequency = config.rope_base ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(config.positions, dtype=torch.float64)[:, None] * frequency
    return torch.stack([angle.cos(), angle.sin()]).float()
