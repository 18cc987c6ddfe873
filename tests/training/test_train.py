import contextlib
import json
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

import nextlat_viz as nlv
from nextlat_viz.errors import CheckpointError, UnknownNameError
from nextlat_viz.models import OBJECTIVES, Objective
from nextlat_viz.training import resume
from nextlat_viz.training.checkpoint import build_model
from nextlat_viz.training.config import TrainConfig
from nextlat_viz.training.engine import Engine


class Killed(Exception):
    pass


def weights(checkpoint):
    return checkpoint.card.weights_sha256, checkpoint.card.snapshots


@pytest.mark.parametrize("objective", [name for name, kind in OBJECTIVES.items() if kind.next_tokens])
@pytest.mark.parametrize("stop_after", [4, 8])
def test_interrupted_run_ends_with_the_same_weights(tmp_path, small, objective, stop_after):
    whole = nlv.train("rrxor", objective, seed=3, out=tmp_path / "whole", progress=False, **small)

    def interrupt(row):
        if row["step"] == stop_after:
            raise Killed

    with pytest.raises(Killed):
        nlv.train("rrxor", objective, seed=3, out=tmp_path / "cut", progress=False, on_validation=interrupt, **small)
    assert (tmp_path / "cut" / resume.TRAIN_STATE).exists()
    with pytest.raises(CheckpointError, match="unfinished"):
        nlv.load(tmp_path / "cut")
    resumed = nlv.train("rrxor", objective, seed=3, out=tmp_path / "cut", progress=False, **small)
    assert weights(resumed) == weights(whole)
    assert resumed.metrics.equals(whole.metrics)
    assert not (tmp_path / "cut" / resume.TRAIN_STATE).exists()


@pytest.mark.parametrize(("name", "objective"), [("path_star", "nextlat"), ("taxi", "bst"), ("a5", "mtp")])
def test_a_run_stopped_between_saves_again_and_again(tmp_path, small, monkeypatch, name, objective):
    options = small | {"accumulate": 2, "batch_size": 4, "snapshots": (5,)}
    whole = nlv.train(name, objective, out=tmp_path / "whole", progress=False, **options)
    step, sittings = Engine.step, 0

    def stops(self, number, pieces):
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        step(self, number, pieces)

    monkeypatch.setattr(Engine, "step", stops)
    while not (tmp_path / "cut" / "card.json").exists():
        # Steps 3, 6 and 9 are saved: each sitting stops one or two steps after one of them.
        left, sittings = 4 + sittings % 2, sittings + 1
        with contextlib.suppress(Killed):
            nlv.train(name, objective, out=tmp_path / "cut", progress=False, **options)
    assert sittings == 4
    resumed = nlv.load(tmp_path / "cut")
    assert weights(resumed) == weights(whole)
    assert resumed.metrics.equals(whole.metrics)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
def test_a_killed_process_is_continued(tmp_path, small):
    options = small | {"steps": 40, "save_every": 10, "snapshots": (5, 30)}
    code = (
        "import json, os, signal, sys, torch; torch.set_num_threads(1); import nextlat_viz as nlv\n"
        "from nextlat_viz.training.engine import Engine\n"
        "step = Engine.step\n"
        "def cut(self, number, pieces):\n"
        "    step(self, number, pieces) if number != 24 else os.kill(os.getpid(), signal.SIGKILL)\n"
        "Engine.step = cut\n"
        "nlv.train('rrxor', 'nextlat', seed=3, out=sys.argv[1], progress=False, **json.loads(sys.argv[2]))"
    )
    folder = tmp_path / "killed"
    killed = subprocess.run([sys.executable, "-c", code, str(folder), json.dumps(options)], check=False, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    assert resume.load_state(folder).progress.step == 20
    assert not (folder / "card.json").exists()
    again, whole = (
        nlv.train("rrxor", "nextlat", seed=3, out=out, progress=False, **options)
        for out in (folder, tmp_path / "whole")
    )
    assert weights(again) == weights(whole)


def test_a_finished_run_is_loaded(run, small, tmp_path):
    def fail(row):
        raise AssertionError("trained again")

    again = nlv.train("rrxor", "nextlat", seed=3, out=tmp_path / "run", progress=False, on_validation=fail, **small)
    assert weights(again) == weights(run)


def test_another_run_in_the_folder_is_refused(run, small, tmp_path):
    before = weights(run)
    with pytest.raises(CheckpointError, match="holds another run: seed 3 there, 4 asked for"):
        nlv.train("rrxor", "nextlat", seed=4, out=tmp_path / "run", progress=False, **small)
    with pytest.raises(CheckpointError, match="dim 16 there, 32 asked for"):
        nlv.train("rrxor", "nextlat", seed=3, out=tmp_path / "run", progress=False, **(small | {"dim": 32}))
    assert weights(nlv.load(tmp_path / "run")) == before


def test_loss_falls_and_stays_over_the_floor(tmp_path):
    rows = []
    checkpoint = nlv.train(
        "z1r",
        "nextlat",
        out=tmp_path / "run",
        progress=False,
        on_validation=rows.append,
        steps=150,
        layers=1,
        dim=32,
        heads=2,
        mlp_dim=32,
        batch_size=64,
        learning_rate=5e-3,
        warmup_steps=10,
        decay_steps=50,
        validate_every=10,
        validation_episodes=128,
    )
    curve = checkpoint.metrics
    assert [row["loss"] for row in rows] == pytest.approx(curve["loss"].tolist())
    assert curve["loss"].iloc[-1] < curve["loss"].iloc[0] - 0.05
    assert (curve["loss"] >= curve["floor"]).all()
    assert checkpoint.card.metrics["loss"] >= checkpoint.card.metrics["floor"]
    assert checkpoint.card.metrics["floor"] == pytest.approx(checkpoint.world.loss_floor(12, start_token=True))


def test_unwritable_folder(tmp_path, small):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(OSError, match=r"cannot be written.*Choose another folder"):
        nlv.train("rrxor", out=blocker / "run", progress=False, **small)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"world": "rxxor"}, "unknown world 'rxxor'. Did you mean 'rrxor'"),
        ({"objective": "nextlatt"}, "unknown objective 'nextlatt'. Did you mean 'nextlat'"),
        ({"preset": "tyni"}, "unknown preset 'tyni'. Did you mean 'tiny'"),
        ({"step": 3}, "unknown hyperparameter 'step'. Did you mean 'steps'"),
    ],
)
def test_unknown_names_say_what_exists(tmp_path, arguments, message):
    with pytest.raises(UnknownNameError, match=message):
        nlv.train(**({"world": "rrxor", "out": tmp_path / "run"} | arguments))
    assert not (tmp_path / "run").exists()


def test_hyperparameter_out_of_range(tmp_path):
    for wrong, message in (
        ({"learning_rate": -1.0}, r"^learning_rate=-1\.0: input should be greater than 0$"),
        ({"heads": 3}, r"^dim=64 must be a multiple of 2 x heads=6.*Change dim or heads\.$"),
        ({"horizon": 13}, "horizon=13 must be at least 1 and at most 12, with a context of 12"),
        ({"accelerator": "gpuu"}, "invalid accelerator name"),
    ):
        with pytest.raises(ValueError, match=message):
            nlv.train("rrxor", out=tmp_path / "run", **wrong)
        assert not (tmp_path / "run").exists()


def test_damaged_training_state_says_so(tmp_path, small):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / resume.TRAIN_STATE).write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match=r"cannot be read.*Delete it"):
        nlv.train("rrxor", out=folder, progress=False, **small)


def test_seconds_are_summed_over_all_sittings(tmp_path, small):
    def interrupt(row):
        raise Killed

    folder = tmp_path / "run"
    with pytest.raises(Killed):
        nlv.train("rrxor", "next_token", out=folder, progress=False, on_validation=interrupt, **small)
    saved = resume.load_state(folder)
    model = build_model("next_token", TrainConfig.model_validate(saved.identity["config"]), nlv.worlds.get("rrxor"), 0)
    model.load_state_dict(saved.weights)
    saved.progress.seconds = 1000.0
    resume.save_state(folder, saved.identity, saved.progress, model, saved.moments)
    resumed = nlv.train("rrxor", "next_token", out=folder, progress=False, **small)
    assert 1000 <= resumed.card.metrics["train_seconds"] < 1100


@pytest.mark.parametrize("shape", [{"kv_heads": 1}, {"sharing": "k=v"}, {"sharing": "q=k=v"}])
def test_variants_of_attention_are_trained_and_loaded(tmp_path, small, shape):
    checkpoint = nlv.train("rrxor", "nextlat", out=tmp_path / "run", progress=False, **small, **shape)
    again = nlv.load(tmp_path / "run")
    assert weights(again) == weights(checkpoint)
    config = again.model.backbone.config
    assert {name: getattr(config, name) for name in shape} == shape
    assert (
        config.kv_cache_bytes() < build_model("nextlat", TrainConfig(), again.world, 0).backbone.config.kv_cache_bytes()
    )


def test_numpy_numbers_and_a_home_folder_are_accepted(tmp_path, small, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    options = small | {"steps": np.int64(12), "snapshots": np.array([2, 6])}
    run = nlv.train("rrxor", "next_token", seed=np.int64(3), out="~/run", progress=False, **options)
    assert run.folder == tmp_path / "run"
    assert "--snapshots 2 6" in run.card.command
    again = nlv.train("rrxor", "next_token", seed=3, out=tmp_path / "run", progress=False, **small)
    assert again.card == nlv.load("~/run").card == run.card


@pytest.mark.parametrize("seed", [-1, True])
def test_a_seed_is_a_whole_number_of_at_least_0(seed, tmp_path):
    with pytest.raises(ValueError, match=r"seed=.* must be .*at least 0"):
        nlv.train("rrxor", seed=seed, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("state", ["no_grad", "inference", "meta", "float64"])
def test_the_global_state_of_torch_does_not_matter(run, small, tmp_path, state):
    with contextlib.ExitStack() as stack:
        if state == "float64":
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float64)
        else:
            around = {"no_grad": torch.no_grad, "inference": torch.inference_mode, "meta": lambda: torch.device("meta")}
            stack.enter_context(around[state]())
        again = nlv.train("rrxor", "nextlat", seed=3, out=tmp_path / "again", progress=False, **small)
        models = [again.model, again.at(2).model, again.untrained().model, nlv.load(run.folder).model]
    assert weights(again) == weights(run)
    for model in models:
        for parameter in model.parameters():
            assert (parameter.device.type, parameter.dtype) == ("cpu", torch.float32)
            assert parameter.requires_grad
            assert not parameter.is_inference()


EARLY = {"layers": 1, "dim": 16, "heads": 2, "mlp_dim": 16, "validation_episodes": 8, "validate_every": 2}


def test_training_stops_when_the_headline_measure_is_reached(tmp_path):
    rows = []

    def watch(row, model):
        assert isinstance(model, Objective)
        assert model.training
        rows.append(row)
        if row["step"] == 4:
            raise KeyboardInterrupt

    options = {"steps": 40, "stop_at": -1e9, "save_every": 2, "progress": False} | EARLY
    with pytest.raises(KeyboardInterrupt):
        nlv.train("z1r", "next_token", out=tmp_path / "cut", on_validation=watch, **options)
    again = nlv.train("z1r", "next_token", out=tmp_path / "cut", **options)
    whole = nlv.train("z1r", "next_token", out=tmp_path / "whole", **options)
    assert [row["step"] for row in rows] == [2, 4]
    # At three validations in a row.
    assert whole.step == again.step == whole.card.steps == 6
    assert whole.card.weights_sha256 == again.card.weights_sha256
    assert whole.metrics["step"].tolist() == [2, 4, 6]
    assert whole.snapshots == [6]
    assert nlv.load(tmp_path / "whole").step == 6
    assert nlv.train("z1r", "next_token", out=tmp_path / "whole", **options).step == 6
    never = nlv.train("z1r", "next_token", out=tmp_path / "never", **(options | {"steps": 8, "stop_at": 2.0}))
    assert never.step == 8


def test_training_stops_after_its_minutes(tmp_path):
    checkpoint = nlv.train("z1r", "next_token", out=tmp_path, steps=10**6, minutes=0.01, progress=False, **EARLY)
    assert 0 < checkpoint.step < 10**5
    assert checkpoint.metrics["step"].iloc[-1] == checkpoint.step == checkpoint.card.steps
    assert checkpoint.card.metrics["train_seconds"] >= 0.6


def test_a_world_without_a_headline_measure_cannot_stop_at_one(tmp_path, monkeypatch):
    world = nlv.worlds.get("story")
    monkeypatch.setattr(type(world), "rules_known", False)
    with pytest.raises(ValueError, match=r"stop_at=0.9 needs a headline measure, one of accuracy, belief_r2, legal"):
        nlv.train(world, "next_token", out=tmp_path / "run", steps=4, stop_at=0.9, progress=False, **EARLY)
    assert not (tmp_path / "run").exists()


def test_a_preset_for_a_gpu_warns_of_the_hours_on_a_cpu(tmp_path):
    small = {"layers": 1, "dim": 16, "heads": 2, "mlp_dim": 16, "validation_episodes": 4, "progress": False}

    def train(**options):
        nlv.train(
            "rrxor", "next_token", "paper", out=tmp_path / str(len(options)), accelerator="cpu", **small, **options
        )

    def stop(row):
        raise KeyboardInterrupt

    message = r"preset 'paper' with these settings takes about [\d,]+ hours on this CPU"
    with pytest.warns(UserWarning, match=message), pytest.raises(KeyboardInterrupt):
        train(batch_size=1, context=12, steps=10**12, validate_every=1, on_validation=stop)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(batch_size=1, context=12, steps=2)
