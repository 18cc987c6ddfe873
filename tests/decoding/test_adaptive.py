from __future__ import annotations

import numpy as np
import pytest

from nextlat_viz import worlds
from nextlat_viz.decoding import (
    Adaptive,
    DraftCosts,
    ModelPredictor,
    WorldPredictor,
    measure_costs,
    speculative_generate,
)

from .models import DRAFTING, random_model


def drafting(policy: Adaptive, acceptance, tokens: int, seed: int = 0) -> tuple[list[int], float]:
    """Return the lengths chosen and the passes spent; `acceptance` is a function of the tokens so far."""
    rng, result, spent, lengths = np.random.default_rng(seed), 0, 0.0, []
    while result < tokens:
        lengths.append(policy.length())
        kept = int((rng.random(lengths[-1]) < acceptance(result)).cumprod().sum())
        policy.learn(np.array([lengths[-1]]), np.array([kept]))
        result, spent = result + kept + 1, spent + cost(policy.costs, lengths[-1])
    return lengths, spent / result


def cost(costs: DraftCosts, drafts):
    return 1 + drafts * (costs.draft + costs.verify) + (drafts > 0) * costs.start


def rates(costs: DraftCosts, acceptance: float, most: int = 16) -> np.ndarray:
    """Return the tokens per pass of every fixed length, if every draft has the same acceptance."""
    drafts = np.arange(most + 1)
    return np.cumsum(acceptance**drafts) / cost(costs, drafts)


COSTS = [DraftCosts(0.05, 0.03), DraftCosts(0.1, 0.05, start=0.3), DraftCosts(0.4, 0.1)]


def test_chances_after_a_step():
    policy = Adaptive(DraftCosts(draft=0.1, verify=0.05), most=3)
    assert policy.chances == pytest.approx([0.9] * 3)
    policy.learn(np.array([2]), np.array([1]))
    # One of two accepted; the prior of 0.9 counts as two tests, the mean over places as three at each.
    anywhere = (1 + 2 * 0.9) / (2 + 2)
    assert policy.chances == pytest.approx([(1 + 3 * anywhere) / 4, 3 * anywhere / 4, anywhere])


def test_drafts_after_a_rejected_one_do_not_count():
    first, other = (Adaptive(DraftCosts(0.1, 0.05), most=3) for _ in range(2))
    first.learn(np.array([3]), np.array([0]))
    other.learn(np.array([1]), np.array([0]))
    assert (first.chances == other.chances).all()


def test_the_start_cost_is_shared_by_all_drafts():
    # 0.9 + 0.9^2 + ... drafts are expected; the first alone would not pay for the start.
    assert Adaptive(DraftCosts(0.0, 0.1, start=1.0), most=3).length() == 3
    assert Adaptive(DraftCosts(0.0, 0.1, start=1.0), most=1).length() == 0
    assert Adaptive(DraftCosts(0.0, 0.1, start=3.0), most=3).length() == 0


@pytest.mark.parametrize("acceptance", [0.1, 0.4, 0.7, 0.9, 0.98])
@pytest.mark.parametrize("costs", COSTS)
def test_the_best_fixed_length_is_chosen(acceptance, costs):
    exact = rates(costs, acceptance)
    lengths = [drafting(Adaptive(costs), lambda _: acceptance, 500, seed)[0] for seed in range(3)]
    # Neighbours of the best length are often as good, so the speed is compared.
    assert np.mean([exact[chosen[20:]].mean() for chosen in lengths]) > 0.97 * exact.max()
    # The first steps must learn the acceptance.
    assert np.mean([exact[chosen[:20]].mean() for chosen in lengths]) > 0.9 * exact.max()


@pytest.mark.parametrize("costs", COSTS)
def test_the_length_follows_changes_in_acceptance(costs):
    """Adaptive drafting beats every fixed length on text that is alternately easy and hard."""
    levels = (0.97, 0.3)
    _, spent = drafting(Adaptive(costs), lambda made: levels[made // 400 % 2], 2400)
    # Both have the same number of tokens.
    fixed = 2 / sum(1 / rates(costs, level) for level in levels)
    assert 1 / spent > 0.98 * fixed.max()


@pytest.mark.parametrize("costs", COSTS)
def test_an_unlucky_step_costs_little(costs):
    policy = Adaptive(costs)
    drafting(policy, lambda _: 0.9, 500)
    policy.learn(np.array([policy.length()]), np.array([0]))
    exact = rates(costs, 0.9)
    assert exact[policy.length()] > 0.9 * exact.max()
    first = Adaptive(costs)
    first.learn(np.array([first.length()]), np.array([0]))
    lengths, _ = drafting(first, lambda _: 0.9, 200)
    assert exact[lengths[10:]].mean() > 0.9 * exact.max()


def test_a_place_where_drafts_fail_is_not_reached():
    """As in repetitive text, where the token after five drafts is always a surprise."""
    policy, lengths = Adaptive(DraftCosts(0.04, 0.05, start=0.1)), []
    for _ in range(60):
        lengths.append(policy.length())
        policy.learn(np.array([lengths[-1]]), np.array([min(lengths[-1], 5)]))
    assert np.bincount(lengths).argmax() == 5
    # The place is still tried now and then.
    assert max(lengths[20:]) > 5


def test_another_length_must_be_clearly_better():
    policy = Adaptive(DraftCosts(0.1, 0.05))
    chosen = policy.length()
    changes = 0
    for kept in (3, 4) * 50:
        policy.learn(np.array([chosen]), np.array([min(kept, chosen)]))
        changes, chosen = changes + (policy.length() != chosen), policy.length()
    assert changes < 8


def test_a_length_that_did_not_pay_is_tried_again():
    policy = Adaptive(DraftCosts(0.1, 0.1), most=2)
    for _ in range(20):
        policy.learn(np.array([policy.length()]), np.array([0]))
    assert policy.length() == 0
    for _ in range(800):
        policy.learn(np.array([0]), np.array([0]))
    assert policy.length() > 0


def test_all_rows_update_the_estimates():
    together, separate = (Adaptive(DraftCosts(0.1, 0.05), most=3) for _ in range(2))
    together.learn(np.array([3, 2, 0]), np.array([1, 2, 0]))
    for counts, kept in ((3, 1), (2, 2), (0, 0)):
        separate.learn(np.array([counts]), np.array([kept]))
    np.testing.assert_allclose(together.chances, separate.chances, atol=0.01)


def test_a_policy_keeps_what_it_learned_in_further_calls():
    checkpoint, policy = random_model(), Adaptive(DraftCosts(0.01, 0.01))
    prompts = np.random.default_rng(0).integers(3, size=(8, 1))
    first = speculative_generate(checkpoint, prompts, 11, draft=policy)
    known = policy.chances.copy()
    speculative_generate(checkpoint, prompts, 11, draft=policy)
    assert first.draft == "adaptive"
    assert (known != policy.chances).any()
    # "adaptive" begins anew, so that a seed gives the same tokens.
    single, other = (speculative_generate(checkpoint, prompts, 11, draft="adaptive", temperature=1.0) for _ in range(2))
    assert (single.tokens == other.tokens).all()


@pytest.mark.parametrize("objective", DRAFTING)
def test_costs_by_weights_are_near_measured_costs(objective):
    predictor = ModelPredictor(random_model(objective))
    estimated, measured = DraftCosts.by_weights(predictor), measure_costs(predictor, repeats=2)
    assert 0 < estimated.draft < 1
    assert measured.draft > 0
    assert estimated == DraftCosts.by_weights(predictor)
    # In a batch the weights are read once for all rows, so one more token is a larger share of a pass.
    many = DraftCosts.by_weights(predictor, rows=64)
    assert estimated.verify < many.verify < 1
    assert estimated.draft == many.draft


def test_bad_costs_are_refused():
    with pytest.raises(ValueError, match=r"draft=-1\.0 must be a cost of at least 0"):
        DraftCosts(draft=-1.0, verify=0.0)
    with pytest.raises(ValueError, match="start=nan must be a cost"):
        DraftCosts(draft=0.0, verify=0.0, start=float("nan"))
    with pytest.raises(ValueError, match="tokens=11 must be at least 2, and with two more fit the context, 12"):
        measure_costs(random_model(), tokens=11)
    with pytest.raises(ValueError, match="is not a trained model"):
        measure_costs(WorldPredictor(worlds.get("mess3")))
