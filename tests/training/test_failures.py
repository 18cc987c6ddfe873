"""Runs that fail or are interrupted: their errors and the files that they leave."""

from __future__ import annotations

import errno
import os
import signal

import pytest
import torch
from filelock import FileLock

import nextlat_viz as nlv
from nextlat_viz.errors import CheckpointError, TrainingError
from nextlat_viz.models import NextToken
from nextlat_viz.training import resume
from nextlat_viz.training.checkpoint import build_model
from nextlat_viz.training.config import TrainConfig
from nextlat_viz.training.resume import differences, identify


def spoiled(monkeypatch, from_step, spoil):
    """Let `spoil` change the losses from a step on."""
    steps, forward = iter(range(1, 1000)), NextToken.forward
    monkeypatch.setattr(
        NextToken, "forward", lambda self, batch: spoil(self, forward(self, batch), next(steps) - from_step)
    )


def not_a_number(model, losses, late):
    return losses if late < 0 else {name: value * torch.nan for name, value in losses.items()}


def gradient_not_a_number(model, losses, late):
    weight = model.backbone.head.weight
    return losses if late < 0 else losses | {"loss": losses["loss"] + (weight - weight).square().sum().sqrt()}


@pytest.mark.parametrize(
    ("from_step", "spoil", "message", "kept"),
    [
        (8, not_a_number, r"The loss of step 8 of rrxor/next_token is not a finite number", 6),
        (7, not_a_number, r"The loss of step 7 ", 6),
        (6, gradient_not_a_number, r"The weights after step 6 ", 3),
        (4, gradient_not_a_number, r"The weights after step 4 ", 3),
    ],
)
def test_a_loss_of_nan_stops_the_run_and_keeps_the_last_good_state(
    tmp_path, small, monkeypatch, from_step, spoil, message, kept
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        spoiled(patch, from_step, spoil)
        with pytest.raises(TrainingError, match=rf"{message}.*learning_rate below 0\.001.*The state of step {kept} is"):
            nlv.train("rrxor", "next_token", out=folder, progress=False, **small)
    saved = resume.load_state(folder)
    assert saved.progress.step == kept
    states = [saved.weights, *saved.moments.values()]
    assert all(tensor.isfinite().all() for state in states for tensor in state.values())
    assert not (folder / "card.json").exists()
    resumed = nlv.train("rrxor", "next_token", out=folder, progress=False, **small)
    whole = nlv.train("rrxor", "next_token", out=tmp_path / "whole", progress=False, **small)
    assert resumed.card.weights_sha256 == whole.card.weights_sha256


def test_a_learning_rate_far_too_large_stops_the_run(tmp_path, small):
    with pytest.raises(TrainingError, match=r"is not a finite number.*or grad_clip=1\.0.*No state was saved before"):
        nlv.train(
            "rrxor",
            out=tmp_path / "run",
            progress=False,
            **small | {"learning_rate": 1e30, "grad_clip": 0, "save_every": 9},
        )


@pytest.mark.parametrize(
    ("batch_size", "advice"),
    [(8, "Set accumulate=2, which trains the same way with less memory"), (1, "Lower layers, dim")],
)
def test_full_memory_names_what_to_lower(tmp_path, small, monkeypatch, batch_size, advice):
    def full(self, batch):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(NextToken, "forward", full)
    with pytest.raises(TrainingError, match=rf"cpu ran out of memory with batch_size={batch_size}.*{advice}"):
        nlv.train("rrxor", "next_token", out=tmp_path / "run", progress=False, **small | {"batch_size": batch_size})


def test_pieces_without_episodes_are_refused(tmp_path, small):
    with pytest.raises(ValueError, match=r"batch_size=8 cannot be divided.*accumulate=9"):
        nlv.train("rrxor", out=tmp_path / "run", progress=False, accumulate=9, **small)
    assert not (tmp_path / "run").exists()


def test_all_differences_of_another_run_are_listed():
    requested = identify({"name": "rrxor"}, "nextlat", TrainConfig(), 0)
    older = {
        **requested,
        "config": {name: value for name, value in requested["config"].items() if name != "accumulate"},
    }
    assert differences(older, requested) == []
    assert differences(older, identify({"name": "rrxor"}, "nextlat", TrainConfig(accumulate=2), 0)) == [
        "accumulate 1 there, 2 asked for"
    ]
    newer = {**requested, "config": requested["config"] | {"flux": 3, "dim": 8}}
    assert differences(newer, requested) == ["dim 8 there, 64 asked for", "flux 3 there, not known here"]


def test_a_run_of_an_older_config_continues(tmp_path, small):
    def interrupt(row):
        if row["step"] == 8:
            raise KeyboardInterrupt

    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        nlv.train("rrxor", "next_token", out=folder, progress=False, on_validation=interrupt, **small)
    saved = resume.load_state(folder)
    del saved.identity["config"]["compile"], saved.identity["config"]["accumulate"]
    model = build_model("next_token", TrainConfig(**small), nlv.worlds.get("rrxor"), 0)
    model.load_state_dict(saved.weights)
    resume.save_state(folder, saved.identity, saved.progress, model, saved.moments)
    with pytest.raises(CheckpointError, match="holds another run: accumulate 1 there, 2 asked for"):
        nlv.train("rrxor", "next_token", out=folder, progress=False, accumulate=2, **small)
    assert nlv.train("rrxor", "next_token", out=folder, progress=False, **small).step == 12


def test_a_folder_is_locked_and_leftovers_of_a_killed_run_are_removed(tmp_path, small):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".card.json.x1.draft").write_text("half")

    def another(row):
        with pytest.raises(CheckpointError, match="is in use: another process trains there"):
            nlv.train("rrxor", "next_token", seed=1, out=folder, progress=False, **small)

    nlv.train("rrxor", "next_token", out=folder, progress=False, on_validation=another, **small)
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.fixture
def cut(tmp_path, small):
    """The folder of a run that was stopped after its first snapshot and a save, and a function that continues it."""

    class Killed(Exception):
        pass

    def stop(row):
        if row["step"] == 4:
            raise Killed

    def again(**options):
        return nlv.train("rrxor", "next_token", out=tmp_path / "cut", progress=False, **small, **options)

    with pytest.raises(Killed):
        again(on_validation=stop)
    return tmp_path / "cut", again


def test_a_flipped_bit_in_a_saved_state_is_refused(cut):
    folder, again = cut
    path = folder / resume.TRAIN_STATE
    content = path.read_bytes()
    for place in (3, 40, len(content) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"train_state\.safetensors cannot be read.*Delete it"):
            again()
    path.write_bytes(content)
    assert again().step == 12


def test_a_state_without_the_moments_of_a_parameter_is_refused(cut):
    folder, again = cut
    saved = resume.load_state(folder)
    model = build_model("next_token", TrainConfig.model_validate(saved.identity["config"]), nlv.worlds.get("rrxor"), 0)
    model.load_state_dict(saved.weights)
    moments = saved.moments
    del moments[2]
    resume.save_state(folder, saved.identity, saved.progress, model, moments)
    with pytest.raises(CheckpointError, match=r"lacks the optimiser's state of parameter 2\. Delete it"):
        again()


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_a_run_with_a_lost_snapshot_is_not_continued(cut, damage):
    folder, again = cut
    damage(folder / "snapshots" / "step000002.safetensors")
    with pytest.raises(CheckpointError, match=r"step000002\.safetensors is missing or damaged.*Put it back, or delete"):
        again()


def test_an_altered_training_curve_is_refused(cut):
    folder, again = cut
    checkpoint = again()
    path = folder / "metrics.csv"
    path.write_text(path.read_text().replace("1", "2", 1))
    with pytest.raises(CheckpointError, match=r"metrics\.csv is truncated or altered"):
        _ = checkpoint.metrics


def interrupted_in_step(monkeypatch, step, times=1):
    """Press Ctrl-C in the middle of a step."""
    steps, forward = iter(range(1, 1000)), NextToken.forward

    def interrupt(self, batch):
        if next(steps) == step:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return forward(self, batch)

    monkeypatch.setattr(NextToken, "forward", interrupt)


@pytest.mark.parametrize("step", [1, 4, 12])
def test_an_interrupt_saves_the_state_of_the_step_it_finishes(tmp_path, small, monkeypatch, step):
    def call(name):
        return nlv.train("rrxor", "next_token", out=tmp_path / name, progress=False, **small | {"save_every": 100})

    with monkeypatch.context() as patch:
        interrupted_in_step(patch, step)
        with pytest.raises(KeyboardInterrupt, match=f"after step {step} of 12, which is saved in '.*cut': the same"):
            call("cut")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert resume.load_state(tmp_path / "cut").progress.step == step
    assert call("cut").weights_sha256 == call("whole").weights_sha256


def test_a_second_interrupt_stops_at_once(tmp_path, small, monkeypatch):
    interrupted_in_step(monkeypatch, 5, times=2)
    with pytest.raises(KeyboardInterrupt):
        nlv.train("rrxor", "next_token", out=tmp_path, progress=False, **small)
    assert resume.load_state(tmp_path).progress.step == 3


def test_an_interrupted_sweep_keeps_the_state_of_the_run(tmp_path, small, monkeypatch):
    interrupted_in_step(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt, match="after step 5 of 12"):
        nlv.sweep("rrxor", ["next_token"], [0], out=tmp_path, progress=False, **small | {"save_every": 100})
    assert resume.load_state(tmp_path / "next_token" / "seed0").progress.step == 5


def test_a_lock_file_is_used_where_locks_are_not_supported(tmp_path, small, monkeypatch):
    def no_locks(self, *arguments, **options):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    def another(row):
        with pytest.raises(CheckpointError, match=r"is in use: another process trains there.*delete .*\.soft\.lock"):
            nlv.train("rrxor", "next_token", seed=1, out=tmp_path, progress=False, **small)

    monkeypatch.setattr(FileLock, "acquire", no_locks)
    assert nlv.train("rrxor", "next_token", out=tmp_path, progress=False, on_validation=another, **small).step == 12
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
