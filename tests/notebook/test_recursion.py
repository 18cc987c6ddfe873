"""Recursive models in the studio: steps in place of positions, and panels that do not apply say so."""

from __future__ import annotations

import nextlat_viz as nlv

OPTIONS = {
    **{"layers": 1, "dim": 16, "heads": 2, "mlp_dim": 16, "steps": 20, "batch_size": 16, "recursion_steps": 3},
    **{"learning_rate": 0.01, "warmup_steps": 2, "decay_steps": 5, "validation_episodes": 8, "progress": False},
}


def test_the_studio_opens_recursive_models(tmp_path, monkeypatch):
    models = [
        nlv.train("queens:size=5,given=2", objective, out=tmp_path / objective, **OPTIONS)
        for objective in ("dis", "equal_depth")
    ]
    # Fewer boards than the standard ones, to be quick.
    boards = models[0].world.sample(40, seed=1)
    monkeypatch.setattr("nextlat_viz.latents.thinking.heldout", lambda checkpoint: boards)
    studio = nlv.studio(*models)
    try:
        state = studio.state
        assert state.scene.positions(3) == [1, 2, 3]
        assert {"distance", "solved", "conflicts", "changed"} <= set(state.scene.targets)
        state.episode, state.position = 3, 2
        # The rows are steps, so no row has tokens read up to it.
        state.select([0])
        assert "tokens read" not in state.selected
        state.select(())
        state.loop.flush()
        for name in ("world", "space"):
            assert studio.panels[name].drawn, name
        for name in ("next", "what_if"):
            assert not studio.panels[name].drawn, name
            assert "DIS answers whole puzzles in recursion steps" in studio.panels[name].words
    finally:
        studio.close()
