"""Recursive models step by step: the table of states, what is true of the answers, margins and guidance."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import nextlat_viz as nlv
from nextlat_viz import latents as nl
from nextlat_viz.errors import LatentsError, UnknownNameError
from nextlat_viz.figures.rows import describer
from nextlat_viz.latents import think
from nextlat_viz.worlds import Episodes

SIZES = {"layers": 1, "dim": 16, "heads": 2, "mlp_dim": 16, "start_token": False, "steps": 2, "batch_size": 8}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of two steps on boards of 25 cells."""
    folder = tmp_path_factory.mktemp("runs")
    options = {"recursion_steps": 2, "validation_episodes": 8, "validate_every": 2, "progress": False}
    return nlv.train("queens:size=5,given=2", "dis", out=folder / "dis", **SIZES, **options)


@pytest.fixture(scope="module")
def boards(model):
    return model.world.sample(6, seed=1)


def states(model, boards, steps):
    """Return the states (step, site, board, cell, dim) from the network itself."""
    with torch.no_grad():
        passes = list(model.model.backbone.steps(torch.from_numpy(boards.tokens), steps))
    return np.stack([[z.numpy(), y.numpy()] for y, z in passes])


def test_a_row_per_board_and_step(model, boards):
    table = nlv.extract(model, boards, steps=3, batch_size=4)
    assert table.shape == (18, 16)
    assert nl.sites(table) == ["z", "hidden"]
    expected = states(model, boards, 3).mean(axis=3)
    for site, values in zip(["z", "y"], expected.swapaxes(0, 1), strict=True):
        result = nl.site(table, site).reshape(6, 3, 16)
        np.testing.assert_allclose(result, values.swapaxes(0, 1), atol=1e-5)
    assert table.obs["episode"].tolist() == np.repeat(np.arange(6), 3).tolist()
    assert table.obs["position"].tolist() == [1, 2, 3] * 6
    assert table.obs["trained"].tolist() == ["yes", "yes", "no"] * 6
    assert nl.column(table, "token")[:3].tolist() == ["step 1", "step 2", "step 3, not trained"]
    assert nl.meta(table)["recursion_steps"] == 2
    assert json.loads(nl.meta(table)["world"]) == model.world.spec
    np.testing.assert_array_equal(nl.tokens_of(table), boards.tokens)


def test_the_columns_are_the_facts_of_the_answers(model, boards):
    table, thinking = nlv.extract(model, boards), think(model, boards)
    answers = thinking.answers()
    for episode, row in enumerate(table.obs.groupby("episode")):
        rows, board = row[1], boards.tokens[episode]
        for step, answer in enumerate(answers[episode]):
            before = board if step == 0 else answers[episode, step - 1]
            completions = model.world.solutions[model.world.completions(board[None])[0]]
            distance = (completions != answer).sum(axis=1).min()
            assert rows["distance"].iloc[step] == distance
            assert rows["solved"].iloc[step] == ("yes" if distance == 0 else "no")
            assert rows["changed"].iloc[step] == (answer != before).sum()
            assert rows["conflicts"].iloc[step] == model.world.conflicts(answer[None])[0]
            assert rows["given"].iloc[step] == 2


def test_a_row_per_cell(model, boards):
    table = nlv.extract(model, boards, "z", cells=True)
    # An episode is a cell of a board, and a position is a step.
    assert table.shape == (6 * 25 * 2, 16)
    expected = states(model, boards, 2)
    np.testing.assert_allclose(table.X.reshape(6, 25, 2, 16), expected[:, 1].transpose(1, 2, 0, 3), atol=1e-5)
    np.testing.assert_allclose(
        nl.site(table, "z").reshape(6, 25, 2, 16), expected[:, 0].transpose(1, 2, 0, 3), atol=1e-5
    )
    columns = {name: nl.column(table, name).reshape(6, 25, 2) for name in ("board", "cell", "answer", "right", "given")}
    assert (columns["board"] == np.arange(6)[:, None, None]).all()
    assert (columns["cell"] == np.arange(25)[:, None]).all()
    answers = think(model, boards).answers().swapaxes(1, 2)
    assert ((columns["answer"] == "queen") == (answers == 1)).all()
    assert ((columns["right"] == "yes") == (answers == boards.targets[..., None])).all()
    assert ((columns["given"] == "yes") == (boards.tokens[..., None] == 1)).all()
    posterior = nl.column(table, "posterior").reshape(6, 25, 2)
    np.testing.assert_allclose(posterior[..., 0], boards.states["posterior"])
    np.testing.assert_array_equal(nl.tokens_of(table), np.repeat(boards.tokens, 25, axis=0))


def test_probes_projections_and_trajectories_take_the_table(model):
    boards = model.world.sample(40, seed=2)
    table, untrained = (nlv.extract(each, boards, steps=3) for each in (model, model.untrained()))
    result = nlv.probe(table, "distance", untrained=untrained, n_bootstrap=2)
    assert result.untrained is not None
    # Equal boards are on the same side of the split.
    contents = {tuple(boards.tokens[episode]) for episode in result.test_episodes}
    rest = set(range(40)) - set(result.test_episodes.tolist())
    assert contents.isdisjoint(tuple(boards.tokens[episode]) for episode in rest)
    assert nlv.project(table, "pca").coordinates.shape == (120, 2)
    both = nlv.concatenate([table, untrained], ["trained", "untrained"])
    assert both.obs["token"].tolist() == table.obs["token"].tolist() + untrained.obs["token"].tolist()
    np.testing.assert_array_equal(nl.tokens_of(both), boards.tokens)
    row = table.obs.iloc[2]
    described = f"step 3, not trained<br>episode 0<br>conflicts {row.conflicts}, distance {row.distance}, solved"
    assert describer(table)(2).startswith(described)
    cells = nlv.extract(model, boards[:8], cells=True)
    assert np.isfinite(nlv.probe(cells, "right", n_bootstrap=2).score)


def test_margins_and_guidance_equal_their_definitions(model, boards):
    thinking = think(model, boards, steps=2)
    passes = states(model, boards, 2)[:, 1]
    head = model.model.backbone.head.weight.detach().numpy()
    after = (passes @ head.T).swapaxes(0, 1)
    np.testing.assert_allclose(thinking.logits, after, atol=1e-5)
    before = np.stack([np.zeros_like(after[:, 0]), after[:, 0]], axis=1)
    for board, step, cell in np.ndindex(*thinking.margins.shape):
        change = after[board, step, cell] - before[board, step, cell]
        policy = np.exp(before[board, step, cell])
        policy /= policy.sum()
        margin = change[boards.targets[board, cell]] - policy @ change
        assert thinking.margins[board, step, cell] == pytest.approx(margin, abs=1e-5)
    assert (thinking.answers(1.0) == after.argmax(-1)).all()
    assert (thinking.answers(3.0) == (before + 3 * (after - before)).argmax(-1)).all()
    assert (thinking.answers(0.0)[:, 1] == after[:, 0].argmax(-1)).all()


def test_bad_input_is_refused(model, boards):
    with pytest.raises(LatentsError, match=r"steps is for recursive models.*/nextlat/seed0 is trained with 'nextl"):
        nlv.extract("rrxor/nextlat", steps=4)
    with pytest.raises(LatentsError, match="cells is for recursive models, which answer in steps, and got"):
        nlv.extract(torch.nn.Linear(2, 2), boards.tokens, cells=True)
    with pytest.raises(LatentsError, match="think is for recursive models"):
        think("rrxor/nextlat")
    with pytest.raises(ValueError, match="steps=0"):
        nlv.extract(model, boards, steps=0)
    with pytest.raises(UnknownNameError, match="site 'block0'"):
        nlv.extract(model, boards, "block0")
    with pytest.raises(LatentsError, match="positions cannot be given for a recursive model"):
        nlv.extract(model, boards, positions=[1])
    with pytest.raises(LatentsError, match="each of 25 cells, got 1 of 16"):
        think(model, np.zeros((1, 16), int))
    with pytest.raises(LatentsError, match="hold token 2, and those of world 'queens' are 0 to 1"):
        think(model, np.full((1, 25), 2))
    with pytest.raises(ValueError, match="cannot be solved: of the given queens a1 b1 some attack each other"):
        nlv.extract(model, Episodes(np.array([[1, 1] + [0] * 23])))
    with pytest.raises(ValueError, match="has 6 given queens, and 5 fit at most"):
        think(model, np.array([[1] * 6 + [0] * 19]))
    with pytest.raises(LatentsError, match="no answers to compare with"):
        think(model, boards.tokens).margins  # noqa: B018
    with pytest.raises(ValueError, match="guidance=nan must be a number"):
        think(model, boards).answers(float("nan"))
