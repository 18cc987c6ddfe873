"""Drafting for a Hugging Face model: a small Llama, made from its configuration, with psi added to it."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from functools import partial

import numpy as np
import pytest
import torch
import transformers

from nextlat_viz.decoding import Adaptive, DraftCosts, ModelPredictor, generate, measure_costs, speculative_generate
from nextlat_viz.hf.finetune import finetune

from .test_speculation import counted, drawn_law, fit, of_equal, own_law, speculated_law

PROMPTS = [np.array([0, 1, 2, 1]), np.array([2]), np.array([1, 1, 0])]
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
CONTEXT = 12


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """In double precision, with weights so large that drafts are sometimes right."""
    config = transformers.LlamaConfig(vocab_size=3, max_position_embeddings=CONTEXT, eos_token_id=2, **SIZES)
    tokens = np.random.default_rng(0).integers(3, size=(100, 8))
    model = transformers.LlamaForCausalLM(config)
    options = {"steps": 1, "held_out": 8, "progress": False, "psi_width": 16}
    tuned = finetune(model, tokens, out=tmp_path_factory.mktemp("llama"), **options)
    generator = torch.Generator().manual_seed(1)
    for parameter in tuned.network.double().parameters():
        parameter.data.normal_(std=0.4, generator=generator)
    return tuned


@pytest.mark.parametrize("draft", [1, 2])
@torch.no_grad()
def test_the_distribution_equals_the_models_by_enumeration(llama, draft):
    predictor = ModelPredictor(llama)
    expected, law = own_law(predictor, (0, 1), 4), speculated_law(predictor, (0, 1), 4, draft)
    assert law.keys() == expected.keys()
    for sequence, probability in expected.items():
        assert law[sequence] == pytest.approx(probability, abs=1e-9)


@pytest.mark.parametrize("adaptive", [False, True])
def test_samples_fit_the_models_distribution(llama, adaptive):
    draft = Adaptive(DraftCosts(0.05, 0.02)) if adaptive else 2
    observed, law, result = drawn_law(llama, (0, 1), 3, 4_000, draft=draft, temperature=1.0, seed=1, stop=())
    counted(result)
    assert 0.02 < result.accepted.sum() / result.drafted.sum() < 0.98
    assert fit(observed, law) > 1e-3


def test_a_batch_equals_each_row_alone_and_transformers(llama):
    for draft in (1, 3, "adaptive", Adaptive(DraftCosts(0.01, 0.01))):
        generated = speculative_generate(llama, PROMPTS, 6, draft=draft, stop=())
        counted(generated)
        of_equal(generated, generate(llama, PROMPTS, 6, stop=()))
        for row, prompt in enumerate(PROMPTS):
            alone = speculative_generate(llama, [prompt], 6, draft=draft, stop=())
            assert generated.tokens[row, : generated.length[row]].tolist() == alone.tokens[0].tolist()
    for row, prompt in enumerate(PROMPTS):
        tokens = torch.from_numpy(prompt)[None]
        options = {"max_new_tokens": 6, "min_new_tokens": 0, "do_sample": False, "eos_token_id": None}
        expected = llama.model.generate(tokens, attention_mask=torch.ones_like(tokens), pad_token_id=0, **options)
        assert generated.tokens[row, : generated.length[row]].tolist() == expected[0].tolist()


@pytest.mark.parametrize("call", [generate, partial(speculative_generate, draft=2)])
def test_the_end_of_a_text_stops_by_default(llama, call):
    assert llama.ends == (2,)
    options = {"temperature": 1.0, "seed": 3}
    prompts = np.tile([0, 1], (64, 1))
    generated = call(llama, prompts, 8, **options)
    of_equal(generated, call(llama, prompts, 8, stop=2, **options))
    ends = (generated.continuation == 2).any(axis=1)
    assert (generated.stopped == ends).all()
    assert ends.sum() > 0
    assert not call(llama, prompts, 8, stop=(), **options).stopped.any()


def test_all_ends_of_the_generation_config_count(llama, monkeypatch):
    monkeypatch.setattr(llama.model.generation_config, "eos_token_id", [0, 2])
    assert llama.ends == (0, 2)
    monkeypatch.setattr(llama.model.generation_config, "eos_token_id", None)
    assert llama.ends == (2,)
    monkeypatch.setattr(llama.model.config, "eos_token_id", None)
    assert llama.ends == ()


@pytest.mark.parametrize("options", [{"temperature": 0.5}, {"top_p": 0.7}, {"temperature": 2.0, "top_p": 0.6}])
def test_temperature_and_top_p_as_in_generate(llama, options):
    options = {"temperature": 1.0, "stop": ()} | options
    prompts = np.tile([0, 1], (4_000, 1))
    shares = [
        np.bincount(result.continuation @ [3, 1], minlength=9) / len(prompts)
        for result in (
            generate(llama, prompts, 2, seed=1, **options),
            speculative_generate(llama, prompts, 2, draft=1, seed=2, **options),
        )
    ]
    np.testing.assert_allclose(*shares, atol=0.03)
    assert ((shares[0] == 0) == (shares[1] == 0)).all()


def test_drafts_end_with_the_context(llama):
    with pytest.raises(ValueError, match=r"draft=12 does not fit the context of .*, 12.*at most 11"):
        speculative_generate(llama, PROMPTS, 40, draft=CONTEXT)
    for draft in (CONTEXT - 1, "adaptive"):
        generated = speculative_generate(llama, PROMPTS, 40, draft=draft, stop=())
        of_equal(generated, generate(llama, PROMPTS, 40, stop=()))
        assert (generated.length == CONTEXT + 1).all()


def test_costs_are_measured(llama):
    costs = measure_costs(llama, repeats=2)
    assert costs.draft > 0
    generated = speculative_generate(llama, PROMPTS, 6, draft=Adaptive(costs), stop=())
    of_equal(generated, generate(llama, PROMPTS, 6, stop=()))


def test_on_tokens_drives_a_text_streamer_of_transformers(llama):
    class Words:
        def decode(self, tokens, **_):
            return "".join(f"{token} " for token in tokens)

    streamer = transformers.TextStreamer(Words())
    with redirect_stdout(io.StringIO()) as out:
        generated = speculative_generate(
            llama, PROMPTS[:1], 6, draft=2, stop=(), on_tokens=lambda _, new: streamer.put(torch.from_numpy(new))
        )
        streamer.end()
    assert out.getvalue().split() == [str(token) for token in generated.continuation[0]]


def test_an_altered_model_keeps_its_own_output(llama, monkeypatch):
    """psi then drafts from unknown states, and with the old weights of the head."""
    llama.network.restrict(torch.tensor([0, 1]))
    weights = {name: values.clone() for name, values in llama.model.state_dict().items()}
    try:
        with torch.no_grad():
            for parameter in llama.model.parameters():
                parameter.mul_(-1.5)
        expected = generate(llama, PROMPTS, 8, stop=())
        generated = speculative_generate(llama, PROMPTS, 8, draft=2, stop=())
        of_equal(generated, expected)
        observed, law, _ = drawn_law(llama, (0, 1), 3, 4_000, draft=2, temperature=1.0, seed=1, stop=())
        assert fit(observed, law) > 1e-3
    finally:
        llama.model.load_state_dict(weights)
        llama.network.restrict(torch.arange(3))
