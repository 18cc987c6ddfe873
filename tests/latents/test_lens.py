"""TransformerLens and nnsight: extraction by their own names of sites, and checkpoints as models of TransformerLens.

Both are imported by the tests that need them: each process collects all tests, and one runs these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

import nextlat_viz as nlv
from nextlat_viz import latents as nl
from nextlat_viz.errors import CheckpointError, UnknownNameError
from nextlat_viz.models import TransformerConfig
from nextlat_viz.models.transformer import Transformer

from .conftest import random_checkpoint

TOKENS = np.random.default_rng(0).integers(0, 5, (7, 6))


@pytest.fixture(scope="module")
def lens() -> Any:
    from transformer_lens.model_bridge.sources import native

    sizes = {"n_layers": 2, "d_model": 8, "d_head": 4, "n_heads": 2, "d_mlp": 8, "n_ctx": 6, "d_vocab": 5}
    return native.boot({**sizes, "act_fn": "gelu", "seed": 0, "device": "cpu"})


def test_sites_of_transformer_lens(lens: Any) -> None:
    sites = ["blocks.*.hook_resid_post", "blocks.1.attn.hook_in", "ln_final.hook_normalized"]
    latents = nlv.extract(lens, TOKENS, sites=sites, batch_size=3, progress=False)
    assert nl.sites(latents) == [
        "blocks.0.hook_resid_post",
        "blocks.1.hook_resid_post",
        "blocks.1.attn.hook_in",
        "hidden",
    ]
    with torch.no_grad():
        _, cache = lens.run_with_cache(torch.from_numpy(TOKENS))
    for name in (*nl.sites(latents)[:-1], "ln_final.hook_normalized"):
        np.testing.assert_allclose(nl.site(latents, name), cache[name].flatten(0, 1), atol=1e-5)
    with pytest.raises(UnknownNameError, match=r"Did you mean 'blocks\.1\.hook_resid_post'"):
        nlv.extract(lens, TOKENS, sites="blocks.1.hook_resid_pos", progress=False)


def test_a_bridge_of_a_hugging_face_model_is_read_at_its_hook_points(tmp_path: Path) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=5, n_positions=6, bos_token_id=0, eos_token_id=0)
    inner = GPT2LMHeadModel(config).eval()
    inner.save_pretrained(tmp_path)
    bridge = TransformerBridge.boot_transformers(str(tmp_path), hf_model=inner, device="cpu")
    latents = nlv.extract(bridge, TOKENS, sites=["blocks.*.hook_resid_post"], progress=False)
    own = nlv.extract(inner, TOKENS, progress=False)
    np.testing.assert_allclose(nl.site(latents, "blocks.0.hook_resid_post"), nl.site(own, "block0"), atol=1e-6)
    np.testing.assert_allclose(latents.X, nl.site(own, "block1"), atol=1e-6)


@pytest.mark.parametrize("language_model", [False, True])
def test_sites_of_nnsight(language_model: bool) -> None:
    import nnsight

    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=5, n_positions=6)
    inner: nn.Module = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 8))
    inner = GPT2LMHeadModel(config).eval() if language_model else inner
    wrapped = nnsight.NNsight(inner)
    site = "transformer.h.1" if language_model else "1"
    latents = nlv.extract(wrapped, TOKENS, sites=[site], hidden=site, progress=False)
    with torch.no_grad(), wrapped.trace(torch.from_numpy(TOKENS)):
        saved = wrapped.get(site).output.save()
    state = saved if isinstance(saved, torch.Tensor) else saved[0]
    np.testing.assert_allclose(latents.X, state.flatten(0, 1), atol=1e-6)
    if language_model:
        assert nl.sites(nlv.extract(wrapped, TOKENS, progress=False)) == ["embed", "block0", "block1", "hidden"]


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"start_token": False},
        {"kv_heads": 1},
        {"sharing": "k=v", "kv_heads": 2},
        {"sharing": "q=k"},
        {"sharing": "q=k=v"},
    ],
)
def test_checkpoints_compute_the_same_in_transformer_lens(shape: dict[str, Any]) -> None:
    checkpoint = random_checkpoint(world="mess3")
    torch.manual_seed(0)
    config = TransformerConfig(vocabulary_size=3, context=8, layers=2, heads=4, dim=16, mlp_dim=24, **shape)
    backbone = Transformer(config).eval()
    for weights in backbone.parameters():
        # Larger than at initialisation, so that attention is far from uniform.
        nn.init.normal_(weights, std=0.5)
    checkpoint.model.backbone = backbone
    bridge = nlv.to_transformer_lens(checkpoint)
    tokens = backbone.started(torch.from_numpy(TOKENS % 3))
    with torch.no_grad():
        logits, cache = bridge.run_with_cache(tokens)
        states = backbone.states(tokens)
        torch.testing.assert_close(logits, backbone.logits(states["hidden"]), rtol=1e-4, atol=1e-4)
    for i in range(2):
        torch.testing.assert_close(cache[f"blocks.{i}.hook_resid_post"], states[f"block{i}"], rtol=1e-4, atol=1e-4)
    assert cache["blocks.0.attn.hook_pattern"].shape == (7, 4, tokens.shape[1], tokens.shape[1])


def test_a_hook_changes_what_a_checkpoint_predicts() -> None:
    checkpoint = nlv.load("mess3/nextlat")
    bridge = nlv.to_transformer_lens(checkpoint)
    tokens = checkpoint.model.backbone.started(torch.from_numpy(checkpoint.world.sample(3, 6, seed=0).tokens))
    with torch.no_grad():
        before = bridge(tokens)
        after = bridge.run_with_hooks(tokens, fwd_hooks=[("blocks.0.hook_resid_post", lambda state, hook: state * 0)])
    assert not torch.allclose(before, after)


def test_a_recursive_model_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"is a recursive model.*TransformerLens has no such model"):
        nlv.to_transformer_lens(nlv.load("queens/trm"))
