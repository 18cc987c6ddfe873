"""Attention with rotary positions and its key-value cache; full, grouped-query, multi-query or shared projections."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator
from torch import Tensor, nn

Sharing = Literal["none", "k=v", "q=k", "q=k=v"]


class TransformerConfig(BaseModel):
    """Sizes of a :class:`Transformer`; `context` is the longest sequence it reads, without the start token.

    With `start_token` the model reads a learned start token before token 1, at position 0. Without `causal` every
    position attends to all, and the model reads whole rows at once.

    `kv_heads` is the number of heads of keys and values: as many as queries when None; fewer are grouped-query
    attention (Ainslie et al. 2023, arXiv:2305.13245), one is multi-query attention (Shazeer 2019, arXiv:1911.02150).
    `sharing` says which of the projections to queries, keys and values are shared (arXiv:2606.04032).

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
    start_token: bool = True
    causal: bool = True
    rope_base: float = 10_000.0

    @model_validator(mode="after")
    def _heads_fit(self) -> TransformerConfig:
        if self.dim % (2 * self.heads):
            raise ValueError(
                f"dim={self.dim} must be a multiple of 2 x heads={2 * self.heads}: rotary positions turn pairs of "
                "coordinates in each head. Change dim or heads."
            )
        if self.heads % self.groups:
            raise ValueError(
                f"kv_heads={self.kv_heads} must divide heads={self.heads}: each serves the same number of query heads"
            )
        if self.sharing in ("q=k", "q=k=v") and self.groups != self.heads:
            raise ValueError(
                f"sharing={self.sharing!r} shares one projection for queries and keys, so kv_heads={self.kv_heads} "
                f"must be heads={self.heads}, or None"
            )
        return self

    @property
    def groups(self) -> int:
        """Heads of keys and values."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def positions(self) -> int:
        """Maximum number of positions in a row: the context, and position 0 if there is a start token."""
        return self.context + self.start_token

    @property
    def cached(self) -> int:
        """Vectors cached per token and head: 2 for key and value, 1 if they share a projection."""
        return 1 if self.sharing in ("k=v", "q=k=v") else 2

    def kv_cache_bytes(self, batch_size: int = 1, length: int | None = None, dtype: torch.dtype = torch.float32) -> int:
        """Bytes that :class:`KVCache` takes for sequences of `length` tokens (the context when None)."""
        tokens = batch_size * (self.positions if length is None else length + self.start_token)
        return self.layers * self.cached * tokens * self.groups * (self.dim // self.heads) * dtype.itemsize


class KVCache:
    """Keys and values of the tokens read so far, in one buffer per layer; a start token counts as one of them.

    Rows may have different numbers of tokens: those of row i are at indices 0 to ``lengths[i] - 1``, and later indices
    are never attended to. :meth:`truncate` removes the last tokens of rows, e.g. rejected drafts, and :meth:`keep`
    selects rows. Where key and value come from one projection, it is stored once and rotated to its position when it
    is used as a key.

    To read tokens call :meth:`begin`, one :meth:`append` per layer (its attention does), and :meth:`end`; a
    :class:`Transformer` given a cache does all three.

    Attributes
    ----------
    lengths : (b,) integers
        Tokens in each row; on the CPU, so that reading them does not wait for the device.
    length : int
        Tokens in the longest row.

    Examples
    --------
    >>> cache = KVCache(TransformerConfig(vocabulary_size=2), batch_size=2, like=torch.zeros(1))
    >>> mask, rotation = cache.begin(3, torch.tensor([3, 2]), torch.zeros(2, 13, 8))
    >>> cache.end()
    >>> cache.lengths.tolist(), cache.length
    ([3, 2], 3)
    """

    def __init__(self, config: TransformerConfig, batch_size: int, like: Tensor) -> None:
        size = config.dim // config.heads
        self.buffers = like.new_zeros(config.layers, config.cached, batch_size, config.groups, config.positions, size)
        self.lengths = torch.zeros(batch_size, dtype=torch.long)
        self.length = 0
        self._equal = True
        self._config = config

    def begin(
        self, t: int, counts: Int[Tensor, " b"] | None, rotation: Float[Tensor, "2 positions half"]
    ) -> tuple[Bool[Tensor, "..."] | None, Float[Tensor, "2 s half"]]:
        """Prepare for t more tokens in each row, or for the first `counts` of them; the rest is padding.

        Returns
        -------
        mask, rotation
            Which positions each new token attends to, and the rotations of all positions. The mask is None if the
            kernel needs none: for causal attention from an empty cache, and for a single token, which attends to all.

        Raises
        ------
        ValueError
            If a row would be longer than the context.
        """
        added = torch.full_like(self.lengths, t) if counts is None else counts.to(self.lengths)
        if counts is not None and not bool(((added >= 0) & (added <= t)).all()):
            raise ValueError(f"counts={added.tolist()} must be between 0 and the {t} tokens given for each row")
        self._after = self.lengths + added
        end = int(self._after.max()) if len(self._after) else t
        fits(end - self._config.start_token, self._config.context)
        device = self.buffers.device
        # Rows of equal length are written as one block, without an index. This may write padding too, which is safe:
        # it lies past `lengths`, where nothing attends and the next tokens overwrite it.
        if self._equal and self.length + t <= self._config.positions:
            start, end = self.length, self.length + t
            self._end = end
            self._block: slice | None = slice(start, end)
            self.here = rotation[:, start:end]
            if start == 0 or t == 1:
                return None, rotation[:, :end]
            return causal(start, t, device), rotation[:, :end]
        at = torch.arange(t)
        places = self.lengths[:, None] + at
        real = at < added[:, None]
        self._block, self._end, self._real = None, end, real.to(device)
        self._rows, self._places = (index.to(device) for index in (real.nonzero()[:, 0], places[real]))
        places = places.clamp(max=self._config.positions - 1).to(device)
        self.here = rotation[:, places][:, :, None]
        mask = places[:, None, :, None] >= torch.arange(end, device=device)
        return mask, rotation[:, :end]

    def append(self, layer: int, *new: Float[Tensor, "b g t d"]) -> tuple[Float[Tensor, "b g s d"], ...]:
        """Store a layer's keys and values of the new tokens; returns those of all tokens so far."""
        for i, values in enumerate(new):
            if self._block is not None:
                self.buffers[layer, i, :, :, self._block] = values
            else:
                self.buffers[layer, i][self._rows, :, self._places] = values.transpose(1, 2)[self._real]
        return tuple(self.buffers[layer, i, :, :, : self._end] for i in range(len(new)))

    def end(self) -> None:
        """Add the tokens that every layer has appended to `lengths`."""
        self._set_lengths(self._after)

    def truncate(self, length: int | Int[Tensor, " b"]) -> None:
        """Keep the first `length` tokens of each row: one number, or one per row. Nothing is copied."""
        lengths = torch.as_tensor(length).to(self.lengths).expand_as(self.lengths)
        if not bool(((lengths >= 0) & (lengths <= self.lengths)).all()):
            cached = self.length if self._equal else self.lengths.tolist()
            raise ValueError(f"length={length} must be between 0 and the {cached} tokens the cache holds")
        self._set_lengths(lengths.clone())

    def keep(self, rows: Bool[Tensor, " b"] | Int[Tensor, " n"]) -> None:
        """Keep some of the rows: a mask, or indices; a row may occur several times."""
        rows = rows.cpu()
        self.buffers = self.buffers[:, :, rows.to(self.buffers.device)]
        self._set_lengths(self.lengths[rows])

    def _set_lengths(self, lengths: Int[Tensor, " b"]) -> None:
        self.lengths = lengths
        self.length = int(lengths.max()) if len(lengths) else 0
        self._equal = bool((lengths == self.length).all())


def causal(start: int, t: int, device: torch.device) -> Bool[Tensor, "t s"]:
    """Causal mask of t positions from `start` over all positions so far."""
    positions = torch.arange(start + t, device=device)
    return positions[start:, None] >= positions


def fits(tokens: int, context: int) -> None:
    """Raise ValueError if a sequence, without its start token, is longer than the context."""
    if tokens > context:
        raise ValueError(
            f"tokens: {tokens} positions are more than this model's context of {context}. "
            "Shorten the sequences or train with a larger context."
        )


class Attention(nn.Module):
    """Self-attention, causal unless the config says otherwise.

    Queries and keys are rotated to their positions after the projection, values are not. So with one projection for
    all three, query, key and value still differ by a rotation.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.sharing, self.size = config.heads, config.sharing, config.dim // config.heads
        self.causal = config.causal
        heads, groups = config.heads, config.groups
        widths = {"none": [heads, groups, groups], "k=v": [heads, groups], "q=k": [heads, heads], "q=k=v": [heads]}
        self.widths = widths[config.sharing]
        self.grouped = groups != heads
        self.qkv = nn.Linear(config.dim, self.size * sum(self.widths), bias=False)
        self.out = nn.Linear(config.dim, config.dim, bias=False)

    def forward(
        self,
        x: Float[Tensor, "b t dim"],
        rotation: Float[Tensor, "2 *places half"],
        mask: Bool[Tensor, "..."] | None,
        cache: KVCache | None,
        layer: int,
    ) -> Float[Tensor, "b t dim"]:
        b, t, dim = x.shape
        parts = self.qkv(x).split([self.size * width for width in self.widths], dim=-1)
        projected = [part.view(b, t, -1, self.size).transpose(1, 2) for part in parts]
        here = rotation if cache is None else cache.here
        query, last = rotate(projected[0], here), projected[-1]
        stored: tuple[Tensor, ...]
        if self.sharing in ("k=v", "q=k=v"):
            stored = (last,)
        else:
            stored = (query if self.sharing == "q=k" else rotate(projected[1], here), last)
        if cache is not None:
            stored = cache.append(layer, *stored)
        key, value = stored if len(stored) == 2 else (rotate(stored[0], rotation), stored[0])
        # A single token attends to everything in the cache; the kernel's causal mask would show it only the first.
        causal = self.causal and mask is None and t > 1
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=causal, enable_gqa=self.grouped
        )
        return self.out(out.transpose(1, 2).reshape(b, t, dim))


def rotate(x: Float[Tensor, "b h t d"], rotation: Float[Tensor, "2 *places half"]) -> Float[Tensor, "b h t d"]:
    """Rotate pairs of coordinates to their positions, which are (t,) for all rows or (b, 1, t) for each row."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
