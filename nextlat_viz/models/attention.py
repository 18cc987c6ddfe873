"""Attention with rotary positions: full, grouped-query or multi-query, with projections shared or not."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator
from torch import Tensor, nn

Sharing = Literal["none", "k=v", "q=k", "q=k=v"]


class TransformerConfig(BaseModel):
    """Sizes of a :class:`Transformer`; `context` is the longest sequence it reads.

    `kv_heads` is how many heads keys and values have: as many as queries when None; fewer are grouped-query attention
    (Ainslie et al. 2023, arXiv:2305.13245), one is multi-query attention (Shazeer 2019, arXiv:1911.02150).
    `sharing` says which of the projections to queries, keys and values are one and the same (arXiv:2606.04032).

    Examples
    --------
    >>> full = TransformerConfig(vocabulary_size=2, heads=4, dim=64)
    >>> lean = TransformerConfig(vocabulary_size=2, heads=4, dim=64, kv_heads=1, sharing="k=v")
    >>> full.kv_cache_bytes() // lean.kv_cache_bytes()
    8
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary_size: PositiveInt
    context: PositiveInt = 12
    layers: PositiveInt = 4
    heads: PositiveInt = 4
    dim: PositiveInt = 64
    mlp_dim: PositiveInt = 128
    kv_heads: PositiveInt | None = None
    sharing: Sharing = "none"
    rope_base: float = 10_000.0

    @model_validator(mode="after")
    def _heads_fit(self) -> TransformerConfig:
        if self.dim % (2 * self.heads):
            raise ValueError(
                f"dim={self.dim} must be a multiple of 2 x heads={2 * self.heads}: rotary positions turn pairs of "
                "coordinates in each head. Change dim or heads."
            )
        if self.heads % self.groups:
            raise ValueError(f"kv_heads={self.kv_heads} must divide heads={self.heads}: each serves as many queries")
        if self.sharing in ("q=k", "q=k=v") and self.groups != self.heads:
            raise ValueError(
                f"sharing={self.sharing!r} makes queries and keys one, so kv_heads={self.kv_heads} must be "
                f"heads={self.heads}, or None"
            )
        return self

    @property
    def groups(self) -> int:
        """Heads of keys and values."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def cached(self) -> int:
        """Vectors the cache holds per token and head: key and value, or the one that is both."""
        return 1 if self.sharing in ("k=v", "q=k=v") else 2

    def kv_cache_bytes(self, batch_size: int = 1, length: int | None = None, dtype: torch.dtype = torch.float32) -> int:
        """Bytes that :class:`KVCache` takes for sequences of `length` tokens (the context when None)."""
        tokens = batch_size * (self.context if length is None else length)
        return self.layers * self.cached * tokens * self.groups * (self.dim // self.heads) * dtype.itemsize


class KVCache:
    """Keys and values of the tokens read so far, in one buffer per layer.

    `length` tokens are held; :meth:`truncate` rolls back, e.g. after rejected drafts. Where key and value come of one
    projection, that is held once and turned to its position when it is read as a key.
    """

    def __init__(self, config: TransformerConfig, batch_size: int, like: Tensor) -> None:
        size = config.dim // config.heads
        self.buffers = like.new_zeros(config.layers, config.cached, batch_size, config.groups, config.context, size)
        self.length = 0

    def append(self, layer: int, *new: Float[Tensor, "b g t d"]) -> tuple[Float[Tensor, "b g s d"], ...]:
        """Hold what came of the new tokens; returns it for all tokens so far."""
        end = self.length + new[0].shape[2]
        for i, values in enumerate(new):
            self.buffers[layer, i, :, :, self.length : end] = values
        return tuple(self.buffers[layer, i, :, :, :end] for i in range(len(new)))

    def truncate(self, length: int) -> None:
        if not 0 <= length <= self.length:
            raise ValueError(f"length={length} must be between 0 and the {self.length} tokens the cache holds")
        self.length = length


class Attention(nn.Module):
    """Causal self-attention.

    Queries and keys are turned to their positions after the projection, so also where it is shared, and values are
    not: with one projection for all three, query, key and value still differ by a rotation.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.sharing, self.size = config.heads, config.sharing, config.dim // config.heads
        heads, groups = config.heads, config.groups
        widths = {"none": [heads, groups, groups], "k=v": [heads, groups], "q=k": [heads, heads], "q=k=v": [heads]}
        self.widths = widths[config.sharing]
        self.grouped = groups != heads
        self.qkv = nn.Linear(config.dim, self.size * sum(self.widths), bias=False)
        self.out = nn.Linear(config.dim, config.dim, bias=False)

    def forward(
        self,
        x: Float[Tensor, "b t dim"],
        rotation: Float[Tensor, "2 s half"],
        mask: Bool[Tensor, "..."] | None,
        cache: KVCache | None,
        layer: int,
    ) -> Float[Tensor, "b t dim"]:
        b, t, dim = x.shape
        parts = self.qkv(x).split([self.size * width for width in self.widths], dim=-1)
        projected = [part.view(b, t, -1, self.size).transpose(1, 2) for part in parts]
        here = rotation[:, -t:]
        query, last = rotate(projected[0], here), projected[-1]
        held: tuple[Tensor, ...]
        if self.sharing in ("k=v", "q=k=v"):
            held = (last,)
        else:
            held = (query if self.sharing == "q=k" else rotate(projected[1], here), last)
        if cache is not None:
            held = cache.append(layer, *held)
        key, value = held if len(held) == 2 else (rotate(held[0], rotation), held[0])
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, enable_gqa=self.grouped
        )
        return self.out(out.transpose(1, 2).reshape(b, t, dim))


def rotate(x: Float[Tensor, "b h t d"], rotation: Float[Tensor, "2 t half"]) -> Float[Tensor, "b h t d"]:
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
