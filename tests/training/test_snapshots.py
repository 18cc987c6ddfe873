"""Snapshots that a notebook keeps by default."""

from __future__ import annotations

from types import SimpleNamespace

import IPython
import pytest

import nextlat_viz as nlv
from nextlat_viz.errors import CheckpointError
from nextlat_viz.training import pretrain
from nextlat_viz.training.pretrain import default_snapshots


class Killed(Exception):
    pass


@pytest.fixture
def plain(small):
    """A small run with default snapshots."""
    return {name: value for name, value in small.items() if name != "snapshots"}


@pytest.fixture
def notebook(monkeypatch):
    """A Jupyter kernel, as far as `train` can tell."""
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=object()))


def train(folder, plain, objective="nextlat", **options):
    return nlv.train("rrxor", objective, seed=3, out=folder, progress=False, **plain | options)


def test_scripts_and_ipython_shells_keep_no_snapshots(tmp_path, plain, monkeypatch):
    assert train(tmp_path / "script", plain).card.snapshots == {}
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    assert not pretrain.in_notebook()


def test_a_notebook_keeps_snapshots_named_in_the_card_and_command(tmp_path, plain, notebook):
    run = train(tmp_path / "run", plain)
    assert run.snapshots == [1, 2, 3, 4, 6, 9, 12]
    assert "--snapshots 1 2 3 4 6 9" in run.card.command
    assert run.at(9).weights_sha256 == run.card.snapshots[9]
    assert sum(file.stat().st_size for file in (tmp_path / "run" / "snapshots").iterdir()) < 200_000_000


def test_chosen_snapshots_replace_the_default(tmp_path, plain, notebook):
    assert train(tmp_path / "none", plain, snapshots=()).card.snapshots == {}
    assert list(train(tmp_path / "two", plain, snapshots=(5,)).card.snapshots) == [5]
    with pytest.raises(CheckpointError, match="snapshots"):
        train(tmp_path / "two", plain, snapshots=(7,))


def test_snapshots_do_not_change_the_weights(tmp_path, plain, notebook):
    runs = [train(tmp_path / name, plain, **options) for name, options in {"a": {}, "b": {"snapshots": ()}}.items()]
    assert runs[0].weights_sha256 == runs[1].weights_sha256


def test_a_loaded_or_continued_run_keeps_its_snapshots(tmp_path, plain, notebook, monkeypatch):
    kept = train(tmp_path / "done", plain).card.snapshots

    def stop(row):
        if row["step"] == 8:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "cut", plain, on_validation=stop)
    assert train(tmp_path / "bare", plain, snapshots=()).card.snapshots == {}
    monkeypatch.setattr(IPython, "get_ipython", lambda: None)
    assert not pretrain.in_notebook()
    # A script continues and loads the run of a notebook.
    assert train(tmp_path / "cut", plain).card.snapshots == kept
    assert train(tmp_path / "done", plain).card.snapshots == kept
    monkeypatch.setattr(pretrain, "in_notebook", lambda: True)
    assert train(tmp_path / "bare", plain).card.snapshots == {}
    with pytest.raises(CheckpointError, match="steps 12 there, 8 asked for"):
        train(tmp_path / "done", plain, steps=8)


def test_a_damaged_state_is_refused_as_before(tmp_path, plain, notebook):
    def stop(row):
        raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "cut", plain, on_validation=stop)
    (tmp_path / "cut" / "train_state.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(CheckpointError, match="cannot be read"):
        train(tmp_path / "cut", plain)


def test_runs_of_all_lengths_have_steps_in_common():
    for steps in (40, 400, 4000, 5000, 8000):
        mine, longer = set(default_snapshots(steps, 1)), set(default_snapshots(2 * steps, 1))
        assert len(mine & longer) >= 8
        assert set(default_snapshots(steps, 30_000_000)) < mine
    assert default_snapshots(1, 1) == default_snapshots(4000, 10**9) == ()


def test_a_pair_with_an_early_stop_has_steps_in_common(tmp_path, plain, notebook):
    pair = [
        train(tmp_path / "long", plain, "next_token", steps=40),
        # Stops as soon as the measure, which is at least this at any time, has been measured three times.
        train(tmp_path / "short", plain, "nextlat", steps=40, stop_at=-9.0),
    ]
    assert [run.step for run in pair] == [40, 12]
    state = nlv.ViewState(*pair)
    assert state.steps == [0, 1, 2, 3, 4, 6, 9, 12]
    # The last step belongs to one run only.
    assert state.step_choices[-2:] == [("12", 12), ("end", None)]
    state.show(step=12)
    assert [model.uns["nextlat_viz"]["label"] for model in state.latents] == ["next-token (step 12)", "NextLat"]
    state.show()
    assert state.labels == ["next-token", "NextLat"]
