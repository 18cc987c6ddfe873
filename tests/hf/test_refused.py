"""Models, texts and machines that do not fit give one clear error and leave no partial files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import nextlat_viz as nlv
from nextlat_viz.errors import CheckpointError, LatentsError, TrainingError
from nextlat_viz.hf.backbone import PostHoc

VOCABULARY, CONTEXT = 6, 16
TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, (200, 8))
QUICK = {"steps": 2, "batch_size": 4, "held_out": 8, "progress": False}


def build(**options: Any) -> Any:
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "max_position_embeddings": CONTEXT}
    sizes |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes | options)).eval()


@pytest.fixture
def words() -> Any:
    """A tokenizer of the words w0 to w9, more than the model has tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(10)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0")


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_an_encoder_decoder_is_refused(kind: str, tmp_path: Path) -> None:
    if kind == "t5":
        config = transformers.T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
        model: Any = transformers.T5ForConditionalGeneration(config)
    else:
        sizes = {"vocab_size": 8, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1}
        sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
        sizes |= {"encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "max_position_embeddings": 16}
        model = transformers.BartForConditionalGeneration(transformers.BartConfig(**sizes))
    model.save_pretrained(tmp_path / "model")
    # transformers would load only the decoder of a Bart, with a warning.
    with pytest.raises(ValueError, match=rf"an encoder-decoder \({kind}\).* give a causal language model"):
        nlv.finetune(tmp_path / "model", TOKENS, out=tmp_path / "out", **QUICK)
    with pytest.raises(ValueError, match="no causal language model"):
        nlv.finetune(model, TOKENS, out=tmp_path / "out", **QUICK)
    with pytest.raises(LatentsError, match="an encoder-decoder"):
        nlv.load(f"hf:{tmp_path / 'model'}")
    assert not (tmp_path / "out").exists()


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    build().save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    quantised = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}
    path.write_text(json.dumps(json.loads(path.read_text()) | quantised))
    for attempt in (nlv.finetune, nlv.load):
        with pytest.raises(ValueError, match=r"quantised \(bitsandbytes\): give the model it was made from"):
            attempt(*((tmp_path / "model", TOKENS) if attempt is nlv.finetune else (f"hf:{tmp_path / 'model'}",)))
    model = build()
    model.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(torch.zeros(16, 16).char(), requires_grad=False)
    with pytest.raises(ValueError, match="has quantised weights"):
        nlv.finetune(model, TOKENS, out=tmp_path / "out", **QUICK)
    assert not (tmp_path / "out").exists()


def test_texts_of_another_vocabulary_are_refused(words: Any, tmp_path: Path) -> None:
    texts = [f"w1 w2 w{i % 10} w3 w{i // 10 % 10} w{i // 100}" for i in range(200)]
    with pytest.raises(ValueError, match=r"token 6, .* vocabulary, 0 to 5: use the model's own tokenizer"):
        nlv.finetune(build(), texts, tokenizer=words, out=tmp_path / "out", **QUICK)
    build().save_pretrained(tmp_path / "model")
    words.save_pretrained(tmp_path / "model")
    loaded = nlv.load(f"hf:{tmp_path / 'model'}")
    with pytest.raises(LatentsError, match="token 9 of episode 0"):
        nlv.extract(loaded, ["w1 w9"], out=tmp_path / "out.h5ad", progress=False)
    with pytest.raises(ValueError, match="9"):
        nlv.decoding.generate(loaded, ["w1 w9"], 2)
    assert not list(tmp_path.glob("*out*"))


def test_texts_without_a_tokenizer_are_refused(tmp_path: Path) -> None:
    build().save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="no tokenizer in the folder of the model: give tokenizer="):
        nlv.finetune(tmp_path / "model", ["a text"] * 30, out=tmp_path / "out", **QUICK)
    loaded = nlv.load(f"hf:{tmp_path / 'model'}")
    for attempt in (lambda: nlv.extract(loaded, ["a text"]), lambda: nlv.decoding.generate(loaded, ["a text"], 2)):
        with pytest.raises(ValueError, match=r"no tokenizer.* give token ids"):
            attempt()
    assert not (tmp_path / "out").exists()


def test_texts_shorter_than_a_row(words: Any, tmp_path: Path) -> None:
    model = build(vocab_size=10)
    with pytest.raises(ValueError, match=r"corpus is empty, or too small .* give tens of different sequences"):
        nlv.finetune(model, ["w1 w2"], tokenizer=words, length=8, out=tmp_path / "out", **QUICK)
    assert not (tmp_path / "out").exists()
    # Short ones are padded.
    texts = [f"w1 w2 w{i % 10} w{i // 10 % 10}" for i in range(100)]
    tuned = nlv.finetune(model, texts, tokenizer=words, length=8, out=tmp_path / "out", **QUICK)
    assert tuned.card.corpus["length"] == 4


def test_drafts_longer_than_the_context_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="horizon=7 must be at least 1 and at most 6"):
        nlv.finetune(build(), TOKENS, horizon=7, out=tmp_path / "out", **QUICK)
    tuned = nlv.finetune(build(), TOKENS, out=tmp_path / "out", **QUICK)
    plain = nlv.decoding.generate(tuned, TOKENS[:2], CONTEXT - 8)
    drafted = nlv.decoding.speculative_generate(tuned, TOKENS[:2], CONTEXT - 8, draft=8)
    assert (drafted.tokens == plain.tokens).all()
    with pytest.raises(ValueError, match="16"):
        nlv.decoding.speculative_generate(tuned, TOKENS[:2], CONTEXT, draft=CONTEXT + 1)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["GPU", "Python", "CPU"],
)
def test_full_memory_names_what_to_lower(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    model = build()
    monkeypatch.setattr(PostHoc, "forward", full)
    with pytest.raises(TrainingError, match=r"ran out of memory with batch_size=4.* Lower batch_size or length"):
        nlv.finetune(model, TOKENS, out=tmp_path / "out", **QUICK)
    assert not (tmp_path / "out" / "card.json").exists()
    monkeypatch.setattr(model.model, "forward", full)
    with pytest.raises(LatentsError, match="ran out of memory on 16 sequences of 8 tokens: give a batch_size below 16"):
        nlv.extract(model, TOKENS, batch_size=16, out=tmp_path / "out.h5ad", progress=False)
    assert not (tmp_path / "out.h5ad").exists()


@pytest.mark.parametrize("tied", [False, True])
def test_tied_weights(tied: bool, tmp_path: Path) -> None:
    for mode in ("psi", "full"):
        tuned = nlv.finetune(build(tie_word_embeddings=tied), TOKENS, mode=mode, out=tmp_path / mode, **QUICK)
        copy = nlv.load_finetuned(tuned.save(tmp_path / f"{mode}-copy"))
        assert (copy.model.lm_head.weight is copy.model.model.embed_tokens.weight) == tied
        assert torch.equal(copy.model.lm_head.weight, tuned.model.lm_head.weight)


def test_psi_of_an_altered_model_is_refused(tmp_path: Path) -> None:
    tuned = nlv.finetune(build(), TOKENS, out=tmp_path / "out", **QUICK)
    with torch.no_grad():
        tuned.model.lm_head.weight[0, 0] += 1
    tuned.model.save_pretrained(tmp_path / "out" / "model")
    with pytest.raises(CheckpointError, match="psi was trained on the model as it was: restore it, or fine-tune again"):
        nlv.load_finetuned(tmp_path / "out")
