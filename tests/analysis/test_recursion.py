"""Measures of recursive models, compared with the answers board by board."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import nextlat_viz as nlv
from nextlat_viz import analysis
from nextlat_viz.analysis.measure import battery
from nextlat_viz.errors import LatentsError
from nextlat_viz.figures import thinking_curves
from nextlat_viz.latents import Thinking, heldout, think
from nextlat_viz.worlds import Episodes

OPTIONS = {
    **{"layers": 1, "dim": 16, "heads": 2, "mlp_dim": 16, "start_token": False, "steps": 40, "batch_size": 16},
    **{"recursion_steps": 3, "latent_updates": 1, "validate_every": 20, "validation_episodes": 8, "progress": False},
    **{"learning_rate": 0.01, "warmup_steps": 2, "decay_steps": 10},
}
MEASURES = ["solved_puzzles", "solved_by_step", "steps_needed", "advantage_margin", "guidance_strength"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return nlv.train("queens:size=4,given=1", "trm", out=tmp_path_factory.mktemp("runs") / "trm", **OPTIONS)


@pytest.fixture(scope="module")
def thinking(model) -> Thinking:
    return think(model, heldout(model, 24))


def values(measure, **settings):
    table = measure.table
    for name, value in settings.items():
        table = table[table[name] == value]
    return table["value"].to_numpy()


def test_solved_conflicts_and_margins_by_step(model, thinking):
    result = analysis.solved_by_step(model, n=24, progress=False)
    boards, answers = thinking.puzzles, thinking.answers()
    for step in range(3):
        solved = [model.world.solved(answers[[i], step], boards.tokens[[i]])[0] for i in range(24)]
        assert values(result, step=step + 1, quantity="solved") == pytest.approx([np.mean(solved)])
        conflicts = [model.world.conflicts(answers[[i], step])[0] for i in range(24)]
        assert values(result, step=step + 1, quantity="conflicts") == pytest.approx([np.mean(conflicts)])
    last = analysis.solved_puzzles(model, n=24, progress=False)
    for quantity in ("solved", "distance", "conflicts"):
        assert values(last, quantity=quantity) == values(result, step=3, quantity=quantity)
    longer = analysis.solved_by_step(model, steps=5, n=24, progress=False).table.query("quantity == 'solved'")
    assert longer["trained"].tolist() == [True] * 3 + [False] * 2

    margins = analysis.advantage_margin(model, n=24, progress=False)
    np.testing.assert_allclose(values(margins, cells="all"), thinking.margins.mean(axis=(0, 2)), rtol=1e-6)
    queens = (boards.targets == 1) & (boards.tokens == 0)
    expected = np.mean([thinking.margins[i][:, queens[i]].mean(axis=1) for i in range(24)], axis=0)
    np.testing.assert_allclose(values(margins, cells="queen"), expected, rtol=1e-6)
    everything_dead = analysis.advantage_margin(model, n=24, dead=1.01, progress=False).table
    assert everything_dead["dead"].all()
    assert not analysis.advantage_margin(model, n=24, dead=0.0, progress=False).table["dead"].any()


def test_guidance_of_one_is_the_model_and_of_zero_the_step_before(model, thinking):
    guided = analysis.guidance_strength(model, (0.0, 1.0), n=24, progress=False)
    by_step = thinking.facts()["solved"].mean(axis=0)
    np.testing.assert_allclose(values(guided), [by_step[1], by_step[2]])


def test_steps_needed_is_the_step_from_which_a_board_stays_solved():
    solved = np.array([[[0, 0, 1], [1, 0, 1], [1, 1, 1], [1, 1, 0]]], dtype=bool)[0]
    assert analysis.recursion.needed_steps(solved).tolist() == [3, 3, 1, 0]


def test_forward_passes_count_halting_and_unsolved_boards(model):
    passes = analysis.forward_passes(model, n=24, progress=False)
    # Three cycles of two passes in each of three steps.
    assert values(passes, quantity="answer") == 18
    solved = values(analysis.solved_puzzles(model, n=24, progress=False), quantity="solved")[0]
    assert values(passes, quantity="solved") == pytest.approx(18 / solved if solved else math.inf)
    updates = model.metrics["train/updates"]
    assert (updates <= 3).all()
    assert values(passes, quantity="training") == pytest.approx(6 * updates.mean())


def test_evaluate_measures_only_recursive_models_by_them(model):
    mine = battery(model)
    assert {*MEASURES, "forward_passes", "loss", "training_cost"} == set(mine)
    assert not set(MEASURES) & set(battery(nlv.load("rrxor/nextlat")))
    with pytest.raises(LatentsError, match="guidance is for recursive models"):
        analysis.guidance_strength("rrxor/nextlat", progress=False)


def test_puzzles_of_another_world_are_compared_with_their_targets():
    logits = np.zeros((1, 1, 3, 2))
    logits[0, 0, :, 1] = [1, -1, 1]
    puzzle = Episodes(np.zeros((1, 3), int), targets=np.array([[1, 1, 1]]))
    facts = Thinking(nlv.worlds.get("a5"), puzzle, logits, None, 1).facts()
    assert {name: value.tolist() for name, value in facts.items()} == {
        "changed": [[2]],
        "distance": [[1]],
        "solved": [[0]],
    }


def test_a_model_that_predicts_nan_has_no_margins_and_leaves_the_others_theirs(model, thinking, monkeypatch):
    other = replace(model, card=model.card.model_copy(update={"name": "diverged", "seed": 7}))
    nothing = replace(thinking, logits=np.full_like(thinking.logits, np.nan))
    solved, margins = analysis.step_measures([model, other], [thinking, nothing])
    known = margins.table.groupby("model")["value"].apply(lambda values: values.notna().all())
    assert known.to_dict() == {model.name: True, "diverged": False}
    assert {trace.meta["model"] for trace in thinking_curves(solved, margins).data} >= {model.name, "diverged"}
    monkeypatch.setattr("nextlat_viz.analysis.recursion.think", lambda *_: nothing)
    with pytest.raises(ValueError, match=f"{model.name} predicts NaN or infinity"):
        analysis.advantage_margin(model, n=24, progress=False)
