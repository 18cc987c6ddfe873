"""Recursive models in the studio: recursion steps in place of positions, boards, and puzzles solved by step."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import nextlat_viz as nlv
from nextlat_viz.notebook.panels.task import ThinkingPanel
from tests.notebook.conftest import traces

OPTIONS = {
    **{"layers": 1, "dim": 16, "heads": 2, "mlp_dim": 16, "steps": 20, "batch_size": 16, "start_token": False},
    **{"learning_rate": 0.01, "warmup_steps": 2, "decay_steps": 5, "validation_episodes": 8, "progress": False},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder, world = tmp_path_factory.mktemp("runs"), "queens:size=5,given=2"
    steps = {"dis": {"recursion_steps": 3}, "one_pass": {}}
    return [nlv.train(world, name, out=folder / name, **OPTIONS, **own) for name, own in steps.items()]


@pytest.fixture
def studio(models):
    studio = nlv.studio(*models)
    yield studio
    studio.close()


def test_all_models_take_the_same_number_of_steps(studio):
    state = studio.state
    assert state.labels == ["DIS", "one pass"]
    assert state.scene.positions(3) == [1, 2, 3]
    assert state.latents[1].obs["trained"].tolist()[:3] == ["yes", "no", "no"]
    assert {"distance", "solved", "conflicts", "changed"} <= set(state.scene.targets)
    assert {name for name, panel in studio.panels.items() if panel.shown} == {"world", "space", "thinking", "knows"}
    controls = studio.cursor.controls
    assert (controls.episode.description, controls.position.description) == ("Puzzle", "Recursion step")
    assert studio.cursor.strip.tokens == ["step 1", "step 2", "step 3"]
    assert studio.cursor.strip.notes[0].startswith("step 1, changed ")


def test_the_world_panel_shows_every_models_board_at_the_step(studio):
    state = studio.state
    state.go_to(3, 2)
    panel = studio.panels["world"]
    plot = panel.plot
    thinking = [state.scene.thinking(model) for model in (0, 1)]
    assert thinking[1].steps == 3
    for model, trace in enumerate(traces(plot, "queen")):
        logits = thinking[model].logits[3, 1]
        np.testing.assert_allclose(np.ravel(plot.data[trace].z), 1 / (1 + np.exp(logits[:, 0] - logits[:, 1])))
    headings = [note.text for note in plot.layout.annotations]
    assert headings[0].startswith("<b>DIS</b>")
    assert headings[1].startswith("<b>one pass†</b>")


def test_the_panel_of_solved_puzzles_by_step(studio, models):
    state, panel = studio.state, studio.panels["thinking"]
    state.go_to(3, 2)
    ends = [panel.plot.data[trace] for trace in traces(panel.plot, "end")]
    for model, end in enumerate(ends):
        thinking = state.scene.thinking(model)
        last = (3, 1)[model]
        assert (end.x[0], end.y[0]) == (last, pytest.approx(thinking.facts()["solved"][:, last - 1].mean()))
    assert {trace.meta["model"] for trace in panel.plot.data if trace.meta} >= {model.name for model in models}
    panel.axis.value = "passes"
    assert panel.plot.data[traces(panel.plot, "end")[0]].x[0] == 9


def test_other_shipped_runs_are_drawn_with_the_models(models, monkeypatch):
    own = [{"measure": "loss", "model": model.name, "world": "queens"} for model in models]
    about = {"model": "queens/trm/seed1", "world": "queens", "objective": "trm", "seed": 1}
    steps = [
        {"measure": "solved_by_step", "quantity": "solved", "step": step, "trained": True, "value": 0.5, **about}
        for step in (1, 2)
    ]
    passes = {"measure": "forward_passes", "quantity": "answer", "value": 14.0, **about}
    monkeypatch.setattr("nextlat_viz.analysis.measure.results", lambda: pd.DataFrame([*own, *steps, passes]))
    panel = ThinkingPanel(*models)
    panel.axis.value = "passes"
    (shipped,) = (t for t in panel.plot.data if t.meta == {"role": "run", "objective": "trm", "model": about["model"]})
    assert (list(shipped.x), list(shipped.y)) == ([7, 14], [0.5, 0.5])
    panel.close()


def test_latents_alone_have_no_answers(models):
    latents = [nlv.extract(model, model.world.sample(20, seed=1), steps=2, progress=False) for model in models]
    panel = ThinkingPanel(*latents)
    assert panel.plot is None
    assert "was given as latents, and its answers take the model: open its checkpoint" in panel.words
    panel.close()


def test_other_models_have_no_recursion_panels(state):
    panel = ThinkingPanel(state=state)
    panel.refresh()
    assert panel.words == "These models do not answer in recursion steps: open models trained with 'trm' or 'dis'."
    panel.close()
