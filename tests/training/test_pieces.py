"""A batch in pieces, on one device or several, trains as the whole batch does."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import nextlat_viz as nlv
from nextlat_viz import worlds
from nextlat_viz.models import OBJECTIVES, Batch
from nextlat_viz.training.checkpoint import build_model
from nextlat_viz.training.config import resolve_config
from nextlat_viz.training.data import Feed, training_episodes
from nextlat_viz.training.engine import weighted

SIZES = {"layers": 1, "dim": 16, "heads": 2, "mlp_dim": 16, "psi_width": 16, "batch_size": 7, "horizon": 2}


def feed_of(world, model, config, seed, rank=0, devices=1):
    return Feed(partial(training_episodes, world, config, seed), model, config.accumulate, rank, devices)


def gradients(model):
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize(("devices", "accumulate"), [(1, 3), (2, 1), (2, 2)])
@pytest.mark.parametrize("objective", [name for name, kind in OBJECTIVES.items() if kind.next_tokens])
@pytest.mark.parametrize("name", ["taxi", "path_star", "rrxor"])
def test_gradients_of_pieces_add_up(name, objective, devices, accumulate):
    world = worlds.get(name)
    config = resolve_config("tiny", world, SIZES | {"accumulate": accumulate})
    model = build_model(objective, config, world, 0).double()
    episodes = feed_of(world, model, config, 5).draw(3)
    whole = model(Batch.from_episodes(episodes, seed=3, start=model.backbone.start))
    whole["loss"].backward()
    expected = gradients(model)
    model.zero_grad()
    totals: dict[str, float] = {}
    for rank in range(devices):
        for piece in feed_of(world, model, config, 5, rank, devices).pieces(3):
            losses = weighted(model(piece.batch), model.weights, piece.share)
            losses["loss"].backward()
            totals = {key: totals.get(key, 0.0) + value.item() for key, value in losses.items()}
    assert totals == pytest.approx({key: value.item() for key, value in whole.items()}, rel=1e-12)
    result = gradients(model)
    assert result.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(result[key], value, rtol=1e-9, atol=1e-12)


def test_pieces_differ_in_what_they_score():
    world = worlds.get("taxi")
    config = resolve_config("tiny", world, SIZES | {"accumulate": 3})
    model = build_model("nextlat", config, world, 0)
    shares = [piece.share["next_token"] for piece in feed_of(world, model, config, 5).pieces(0)]
    assert sum(shares) == pytest.approx(1)
    assert shares != pytest.approx([1 / 3] * 3, abs=0.05)
    batch = Batch.from_episodes(feed_of(world, model, config, 5).draw(0), start=model.backbone.start)
    assert model.counts(batch)["next_token"] == batch.target_mask.sum()


def test_batches_drawn_ahead_are_those_of_their_steps():
    world = worlds.get("rrxor")
    config = resolve_config("tiny", world, SIZES)
    feed = feed_of(world, build_model("bst", config, world, 0), config, 5)
    for step, [piece] in zip(range(4, 9), feed.ahead(4, 9), strict=True):
        assert piece.batch.seed == step
        expected = Batch.from_episodes(feed.draw(step), start=feed.model.backbone.start)
        assert torch.equal(piece.batch.inputs, expected.inputs)
    assert list(feed.ahead(9, 9)) == []


def test_a_world_that_fails_while_drawing_ahead_says_so(tmp_path, small, monkeypatch):
    world, sample = worlds.get("rrxor"), type(worlds.get("rrxor")).sample
    first = iter([True] * 3)

    def once(self, *arguments, **options):
        if options.get("states") is False and not next(first, False):
            raise OSError("the disk is gone")
        return sample(self, *arguments, **options)

    monkeypatch.setattr(type(world), "sample", once)
    with pytest.raises(OSError, match="the disk is gone"):
        nlv.train(world, out=tmp_path / "run", progress=False, **small)


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulation_gives_the_same_curve(tmp_path, small, accumulate):
    options = small | {"steps": 8, "grad_clip": 0.5}
    whole = nlv.train("countdown", out=tmp_path / "whole", progress=False, **options)
    pieces = nlv.train("countdown", out=tmp_path / "pieces", progress=False, accumulate=accumulate, **options)
    assert pieces.metrics.columns.tolist() == whole.metrics.columns.tolist() or set(pieces.metrics) == set(
        whole.metrics
    )
    for column in whole.metrics:
        assert pieces.metrics[column].tolist() == pytest.approx(whole.metrics[column].tolist(), abs=1e-5), column


def test_bf16_trains_and_continues(tmp_path, small):
    mixed = nlv.train("rrxor", out=tmp_path / "mixed", progress=False, precision="bf16-mixed", **small)
    whole = nlv.train("rrxor", out=tmp_path / "whole", progress=False, **small)
    assert mixed.card.metrics["loss"] == pytest.approx(whole.card.metrics["loss"], abs=5e-3)
    assert mixed.card.weights_sha256 != whole.card.weights_sha256


@pytest.mark.slow
def test_compiled_training_gives_the_same_metrics(tmp_path, small):
    options = small | {"steps": 2, "batch_size": 2, "snapshots": ()}
    plain = nlv.train("rrxor", "next_token", out=tmp_path / "plain", progress=False, **options)
    # In another process, because shape checks interfere here. Traced but not compiled, which takes minutes and a
    # compiler.
    code = (
        "import functools, json, sys, torch, nextlat_viz as nlv;"
        "torch.compile = functools.partial(torch.compile, backend='eager');"
        "nlv.train('rrxor', 'next_token', out=sys.argv[1], progress=False, compile=True, **json.loads(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "fused"), json.dumps(options)], check=True, timeout=300)
    fused = nlv.load(tmp_path / "fused")
    for column in plain.metrics:
        assert fused.metrics[column].tolist() == pytest.approx(plain.metrics[column].tolist(), abs=1e-4), column


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="torch for Windows starts no process groups without libuv")
def test_two_processes_train_as_one(tmp_path, small):
    options = small | {"save_every": 5, "accumulate": 1}
    first = nlv.train("taxi", out=tmp_path / "one", accelerator="cpu", progress=False, **options)
    script = tmp_path / "script.py"
    script.write_text(
        "import json, sys, torch\n"
        "torch.set_num_threads(1)\n"
        "import nextlat_viz as nlv\n"
        "nlv.train('taxi', out=sys.argv[1], accelerator='cpu', devices=2, strategy='ddp', progress=False,"
        " **json.loads(sys.argv[2]))\n"
    )
    command = [sys.executable, str(script), str(tmp_path / "two"), json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    two = nlv.load(tmp_path / "two")
    for column in first.metrics:
        assert two.metrics[column].tolist() == pytest.approx(first.metrics[column].tolist(), abs=1e-5), column
    for (key, ours), theirs in zip(
        first.at(6).model.state_dict().items(), two.at(6).model.state_dict().values(), strict=True
    ):
        # Weights are kept in half precision.
        torch.testing.assert_close(theirs, ours, rtol=2e-3, atol=1e-4, msg=key)


# Fabric asks for GPUs before it shards weights; torch can shard them over processes without one. The pairs
# of processes are forked after the imports: how Fabric starts them is tested above.
SPREAD = """
import json, os, socket, sys, traceback, torch
from pathlib import Path
from lightning_fabric.strategies import FSDPStrategy
from torch.distributed.fsdp import FullyShardedDataParallel
torch.set_num_threads(1)

class OnCpu(FSDPStrategy):
    def setup_module(self, module):
        return FullyShardedDataParallel(module, device_id=torch.device("cpu"), **self._fsdp_kwargs)

from nextlat_viz.training import engine, pretrain, resume
fabric, step = engine.Fabric, engine.Engine.step
engine.Fabric = lambda strategy, **options: fabric(strategy=OnCpu(), **options)
folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])

def train(last):
    def cut(self, n, pieces):
        if n == last:
            raise KeyboardInterrupt
        step(self, n, pieces)

    engine.Engine.step = cut
    try:
        pretrain.train(
            "taxi", out=folder, accelerator="cpu", devices=2, strategy="fsdp", progress=False, **options
        )
    except KeyboardInterrupt:
        return 130
    except BaseException:
        traceback.print_exc()
        return 1
    return 0

def pair(last):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ["MASTER_PORT"] = str(free.getsockname()[1])
    children = []
    for rank in "01":
        children.append(os.fork())
        if not children[-1]:
            os.environ["LOCAL_RANK"] = rank
            os._exit(train(last))
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

print(json.dumps([pair(4), resume.load_state(folder).progress.step, pair(-1)]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="torch for Windows starts no process groups without libuv")
def test_sharded_weights_train_as_on_one_process_and_continue(tmp_path, small):
    options = small | {"save_every": 3, "accumulate": 1, "storage": "float32"}
    first = nlv.train("taxi", out=tmp_path / "one", accelerator="cpu", progress=False, **options)
    command = [sys.executable, "-c", SPREAD, str(tmp_path / "two"), json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[130, 130], 3, [0, 0]], done.stderr
    two = nlv.load(tmp_path / "two")
    for column in first.metrics:
        assert two.metrics[column].tolist() == pytest.approx(first.metrics[column].tolist(), abs=1e-5), column
    for (key, ours), theirs in zip(first.model.state_dict().items(), two.model.state_dict().values(), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-5, msg=key)
