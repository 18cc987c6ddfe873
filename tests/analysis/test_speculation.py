from __future__ import annotations

import numpy as np
import pytest

import nextlat_viz as nlv
from nextlat_viz.analysis.speculation import PER_STEP, SAVED, SHARE, acceptance
from nextlat_viz.decoding import DraftCosts, speculative_generate

from .models import last_token_only


def of(found, draft, quantity):
    table = found.table
    (value,) = table[(table["draft"] == str(draft)) & (table["quantity"] == quantity)]["value"]
    return value


def test_a_perfect_psi_has_every_draft_accepted():
    result = acceptance(last_token_only(), drafts=[1, 3], n=8, progress=False)
    context = last_token_only().model.backbone.config.context
    assert (context, of(result, 1, SHARE), of(result, 3, SHARE)) == (12, 1.0, 1.0)
    # A token of prompt; then 12 more: the prompt's pass gives 1, five steps of 1 + 1, and one token alone.
    assert of(result, 1, SAVED) == pytest.approx(1 - 7 / 12)
    assert of(result, 1, PER_STEP) == pytest.approx(5 / 6)
    # Or two steps of 3 + 1, and one of 2 + 1.
    assert of(result, 3, SAVED) == pytest.approx(1 - 4 / 12)
    assert of(result, 3, PER_STEP) == pytest.approx(8 / 3)


def test_counts_equal_those_of_speculative_generate():
    checkpoint = nlv.load("rrxor/nextlat")
    result = acceptance(checkpoint, drafts=[4], n=32, seed=5, progress=False)
    prompts = checkpoint.world.sample(32, 13, seed=5).tokens[:, :1]
    generated = speculative_generate(checkpoint, prompts, 12, draft=4, temperature=1.0, seed=5)
    assert of(result, 4, PER_STEP) == pytest.approx(generated.accepted_per_step)
    assert of(result, 4, SHARE) == pytest.approx(generated.accepted.sum() / generated.drafted.sum())
    assert of(result, 4, SAVED) == pytest.approx(generated.saved)
    assert set(result.table["trials"]) == {32}


def test_every_seed_and_setting_is_in_the_table():
    result = acceptance([nlv.load("mess3/nextlat"), nlv.load("mess3/nextlat", 1)], n=4, progress=False)
    assert set(result.table["draft"]) == {"1", "2", "4", "8", "adaptive"}
    assert len(result.table) == 2 * 5 * 3
    assert set(result.table["drafter"]) == {"psi"}


def test_no_drafts_are_made_where_none_pays():
    result = acceptance(
        nlv.load("mess3/nextlat"), drafts=["adaptive"], n=4, costs=DraftCosts(draft=99.0, verify=0.0), progress=False
    )
    assert of(result, "adaptive", PER_STEP) == of(result, "adaptive", SAVED) == 0
    assert np.isnan(of(result, "adaptive", SHARE))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mess3/next_token", {}, "has nothing to draft tokens with"),
        ("mess3/nextlat", {"drafts": []}, "drafts is empty"),
        ("mess3/nextlat", {"drafts": [12]}, "draft=12 does not fit the context"),
        ("mess3/nextlat", {"max_tokens": 1}, "max_tokens=1 must be at least 2"),
        ("mess3/nextlat", {"n": 1}, "n=1 must be at least 2"),
    ],
)
def test_bad_input_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        acceptance(nlv.load(name), **({"n": 4} | options), progress=False)
