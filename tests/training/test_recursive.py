"""Training of recursive models: several optimiser steps per batch, averaged weights, resuming, cards."""

from __future__ import annotations

import pytest
import torch

import nextlat_viz as nlv
from nextlat_viz.training import resume
from nextlat_viz.training.engine import Engine

WORLD = "queens:size=5,given=2"
SMALL = {
    **{"layers": 1, "dim": 8, "heads": 2, "mlp_dim": 8, "start_token": False, "batch_size": 4, "recursion_steps": 2},
    **{"steps": 6, "warmup_steps": 1, "decay_steps": 2, "validate_every": 2, "validation_episodes": 8, "ema": 0.9},
    **{"save_every": 2, "snapshots": (2,), "latent_updates": 1},
}


class Killed(Exception):
    pass


@pytest.mark.parametrize("objective", ["trm", "dis"])
def test_interrupted_run_ends_with_the_same_weights_and_averages(tmp_path, objective):
    whole = nlv.train(WORLD, objective, out=tmp_path / "whole", progress=False, **SMALL)

    def interrupt(row):
        if row["step"] == 4:
            raise Killed

    with pytest.raises(Killed):
        nlv.train(WORLD, objective, out=tmp_path / "cut", progress=False, on_validation=interrupt, **SMALL)
    assert (tmp_path / "cut" / resume.TRAIN_STATE).exists()
    resumed = nlv.train(WORLD, objective, out=tmp_path / "cut", progress=False, **SMALL)
    assert resumed.card.weights_sha256 == whole.card.weights_sha256
    assert resumed.card.snapshots == whole.card.snapshots
    assert resumed.metrics.equals(whole.metrics)
    assert (whole.metrics["train/updates"] == 2).all()


def test_averaged_weights_are_measured_and_kept(tmp_path, monkeypatch):
    last = {}
    step = Engine.step

    def remembered(self, number, pieces):
        step(self, number, pieces)
        last["weights"] = {name: value.clone() for name, value in self.raw_model.state_dict().items()}
        with self.averaged():
            last["average"] = {name: value.clone() for name, value in self.raw_model.state_dict().items()}

    monkeypatch.setattr(Engine, "step", remembered)
    checkpoint = nlv.train(WORLD, "dis", out=tmp_path / "run", progress=False, **SMALL | {"storage": "float32"})
    kept = checkpoint.model.state_dict()
    assert not torch.equal(last["weights"]["backbone.head.weight"], last["average"]["backbone.head.weight"])
    for name, value in kept.items():
        torch.testing.assert_close(value, last["average"][name], rtol=0, atol=0)


def test_a_sweep_over_recursion(tmp_path):
    table = nlv.sweep(
        WORLD, ["one_pass", "equal_depth"], [0], out=tmp_path, progress=False, **SMALL | {"steps": 1, "snapshots": ()}
    )
    assert table["error"].eq("").all()
    assert nlv.load(tmp_path / table["folder"][1]).model.backbone.schedule.steps == 2


@pytest.mark.parametrize(
    ("world", "options", "words"),
    [
        ("rrxor", {}, ("objective='dis'", "'rrxor' predict the next token", "'queens'")),
        ("a5", {}, ("have any length", "'queens'")),
        (WORLD, {"start_token": True}, ("start_token=True", "give start_token=False")),
        (WORLD, {"accumulate": 2}, ("objective='dis' takes several optimiser steps", "accumulate=2")),
        (WORLD, {"strategy": "fsdp"}, ("ema=0.9", "'fsdp'")),
        (WORLD, {"recursion_steps": 0}, ("recursion_steps",)),
        (WORLD, {"ema": 1.0}, ("ema",)),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path, world, options, words):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        nlv.train(world, "dis", out=tmp_path / "run", progress=False, **SMALL | options)
    for word in words:
        assert word in str(error.value)
    assert not (tmp_path / "run").exists()


def test_operations_of_a_step_count_every_recursion_step(tmp_path):
    options = SMALL | {"steps": 1, "snapshots": (), "batch_size": 2}
    runs = [
        nlv.train(WORLD, "dis", out=tmp_path / str(count), progress=False, **options | {"recursion_steps": count})
        for count in (1, 3)
    ]
    assert runs[1].operations == pytest.approx(3 * runs[0].operations, rel=0.1)
