from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import nextlat_viz as nlv
from nextlat_viz import latents as nl
from nextlat_viz.errors import LatentsError, UnknownNameError

VOCABULARY, LAYERS, DIM = 24, 2, 16
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": DIM,
    "intermediate_size": 24,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, (40, 7))
LENGTHS = np.random.default_rng(1).integers(2, 8, 40)
REAL = np.arange(7) < LENGTHS[:, None]


def build(kind: str, **options: Any) -> Any:
    torch.manual_seed(0)
    if kind == "gpt2":
        shape = {"vocab_size": VOCABULARY, "n_embd": DIM, "n_layer": LAYERS, "n_head": 2, "n_positions": 16}
        config = transformers.GPT2Config(**{**shape, "bos_token_id": 0, "eos_token_id": 0, **options})
        return transformers.GPT2LMHeadModel(config).eval()
    if kind == "llama":
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SMALL, **options})).eval()
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**{**SMALL, **options})).eval()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    # The Hub's client would wait and retry.
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2"])
def test_latents_equal_hidden_states_of_transformers(kind: str) -> None:
    model = build(kind)
    latents = nl.extract(model, TOKENS, batch_size=16)
    with torch.no_grad():
        plain = model(input_ids=torch.from_numpy(TOKENS), output_hidden_states=True)
    assert nl.sites(latents) == ["embed", "block0", "block1", "hidden"]
    for name, states in zip(("embed", "block0", "hidden"), plain.hidden_states, strict=True):
        np.testing.assert_allclose(nl.site(latents, name), states.flatten(0, 1).numpy(), atol=1e-5)
    probs = plain.logits.softmax(-1).flatten(0, 1).numpy()
    np.testing.assert_allclose(nl.column(latents, "next_token_probs"), probs, atol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(kind: str, side: str) -> None:
    model = build(kind)
    roll = 7 - LENGTHS if side == "left" else LENGTHS * 0
    tokens = np.array([np.roll(row, n) for row, n in zip(TOKENS, roll, strict=True)])
    mask = np.array([np.roll(row, n) for row, n in zip(REAL, roll, strict=True)])
    result = nl.extract(model, tokens, mask=mask, batch_size=9)
    for episode in range(5):
        alone = nl.extract(model, TOKENS[episode : episode + 1, : LENGTHS[episode]])
        np.testing.assert_allclose(result.X[nl.column(result, "episode") == episode], alone.X, atol=1e-5)


def test_from_model_to_probe_to_widget(tmp_path: Path) -> None:
    kind = "qwen2"
    truth = {"size": np.where(TOKENS > 11, "high", "low"), "sum": TOKENS.cumsum(1)}
    names = [f"<{i}>" for i in range(VOCABULARY)]
    options = {"lengths": LENGTHS, "truth": truth, "vocabulary": names, "name": kind, "progress": False}
    in_memory = nlv.extract(build(kind), TOKENS, **options)
    on_disk = nlv.extract(build(kind), TOKENS, **options, out=tmp_path / "a.h5ad")
    for latents in (in_memory, on_disk):
        result = nlv.probe(latents, "size", "embed", n_bootstrap=5)
        assert 0.5 < result.score <= 1
        assert nlv.probe(latents, "sum", n_bootstrap=5).score < 1
        explorer = nlv.LatentExplorer(latents)
        assert explorer.state.labels == [kind]
        explorer.state.color, explorer.state.site, explorer.state.target = "size", "block0", "sum"
        explorer.state.go_to(3, 2)
        explorer.state.select(range(3))
        assert f"&lt;{TOKENS[3, 1]}&gt;" in explorer._where.value
        assert (
            explorer.selection["sum"].tolist()
            == TOKENS[0].cumsum()[:2].tolist() + explorer.selection["sum"].tolist()[2:]
        )
        assert not explorer._alert.value
        explorer.close()
    on_disk.file.close()


def test_a_large_vocabulary_keeps_no_probabilities_and_runs_no_head(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("qwen2", vocab_size=600)
    expected = nl.extract(model, TOKENS, sites=["model.norm"], hidden="model.norm")
    monkeypatch.setattr(model.lm_head, "forward", lambda x: pytest.fail("the head ran"))
    latents = nl.extract(model, TOKENS)
    assert "next_token_probs" not in latents.obsm
    np.testing.assert_array_equal(latents.X, expected.X)
    assert nl.site(nl.extract(model, TOKENS, sites=["model.layers.*.mlp"]), "model.layers.1.mlp").shape == (280, DIM)


def test_sites_and_tokens_are_checked() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown site 'blok1'\. Did you mean 'block1'"):
        nl.extract(build("gpt2"), TOKENS, sites=["blok1"])
    with pytest.raises(LatentsError, match="up to 17 tokens, but this model's context is 16"):
        nl.extract(build("gpt2"), np.zeros((1, 17), int))
    with pytest.raises(LatentsError, match=r"token 24 .* ids go from 0 to 23"):
        nl.extract(build("gpt2"), np.full((1, 3), 24))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers

    path = tmp_path / "tiny"
    build("llama").save_pretrained(path)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(path)
    return path


@pytest.mark.usefixtures("no_network")
def test_loads_a_folder(folder: Path) -> None:
    loaded = nl.load_hf(folder)
    episodes = loaded.tokens(["w3 w4 w5", "w6", "w3 w4"], max_length=2)
    assert episodes.tokens.tolist() == [[3, 4], [6, 0], [3, 4]]
    assert episodes.length.tolist() == [2, 1, 2]
    latents = nl.extract(loaded, episodes)
    assert nl.column(latents, "token").tolist() == ["w3", "w4", "w6", "w3", "w4"]
    assert nl.meta(latents)["name"] == "tiny"
    np.testing.assert_array_equal(nl.extract(f"hf:{folder}", episodes).X, latents.X)
    assert "LlamaForCausalLM" in nl.meta(latents)["card"]


@pytest.mark.usefixtures("no_network")
def test_models_that_cannot_be_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LatentsError, match=r"not a folder with a config\.json"):
        nl.load_hf(folder / "nothing")
    with pytest.raises(LatentsError, match="no model 'nobody/nothing-like-this'"):
        nl.load_hf("hf:nobody/nothing-like-this")
    with pytest.raises(LatentsError, match="list of str"):
        nl.load_hf(folder).tokens("one text")

    weights = folder / "model.safetensors"
    kept = weights.read_bytes()
    weights.unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(LatentsError, match="cannot be loaded as a causal language model in safetensors"):
        nl.load_hf(folder)
    weights.write_bytes(kept)

    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "evil.Model"}}))
    (folder / "evil.py").write_text("raise SystemExit('code was run')")
    with pytest.raises(LatentsError, match=r"refused: its config asks for code .*evil\.Model"):
        nl.load_hf(folder)

    for nested in (
        {"text_config": {"auto_map": ["evil.Model"]}},
        {"auto_map": "evil.Model"},
        {"attn_implementation": "evil/Model"},
    ):
        (folder / "config.json").write_text(json.dumps({**config, **nested}))
        with pytest.raises(LatentsError, match=r"refused: its config asks for code .*evil.Model"):
            nl.load_hf(folder)
    for depth in (150, 900, 200_000):
        (folder / "config.json").write_text('{"a":' * depth + "0" + "}" * depth)
        with pytest.raises(LatentsError, match="nested more than 100 levels deep"):
            nl.load_hf(folder)
    (folder / "config.json").write_text("[" * 200_000)
    with pytest.raises(LatentsError, match="no readable config"):
        nl.load_hf(folder)
    (folder / "config.json").write_text(json.dumps(config))
    weights.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(LatentsError, match="cannot be loaded as a causal language model in safetensors"):
        nl.load_hf(folder)

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r'pip install "nextlat-viz\[hf\]"'):
        nl.load_hf(folder)
