from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextlat_viz import worlds
from nextlat_viz.decoding import ModelPredictor, Predictor, UniformLegal, WorldPredictor, generate, speculative_generate

from .models import random_model

PROMPTS = [np.array([0, 1, 2, 1]), np.array([2]), np.array([1, 1, 0])]


def literally(predictor: Predictor, prompt: np.ndarray, max_tokens: int, stops=()) -> list[int]:
    """Generate greedily, reading everything again for every token."""
    tokens = prompt.tolist()
    for _ in range(max_tokens):
        if predictor.context is not None and len(tokens) > predictor.context:
            break
        tokens.append(int(predictor.next_token_probs(np.array([tokens]))[0, -1].argmax()))
        if tokens[-1] in stops:
            break
    return tokens


@pytest.mark.parametrize("objective", ["next_token", "nextlat", "bst"])
@pytest.mark.parametrize("sizes", [{}, {"kv_heads": 1, "sharing": "k=v"}], ids=["full", "lean"])
@pytest.mark.parametrize("stops", [(), (2,)])
def test_ragged_prompts_continue_as_each_alone(objective, sizes, stops):
    predictor = ModelPredictor(random_model(objective, **sizes))
    generated = generate(predictor, PROMPTS, 20, stop=stops)
    for row, prompt in enumerate(PROMPTS):
        expected = literally(predictor, prompt, 20, stops)
        assert generated.tokens[row, : generated.length[row]].tolist() == expected
        assert (generated.tokens[row, generated.length[row] :] == -1).all()
        assert generated.stopped[row] == (expected[-1] in stops)
        came = generated.continuation[row]
        assert came[came >= 0].tolist() == expected[len(prompt) :]
    assert generated.prompts.tolist() == [4, 1, 3]
    assert generated.prompt == 4


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 8), st.integers(0, 3))
@settings(max_examples=10)
def test_uniform_legal_continues_prompts_of_any_lengths_legally(lengths, max_tokens, seed):
    """UniformLegal generates legal tokens from prompts of any lengths."""
    world = worlds.get("golden_mean")
    drawn = world.sample(len(lengths), 6, seed=seed).tokens
    prompts = [row[:length] for row, length in zip(drawn, lengths, strict=True)]
    for predictor in (UniformLegal(world), WorldPredictor(world)):
        generated = generate(predictor, prompts, max_tokens, temperature=1.0, seed=seed)
        assert (generated.length == np.array(lengths) + max_tokens).all()
        for row, prompt in enumerate(prompts):
            tokens = generated.tokens[row, : generated.length[row]]
            assert (tokens[: len(prompt)] == prompt).all()
            assert world.legal(tokens[None]).all()


def test_an_array_and_a_list_of_its_rows_give_the_same():
    prompts = np.array([[0, 1], [2, 2]])
    for temperature in (0.0, 1.0):
        first, other = (
            generate(random_model(), given, 5, temperature=temperature) for given in (prompts, list(prompts))
        )
        assert (first.tokens == other.tokens).all()


def test_sampling_is_seeded_and_follows_the_model():
    checkpoint = random_model(std=0.3)
    prompts = [np.array([0, 1])] * 4_000 + [np.array([2])] * 4_000
    generated = generate(checkpoint, prompts, 1, temperature=1.0, seed=3)
    again = generate(checkpoint, prompts, 1, temperature=1.0, seed=3)
    assert (generated.tokens == again.tokens).all()
    for half, prompt in ((slice(4_000), prompts[0]), (slice(4_000, None), prompts[-1])):
        law = ModelPredictor(checkpoint).next_token_probs(prompt[None])[0, -1]
        share = np.bincount(generated.continuation[half, 0], minlength=3) / 4_000
        np.testing.assert_allclose(share, law, atol=0.03)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_top_p_draws_only_the_likeliest_tokens(temperature):
    checkpoint, prompts = random_model(std=0.3), [np.array([0, 1])] * 4_000
    law = ModelPredictor(checkpoint).next_token_probs(prompts[0][None])[0, -1] ** (1 / temperature)
    law /= law.sum()
    likeliest = law.argsort()[::-1]
    for count in (1, 2):
        top_p = law[likeliest[: count - 1]].sum() + 0.01
        expected = np.where(np.isin(np.arange(3), likeliest[:count]), law, 0)
        for call in (generate, partial(speculative_generate, draft=2)):
            generated = call(checkpoint, prompts, 1, temperature=temperature, top_p=top_p, seed=3)
            share = np.bincount(generated.continuation[:, 0], minlength=3) / 4_000
            np.testing.assert_allclose(share, expected / expected.sum(), atol=0.03)
            assert (share[expected == 0] == 0).all()


@pytest.mark.parametrize("call", [generate, partial(speculative_generate, draft=2)])
def test_on_tokens_is_called_with_new_tokens(call):
    reported: dict[int, list[int]] = {row: [] for row in range(len(PROMPTS))}
    generated = call(
        random_model(), PROMPTS, 6, stop=2, on_tokens=lambda row, tokens: reported[row].extend(tokens.tolist())
    )
    for row, tokens in reported.items():
        assert tokens == [token for token in generated.continuation[row].tolist() if token >= 0]
    with pytest.raises(TypeError, match="on_tokens"):
        call(random_model(), PROMPTS, 6, on_tokens="print")


def test_no_prompts_and_no_tokens_to_add():
    generated = generate(random_model(), PROMPTS, 0)
    assert generated.length.tolist() == [4, 1, 3]
    assert generated.continuation.shape == (3, 0)
    empty = generate(random_model(), np.zeros((0, 3), dtype=np.int64), 4)
    assert (empty.tokens.shape, empty.continuation.shape) == ((0, 3), (0, 0))


def test_an_empty_prompt_starts_from_the_start_token():
    model = random_model()
    generated = generate(model, [np.array([], dtype=int), np.array([0, 2])], 3)
    first = ModelPredictor(model).start_probs()
    assert generated.tokens[0, 0] == first.argmax()
    assert first.sum() == pytest.approx(1)
    again = generate(model, generated.tokens[:1, :1], 2)
    assert generated.tokens[0, :3].tolist() == again.tokens[0].tolist()
    drafted = speculative_generate(model, [np.array([], dtype=int), np.array([0, 2])], 3, draft=2)
    assert drafted.tokens.tolist() == generated.tokens.tolist()
    world = WorldPredictor(worlds.get("mess3"))
    assert generate(world, np.zeros((2, 0), int), 4, temperature=1.0).tokens.shape == (2, 4)


def test_an_empty_prompt_needs_a_start_token():
    with pytest.raises(ValueError, match=r"at least one token each: .* has no start token"):
        generate(random_model(start_token=False), [np.array([0]), np.array([], dtype=int)], 2)


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([np.array([0.5])], {}, "prompts must be integers"),
        ([np.array([[0]])], {}, r"int64 of shape \(1, 1\)"),
        ([np.array([0, 3])], {}, "prompts hold 3, which is no token of world 'mess3': they are numbered 0 to 2"),
        ([np.zeros(13, dtype=int)], {}, "prompts of 13 tokens are longer than the context of random/nextlat, 12"),
        ([np.array([0])], {"temperature": -1.0}, "temperature=-1.0 must be at least 0"),
        ([np.array([0])], {"temperature": float("nan")}, "temperature=nan must be at least 0"),
        ([np.array([0])], {"top_p": 0.0}, "top_p=0.0 must be above 0, and at most 1"),
        ([np.array([0])], {"top_p": float("nan")}, "top_p=nan must be above 0"),
        ([np.array([0])], {"max_tokens": -1}, "max_tokens=-1 must be at least 0"),
    ],
)
def test_bad_input_is_refused(prompts, options, message):
    with pytest.raises(ValueError, match=message):
        generate(random_model(), prompts, **({"max_tokens": 2} | options))
