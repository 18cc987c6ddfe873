from __future__ import annotations

import numpy as np
import pytest

from nextlat_viz import worlds
from nextlat_viz.decoding import Adaptive, DraftCosts, ModelPredictor, WorldPredictor, measure_costs

from .models import DRAFTING, random_model


def test_what_one_step_teaches():
    policy = Adaptive(DraftCosts(draft=0.1, verify=0.05, start=0.2), most=3)
    assert policy.rate == 1
    assert policy.chance(0, np.array([0.1, 0.9])) == pytest.approx([0.9, 0.9])
    policy.learn(np.array([[0.9, 0.9]]), np.array([2]), np.array([1]), guessed=2)
    # One draft and one token besides; a pass, its start, two guesses and two drafts verified.
    assert policy.rate == pytest.approx((1 + 2) / (1 + 1 + 0.2 + 0.2 + 0.1))
    # Half of two at this confidence, shrunk to 0.9 with the weight of two; then each place to that.
    anywhere = (1 + 2 * 0.9) / (2 + 2)
    assert policy.chance(0, np.array([0.9])) == pytest.approx([(1 + 2 * anywhere) / 3])
    assert policy.chance(1, np.array([0.9])) == pytest.approx([2 * anywhere / 3])
    assert policy.chance(2, np.array([0.9])) == pytest.approx([anywhere])
    assert policy.chance(1, np.array([0.1])) == pytest.approx([0.9])


def test_drafts_after_a_rejected_one_teach_nothing():
    one, other = (Adaptive(DraftCosts(0.1, 0.05), most=3) for _ in range(2))
    one.learn(np.full((1, 3), 0.9), np.array([3]), np.array([0]), guessed=3)
    other.learn(np.full((1, 1), 0.9), np.array([1]), np.array([0]), guessed=1)
    for place in range(3):
        assert one.chance(place, np.array([0.9])) == other.chance(place, np.array([0.9]))


def test_the_start_has_to_be_earned_by_all_drafts_together():
    # Hoped for are 0.9 + 0.9^2 + ... drafts; the first alone would not pay for the start.
    assert Adaptive(DraftCosts(0.0, 0.1, start=1.0), most=3).worth_guessing(0, np.ones(2)).tolist() == [True, True]
    assert not Adaptive(DraftCosts(0.0, 0.1, start=1.0), most=1).worth_guessing(0, np.ones(1)).any()
    assert not Adaptive(DraftCosts(0.0, 0.1, start=3.0), most=3).worth_guessing(0, np.ones(1)).any()
    # Later ones are asked by themselves, row by row.
    later = Adaptive(DraftCosts(0.0, 0.1, start=1.0), most=3).worth_guessing(1, np.array([0.5, 0.1]))
    assert later.tolist() == [True, False]


@pytest.mark.parametrize(
    ("acceptance", "costs"),
    [
        (0.2, DraftCosts(0.4, 0.1)),
        (0.6, DraftCosts(0.1, 0.05)),
        (0.6, DraftCosts(0.05, 0.05, start=0.5)),
        (0.9, DraftCosts(0.1, 0.05)),
    ],
)
def test_it_comes_near_the_best_fixed_length(acceptance, costs):
    """Where every draft is accepted with one probability, the best length is known."""
    rng, most = np.random.default_rng(0), 8
    drafted = np.arange(most + 1)
    tokens = 1 + np.cumsum(np.append(0, acceptance ** drafted[1:]))
    spent = 1 + drafted * (costs.draft + costs.verify) + (drafted > 0) * costs.start
    best = (tokens / spent).max()

    policy, made, taken = Adaptive(costs, most), 0.0, 0.0
    for _ in range(300):
        counts, reach = 0, np.ones(1)
        while counts < most and policy.worth_guessing(counts, reach)[0]:
            reach = reach * policy.chance(counts, np.array([0.6]))
            if not policy.worth_verifying(reach)[0]:
                break
            counts += 1
        kept = int((rng.random(counts) < acceptance).cumprod().sum())
        policy.learn(np.full((1, counts), 0.6), np.array([counts]), np.array([kept]), guessed=counts)
        made, taken = made + tokens[counts], taken + spent[counts]
    assert made / taken > 0.9 * best


def test_what_did_not_pay_is_tried_again():
    policy = Adaptive(DraftCosts(0.3, 0.3), most=2)
    for _ in range(20):
        policy.learn(np.full((1, 1), 0.6), np.array([1]), np.array([0]), guessed=1)
    assert not policy.worth_guessing(0, np.ones(1))[0]
    for _ in range(800):
        policy.learn(np.zeros((1, 0)), np.array([0]), np.array([0]), guessed=0)
    assert policy.worth_guessing(0, np.ones(1))[0]


@pytest.mark.parametrize("objective", DRAFTING)
def test_costs_of_a_model(objective):
    predictor = ModelPredictor(random_model(objective))
    told, measured = DraftCosts.by_weights(predictor), measure_costs(predictor, repeats=2)
    assert 0 < told.draft < 1
    assert measured.draft > 0
    assert told == DraftCosts.by_weights(predictor)


def test_what_costs_refuse():
    with pytest.raises(ValueError, match=r"draft=-1\.0 must be a cost of at least 0"):
        DraftCosts(draft=-1.0, verify=0.0)
    with pytest.raises(ValueError, match="start=nan must be a cost"):
        DraftCosts(draft=0.0, verify=0.0, start=float("nan"))
    with pytest.raises(ValueError, match="tokens=11 must be at least 2, and with two more fit the context, 12"):
        measure_costs(random_model(), tokens=11)
    with pytest.raises(ValueError, match="is not a trained model"):
        measure_costs(WorldPredictor(worlds.get("mess3")))
