"""Checkpoints as models of TransformerLens: the same function, with its hook points."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from nextlat_viz.errors import CheckpointError, optional, shown
from nextlat_viz.models.torch_state import torch_defaults
from nextlat_viz.models.transformer import Transformer
from nextlat_viz.training.checkpoint import Checkpoint, load


@torch_defaults()
def to_transformer_lens(checkpoint: Checkpoint | str) -> Any:
    """Convert a checkpoint to a model of TransformerLens, which computes the same logits.

    ``run_with_cache``, ``run_with_hooks`` and hook points such as ``blocks.0.hook_resid_post`` or
    ``blocks.0.attn.hook_pattern`` then work as on any of its models. Only the backbone is converted: psi and the heads
    of other objectives stay behind. A model with a start token reads it as its last token id, so put it in front of the
    tokens: ``checkpoint.model.backbone.started(tokens)``.

    Parameters
    ----------
    checkpoint : Checkpoint, or its name
        Of an autoregressive objective.

    Returns
    -------
    transformer_lens.TransformerBridge
        In evaluation mode on the CPU, with copies of the weights.

    Raises
    ------
    ImportError
        TransformerLens 4 or later is not installed.
    CheckpointError
        A recursive model, whose two states and inner steps TransformerLens has no blocks for.

    Examples
    --------
    >>> to_transformer_lens("queens/trm")
    Traceback (most recent call last):
    nextlat_viz.errors.CheckpointError: queens-size=7...seed0 is a recursive model, ...
    """
    trained = load(checkpoint) if isinstance(checkpoint, (str, os.PathLike)) else checkpoint
    if not isinstance(trained, Checkpoint):
        raise TypeError(f"checkpoint must be a Checkpoint or its name, got {shown(checkpoint)}")
    backbone: Any = trained.model.backbone
    if type(backbone) is not Transformer or not backbone.config.causal:
        raise CheckpointError(
            f"{trained.name} is a recursive model, or reads all positions at once: TransformerLens has no such "
            "model. nlv.extract reads its states"
        )
    advice = "this needs the package TransformerLens: pip install 'transformer-lens>=4'"
    lens = optional("transformer_lens", advice)
    native = optional("transformer_lens.model_bridge.sources.native.model", advice)
    build = optional("transformer_lens.model_bridge.sources.native", advice).build_bridge_from_module
    config = backbone.config
    size, vocabulary = config.dim // config.heads, config.vocabulary_size
    shape = lens.TransformerBridgeConfig.from_dict(
        {
            "n_layers": config.layers,
            "d_model": config.dim,
            "d_head": size,
            "n_heads": config.heads,
            "n_key_value_heads": config.groups,
            "d_mlp": config.mlp_dim,
            "n_ctx": config.positions,
            "d_vocab": vocabulary + config.start_token,
            "d_vocab_out": vocabulary,
            "act_fn": "silu",
            "gated_mlp": True,
            "normalization_type": "RMS",
            "final_rms": True,
            # The default of torch's RMSNorm.
            "eps": torch.finfo(torch.float32).eps,
            "positional_embedding_type": "rotary",
            "rotary_base": config.rope_base,
            "rotary_dim": size,
            "device": "cpu",
        }
    )
    model = native.NativeModel(shape)
    model.load_state_dict(_weights(backbone))
    name = "TransformerLensNative"
    bridge = build(model.eval(), architecture=name, tl_config=shape, tokenizer=None, model_name=trained.name)
    return bridge.eval()


def _weights(backbone: Transformer) -> dict[str, Tensor]:
    """Return the weights by the names of TransformerLens, with one projection each to queries, keys and values."""
    config = backbone.config
    size = config.dim // config.heads
    # We rotate coordinate i together with i + half of a head; TransformerLens rotates neighbouring coordinates.
    pairs = torch.arange(size).view(2, size // 2).T.reshape(-1)
    weights = {
        "tok_embed.weight": backbone.embed.weight,
        "ln_out.weight": backbone.norm.weight,
        "head.weight": backbone.head.weight,
    }
    for i, block in enumerate(backbone.blocks):
        attention: Any = block.attention
        parts = list(attention.qkv.weight.split([size * width for width in attention.widths]))
        # Queries, keys and values that share a projection get a copy each.
        query, value = parts[0], parts[-1]
        key = parts[1] if config.sharing == "none" else value if config.sharing == "k=v" else query
        in_pairs = [part.view(-1, size, config.dim)[:, pairs].reshape(part.shape) for part in (query, key)]
        gate, up = block.mlp.gate_up.weight.chunk(2)  # type: ignore[union-attr, operator]
        layer = f"layers.{i}."
        projections = {"q": in_pairs[0], "k": in_pairs[1], "v": value, "o": attention.out.weight}
        weights |= {f"{layer}attn.{name}.weight": matrix for name, matrix in projections.items()}
        weights |= {f"{layer}attn.{name}.bias": torch.zeros(len(matrix)) for name, matrix in projections.items()}
        weights |= {
            f"{layer}mlp.gate.weight": gate,
            f"{layer}mlp.in.weight": up,
            f"{layer}mlp.out.weight": block.mlp.down.weight,  # type: ignore[union-attr, dict-item]
            f"{layer}ln1.weight": block.attention_norm.weight,  # type: ignore[union-attr, dict-item]
            f"{layer}ln2.weight": block.mlp_norm.weight,  # type: ignore[union-attr, dict-item]
        }
    return {name: tensor.detach().clone() for name, tensor in weights.items()}
