from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from nextlat_viz import worlds
from nextlat_viz.decoding import (
    Adaptive,
    DraftCosts,
    ModelPredictor,
    WorldPredictor,
    generate,
    speculation,
    speculative_generate,
)
from nextlat_viz.decoding.drafters import DRAFTERS, drafter_name, make_drafter
from nextlat_viz.decoding.speculation import acceptance_probs, replacement
from nextlat_viz.training import load

from .models import DRAFTING, random_model

PROMPTS = [np.array([0, 1, 2, 1]), np.array([2]), np.array([1, 1, 0]), np.array([0, 0, 0, 0, 0, 0, 1])]
CHEAP = DraftCosts(draft=0.05, verify=0.02)


def of_equal(one, other):
    assert (one.tokens == other.tokens).all()
    assert (one.length == other.length).all()
    assert (one.stopped == other.stopped).all()
    assert (one.continuation == other.continuation).all()


@pytest.mark.parametrize("objective", DRAFTING)
@pytest.mark.parametrize("sizes", [{}, {"kv_heads": 1, "sharing": "k=v"}], ids=["full", "lean"])
def test_greedy_output_equals_generate(objective, sizes):
    checkpoint = random_model(objective, **sizes)
    for max_tokens, stop in ((1, ()), (6, ()), (40, ()), (40, (1,))):
        expected = generate(checkpoint, PROMPTS, max_tokens, stop=stop)
        for draft in (1, 3, "adaptive", Adaptive(CHEAP)):
            generated = speculative_generate(checkpoint, PROMPTS, max_tokens, draft=draft, stop=stop)
            of_equal(generated, expected)
            counted(generated)


def counted(made):
    """Check that every token comes from a prompt, a draft or a step, and that every draft has one place."""
    came = (made.length - made.prompts).sum()
    cut = (made.length > made.prompts).sum() + made.accepted.sum() + made.steps.sum() - came
    # After an accepted stop token, the extra token of its step is dropped.
    assert 0 <= cut <= made.stopped.sum()
    assert made.proposed.sum() == made.drafted.sum()
    assert made.kept.sum() == made.accepted.sum()
    assert (made.kept <= made.tested).all()
    assert (made.tested <= made.proposed).all()
    if len(made.proposed):
        assert made.tested[0] == made.proposed[0]
    assert (made.tested[1:] <= made.kept[:-1]).all()


@pytest.mark.parametrize("name", ["rrxor/nextlat", "mess3/nextlat"])
def test_greedy_output_of_trained_models_equals_generate(name):
    checkpoint = load(name)
    prompts = [row[: 1 + i % 6] for i, row in enumerate(checkpoint.world.sample(32, 6, seed=5).tokens)]
    expected = generate(checkpoint, prompts, 20)
    for draft in (1, 4, 9, "adaptive"):
        of_equal(speculative_generate(checkpoint, prompts, 20, draft=draft), expected)


def test_every_draft_of_a_perfect_psi_is_accepted():
    """psi is given the states that the transformer will have."""
    checkpoint = random_model(layers=1)
    backbone = checkpoint.model.backbone
    with torch.no_grad():
        for block in backbone.blocks:
            block.attention.out.weight.zero_()
            block.mlp.down.weight.zero_()
    checkpoint.model.psi.forward = lambda hidden, embedding: backbone.norm(embedding)
    for draft, temperature in itertools.product((1, 3, 5, "adaptive"), (0.0, 1.0)):
        generated = speculative_generate(checkpoint, np.array([[0], [1]]), 11, draft=draft, temperature=temperature)
        assert (generated.acceptance == 1).all()
        if draft == 5:
            # The prompt's pass gives 1; then 5 drafts and 1; of the 4 that are left, 3 drafts and 1.
            assert generated.steps.tolist() == [2, 2]
            assert generated.accepted_per_step == 4
            assert generated.saved == pytest.approx(1 - 3 / 11)
            assert generated.proposed.tolist() == [4, 4, 4, 2, 2]


def test_psi_drafts_past_the_horizon_it_was_trained_for():
    checkpoint = random_model("nextlat", horizon=1)
    generated = speculative_generate(checkpoint, PROMPTS, 8, draft=7)
    of_equal(generated, generate(checkpoint, PROMPTS, 8))
    # The first of the eight is the prompt's, and the last is every step's own.
    assert len(generated.proposed) == 6


@pytest.mark.parametrize("objective", DRAFTING)
def test_drafters_give_the_logits_of_training(objective):
    """Logits of drafts equal those in the objective's loss."""
    checkpoint = random_model(objective)
    model, tokens = checkpoint.model, torch.as_tensor(np.random.default_rng(0).integers(3, size=(4, 9)))
    hidden, embed = model.backbone(tokens), model.backbone.embed(tokens)
    t = 4  # the last true state has read tokens 0..4, and token 5 is known
    guess = make_drafter(ModelPredictor(checkpoint), drafter_name(ModelPredictor(checkpoint)), 4)
    guess.read(hidden[:, :2], torch.full((4,), 2))
    guess.read(hidden[:, 2:], torch.full((4,), t - 1))
    result = [guess.begin(hidden[:, t], tokens[:, t + 1]), *(guess.go_on(tokens[:, t + i]) for i in (2, 3))]
    if objective == "nextlat":
        expected = [model.logits(rolled[:, t]) for rolled in model.psi.rollout(hidden, embed, 3)]
    elif objective == "mtp":
        mask, rotation = model.backbone.geometry(9, None)
        expected = [
            model.logits(norm(head(hidden, rotation, mask, None, 0))[:, t])
            for head, norm in zip(model.heads, model.norms, strict=True)
        ]
    else:
        window = torch.cat([hidden[:, t : t + 1], embed[:, t + 1 : t + 4]], dim=1)
        rotation = model.backbone.geometry(4, None)[1]
        fetched = model.norm_out(window + model.fetch(model.norm_in(window), rotation, None, None, 0))
        expected = list(model.logits(fetched[:, 1:]).unbind(1))
    torch.testing.assert_close(result, expected)


def own_law(predictor, prompt, n):
    """Return the probability of every continuation of n tokens."""
    size = len(predictor.world.vocabulary)
    every = np.array(list(itertools.product(range(size), repeat=n)))
    whole = np.concatenate([np.tile(prompt, (len(every), 1)), every], axis=1)
    probs = predictor.next_token_probs(whole)[:, len(prompt) - 1 : -1]
    return dict(
        zip(map(tuple, every.tolist()), np.take_along_axis(probs, every[..., None], 2)[..., 0].prod(1), strict=True)
    )


def speculated_law(predictor, prompt, n, draft):
    """Return the same for speculative decoding: a sum over all drafts, acceptances and replacements."""
    model, size = predictor.model, len(predictor.world.vocabulary)
    memory = {}

    def going_on(tokens):
        """Return the law of what follows the tokens; the transformer has not read the last of them."""
        if len(tokens) == len(prompt) + n:
            return {(): 1.0}
        if tokens not in memory:
            memory[tokens] = step(tokens)
        return memory[tokens]

    def step(tokens):
        k = min(draft, len(prompt) + n - len(tokens) - 1)
        drafts = torch.tensor(list(itertools.product(range(size), repeat=k)), dtype=torch.long).view(size**k, k)
        rows = len(drafts)
        known = torch.tensor(tokens).expand(rows, -1)
        backbone = model.backbone
        hidden = backbone(backbone.started(torch.cat([known, drafts], dim=1)))
        read = len(tokens) - 1 + backbone.offset
        p = model.logits(hidden[:, read:]).softmax(-1)
        guess = make_drafter(predictor, drafter_name(predictor), rows)
        guess.read(hidden[:, :read], torch.full((rows,), read))
        logits = []
        for i in range(k):
            last = hidden[:, read - 1], known[:, -1]
            logits.append(guess.begin(*last) if i == 0 else guess.go_on(drafts[:, i - 1]))
        q = torch.stack(logits, 1).softmax(-1) if k else torch.zeros(rows, 0, size, dtype=p.dtype)
        drawn = q.gather(2, drafts[..., None])[..., 0].prod(1)
        chances, counts = acceptance_probs(p, q, drafts), torch.full((rows,), k)
        law = {}
        for kept in range(k + 1):
            end = replacement(p, q, counts, torch.full((rows,), kept))
            weight = drawn * chances[:, :kept].prod(1) * (1 - chances[:, kept] if kept < k else 1)
            for row, token in itertools.product(range(rows), range(size)):
                came = (*drafts[row, :kept].tolist(), token)
                for rest, probability in going_on(tokens + came).items():
                    law[came + rest] = law.get(came + rest, 0.0) + float(weight[row] * end[row, token]) * probability
        return law

    first = predictor.next_token_probs(np.array([prompt]))[0, -1]
    law = {}
    for token in range(size):
        for rest, probability in going_on((*prompt, token)).items():
            law[(token, *rest)] = law.get((token, *rest), 0.0) + first[token] * probability
    return law


@pytest.mark.parametrize("objective", DRAFTING)
@pytest.mark.parametrize(("world", "n", "draft"), [("rrxor", 5, 3), ("mess3", 4, 2), ("rrxor", 4, 1)])
@torch.no_grad()
def test_the_distribution_equals_the_models_by_enumeration(objective, world, n, draft):
    predictor = ModelPredictor(random_model(objective, world))
    expected = own_law(predictor, (0, 1), n)
    result = speculated_law(predictor, (0, 1), n, draft)
    assert result.keys() == expected.keys()
    assert sum(result.values()) == pytest.approx(1, abs=1e-12)
    for sequence, probability in expected.items():
        assert result[sequence] == pytest.approx(probability, abs=1e-9)


def drawn_law(checkpoint, prompt, n, rows, **options):
    """Return how often each continuation is drawn, and how often it should be."""
    size = len(checkpoint.world.vocabulary)
    prompts = np.tile(prompt, (rows, 1))
    generated = speculative_generate(checkpoint, prompts, n, **options)
    codes = generated.continuation @ size ** np.arange(n)[::-1]
    expected = np.array(list(own_law(ModelPredictor(checkpoint), prompt, n).values()))
    return np.bincount(codes, minlength=size**n), expected, generated


@pytest.mark.parametrize(
    ("objective", "draft"),
    [("nextlat", 2), ("nextlat", Adaptive(CHEAP)), ("mtp", 2), ("mtp", Adaptive(CHEAP)), ("jtp", 3)],
)
def test_samples_fit_the_models_distribution(objective, draft):
    checkpoint, rows = random_model(objective, std=0.35, layers=1, dim=8, mlp_dim=8), 10_000
    observed, law, result = drawn_law(checkpoint, (0, 1), 4, rows, draft=draft, temperature=1.0, seed=1)
    counted(result)
    assert 0.02 < result.accepted.sum() / result.drafted.sum() < 0.98
    assert fit(observed, law) > 1e-3


def fit(observed, law):
    """Return the p-value of a chi-squared test; outcomes expected fewer than 5 times are pooled."""
    often = law * observed.sum() >= 5
    observed, law = (np.append(its[often], its[~often].sum()) for its in (observed, law))
    possible = law > 0
    assert observed[~possible].sum() == 0
    return chisquare(observed[possible], law[possible] / law.sum() * observed.sum()).pvalue


@pytest.mark.soak
@pytest.mark.parametrize("draft", [2, "adaptive"])
def test_a_million_samples_fit_the_models_distribution(draft, soak):
    checkpoint = random_model("nextlat", std=0.35, layers=1, dim=8, mlp_dim=8)
    checkpoint = replace(checkpoint, model=checkpoint.model.float())
    total, rounds = 0, 10 if soak else 2
    for seed in range(rounds):
        observed, law, _ = drawn_law(checkpoint, (0, 1), 3, 100_000, draft=draft, temperature=1.0, seed=seed)
        total = total + observed
    assert total.sum() == rounds * 100_000
    assert fit(total, law) > 1e-3


@pytest.mark.parametrize("wrong", ["always accepted", "p instead of what is left"])
def test_the_fit_test_detects_a_wrong_distribution(wrong, monkeypatch):
    checkpoint = random_model("nextlat", std=0.35, layers=1, dim=8, mlp_dim=8)
    if wrong == "always accepted":
        monkeypatch.setattr(speculation, "acceptance_probs", lambda p, q, drafts: torch.ones_like(drafts).double())
    else:
        monkeypatch.setattr(speculation, "replacement", lambda p, q, counts, kept: p[torch.arange(len(p)), kept])
    observed, law, _ = drawn_law(checkpoint, (0, 1), 4, 10_000, draft=2, temperature=1.0, seed=1)
    assert fit(observed, law) < 1e-6


def test_temperature_applies_to_the_transformer():
    checkpoint = random_model("nextlat", std=0.35)
    generated = speculative_generate(checkpoint, np.zeros((5_000, 2), int), 2, draft=1, temperature=0.5, seed=2)
    law = ModelPredictor(checkpoint).next_token_probs(np.array([[0, 0]]))[0, -1] ** 2
    share = np.bincount(generated.continuation[:, 0], minlength=3) / 5_000
    np.testing.assert_allclose(share, law / law.sum(), atol=0.03)


def test_sampling_is_seeded():
    checkpoint = random_model()
    for draft in (3, "adaptive"):
        first, same, other = (
            speculative_generate(checkpoint, PROMPTS, 8, draft=draft, temperature=1.0, seed=seed) for seed in (1, 1, 2)
        )
        of_equal(first, same)
        assert not (first.tokens == other.tokens).all()


def test_adaptive_drafting_depends_on_costs_and_acceptance():
    checkpoint = random_model()
    prompts = np.random.default_rng(0).integers(3, size=(64, 1))

    def drafted(**costs):
        generated = speculative_generate(checkpoint, prompts, 11, draft=Adaptive(DraftCosts(**costs)))
        return generated.drafted.sum() / generated.steps.sum()

    assert drafted(draft=50.0, verify=0.0) == 0
    assert drafted(draft=0.0, verify=50.0) == 0
    free, dear = drafted(draft=0.0, verify=0.0), drafted(draft=0.3, verify=0.1)
    assert free > dear > 0


def test_results_have_a_table_and_html():
    generated = speculative_generate(random_model(), PROMPTS, 8, draft=2)
    frame = generated.to_frame()
    assert frame["place"].tolist() == [1, 2]
    np.testing.assert_allclose(frame["acceptance"], frame["accepted"] / frame["proposed"])
    np.testing.assert_allclose(frame["given_before"], frame["accepted"] / frame["tested"])
    assert "psi, 2 tokens" in repr(generated)
    assert "passes saved" in generated._repr_html_()
    nothing = speculative_generate(random_model(), PROMPTS, 0)
    assert (nothing.saved, nothing.accepted_per_step, len(nothing.to_frame())) == (0, 0, 0)


@pytest.mark.parametrize(
    ("objective", "options", "message"),
    [
        ("next_token", {}, r"next_token, which has nothing to draft tokens with.*nextlat \(psi\), mtp \(mtp\), jtp"),
        ("bst", {}, "which has nothing to draft"),
        (
            "mtp",
            {"draft": 4},
            "draft=4 is more than the 3 tokens after the next that random/mtp was trained to",
        ),
        ("jtp", {"draft": 4}, "draft=4 is more than the 3 tokens after the next"),
        ("nextlat", {"draft": 12}, "draft=12 does not fit the context of random/nextlat, 12.*at most 11"),
        ("nextlat", {"draft": 0}, "draft=0 must be at least 1 token, or 'adaptive'"),
        ("nextlat", {"drafter": "mtp"}, "drafter='mtp' needs a model trained by mtp.*give 'psi'"),
        ("nextlat", {"drafter": "pse"}, "unknown drafter 'pse'. Did you mean 'psi'"),
        ("nextlat", {"temperature": -0.1}, "temperature=-0.1"),
    ],
)
def test_bad_input_is_refused(objective, options, message):
    with pytest.raises(ValueError, match=message):
        speculative_generate(random_model(objective), PROMPTS, 4, **options)


def test_a_world_has_no_drafter():
    with pytest.raises(ValueError, match="is not a trained model"):
        speculative_generate(WorldPredictor(worlds.get("mess3")), PROMPTS, 4)


def test_drafter_names():
    for name, (kind, _) in DRAFTERS.items():
        assert drafter_name(ModelPredictor(random_model(kind.name)), name) == name
