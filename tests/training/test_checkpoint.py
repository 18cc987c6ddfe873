import json
import shlex
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import nextlat_viz as nlv
from nextlat_viz import cli
from nextlat_viz.errors import CheckpointError, UnknownNameError
from nextlat_viz.training.card import Card
from nextlat_viz.training.checkpoint import shipped_folders
from nextlat_viz.training.config import resolve_config


def rewrite_card(folder, sign=True, **changes):
    card = Card.model_validate_json((folder / "card.json").read_text()).model_copy(update=changes)
    card = card.signed() if sign else card
    (folder / "card.json").write_text(card.model_dump_json())


def test_a_saved_run_is_loaded_unchanged(run):
    again = nlv.load(run.folder)
    for (name, ours), (_, theirs) in zip(run.model.state_dict().items(), again.model.state_dict().items(), strict=True):
        assert torch.equal(ours, theirs), name
    assert again.name == "rrxor/nextlat/seed3"
    assert again.world.spec == nlv.worlds.get("rrxor").spec
    assert again.label == "NextLat"


def test_the_card_describes_the_run(run):
    card = run.card
    assert card.command.startswith("nextlat-viz train rrxor nextlat --preset tiny --seed 3 --steps 12")
    assert card.metrics["loss"] > card.metrics["floor"] > 0
    assert {"python", "torch", "numpy", "lightning-fabric"} <= set(card.versions)
    assert card.parameters == sum(parameter.numel() for parameter in run.model.parameters())
    assert "rrxor/nextlat/seed3" in run._repr_html_()


def test_snapshots_are_earlier_steps(run):
    assert run.snapshots == [2, 6, 12]
    early, late = run.at(2), run.at(12)
    assert early.step == 2
    assert early.label == "NextLat (step 2)"
    assert early.weights_sha256 != late.weights_sha256 == run.weights_sha256
    assert not torch.equal(early.model.psi.layers[0].weight, late.model.psi.layers[0].weight)
    with pytest.raises(ValueError, match=r"step=5: no snapshot.*Kept: 0, 2, 6, 12"):
        run.at(5)


def test_untrained_is_the_start_of_the_run(run):
    untrained = run.untrained()
    assert untrained.step == 0
    assert untrained.label == "NextLat (untrained)"
    assert untrained.weights_sha256 != run.weights_sha256
    assert torch.equal(run.at(0).model.backbone.embed.weight, untrained.model.backbone.embed.weight)


@pytest.mark.parametrize("damage", ["truncate", "flip", "missing", "other_run"])
def test_weights_that_differ_from_the_card_are_refused(run, damage):
    path = run.folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "missing":
        path.unlink()
    else:
        shutil.copy(run.folder / "snapshots" / "step000002.safetensors", path)
    with pytest.raises(CheckpointError, match="Get the checkpoint again"):
        nlv.load(run.folder)


def test_a_snapshot_that_differs_from_the_card_is_refused(run):
    path = run.folder / "snapshots" / "step000002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="truncated, altered or of another run"):
        run.at(2)


def test_an_altered_card_is_refused(run):
    rewrite_card(run.folder, sign=False, metrics={"loss": 0.0})
    with pytest.raises(CheckpointError, match="was altered"):
        nlv.load(run.folder)


def test_a_truncated_card_is_refused(run):
    path = run.folder / "card.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(CheckpointError, match="truncated or is not JSON"):
        nlv.load(run.folder)


@pytest.mark.parametrize("content", ['{"format": "nextlat_viz.checkpoint/2"}', "[1, 2]", "{}"])
def test_a_card_of_another_format_is_refused(run, content):
    (run.folder / "card.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"is not 'nextlat_viz.checkpoint/1'"):
        nlv.load(run.folder)


def test_an_incomplete_card_is_refused(run):
    path = run.folder / "card.json"
    fields = json.loads(path.read_text())
    del fields["world"]
    path.write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match=r"not a complete card.*world"):
        nlv.load(run.folder)


def test_a_card_of_other_shapes_is_refused(run):
    rewrite_card(run.folder, config=run.card.config.model_copy(update={"mlp_dim": 20}))
    with pytest.raises(CheckpointError, match=r"weights and card disagree about backbone.blocks.0.mlp"):
        nlv.load(run.folder)


@pytest.mark.parametrize("sizes", [{"layers": 10**7}, {"psi_layers": 10**7}, {"mlp_dim": 10**9}, {"psi_width": 10**9}])
def test_a_card_that_asks_for_too_much_memory_is_refused(run, sizes):
    rewrite_card(run.folder, config=run.card.config.model_copy(update=sizes))
    with pytest.raises(CheckpointError, match="weights and card disagree"):
        nlv.load(run.folder)


def test_a_card_with_a_huge_context_is_refused(run):
    # The context is in no shape of the weights, but sets the size of the table of rotations.
    path = run.folder / "card.json"
    path.write_text(path.read_text().replace('"context": 12', '"context": 1000000000'))
    with pytest.raises(CheckpointError, match=r"Missing or wrong: config\.context"):
        nlv.load(run.folder)


def test_a_card_of_nested_brackets_is_refused(run):
    (run.folder / "card.json").write_text("[" * 200_000)
    with pytest.raises(CheckpointError, match="is not JSON"):
        nlv.load(run.folder)


def test_a_card_of_an_unknown_world_is_refused(run):
    rewrite_card(run.folder, world={"name": "atlantis"})
    with pytest.raises(CheckpointError, match=r"cannot be built here.*unknown world 'atlantis'"):
        nlv.load(run.folder)


@pytest.fixture
def offline(monkeypatch):
    """Fail on any connection, and on opening a file that a card names."""

    def refuse(*arguments, **options):
        raise AssertionError(f"reached out: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: refuse(path) if "etc" in path.parts else read(path))


@pytest.mark.parametrize(
    ("world", "message"),
    [
        ({"name": "taxi", "city": "Piedmont, California"}, "reads or downloads the streets of city='Piedmont"),
        ({"name": "taxi", "city": "/etc/streets.graphml"}, "reads or downloads the streets"),
        ({"name": "taxi", "nodes": "/etc/a.csv", "edges": "/etc/b.csv"}, "reads or downloads the streets"),
        ({"name": "text", "source": "x/y"}, "looks up the data set 'x/y'"),
        ({"name": "text", "source": "x/y", "sha256": "0" * 64, "revision": "main"}, "downloads the data set 'x/y'"),
        ({"name": "text", "source": "/etc/passwd"}, "reads the file '/etc/passwd'"),
        ({"name": "text:source=/etc/passwd"}, "reads the file '/etc/passwd'"),
        ({"name": "taxi", "width": 10**4, "height": 10**4}, "10000 x 10000 intersections"),
        ({"name": "path_star", "node_ids": 10**12}, r"node_ids=1000000000000, more than 1,000,000"),
        ({"name": "path_star", "node_ids": [1]}, "cannot be built here"),
        ({"name": ["rrxor"]}, "cannot be built here"),
        ({"name": "hmm", "transitions": {"a": None}}, "cannot be built here"),
    ],
)
def test_a_card_does_not_reach_outside_its_folder(run, offline, world, message):
    rewrite_card(run.folder, world=world)
    with pytest.raises(CheckpointError, match=message):
        nlv.load(run.folder)


@pytest.mark.parametrize("error", [MemoryError, RecursionError, RuntimeError, TypeError, KeyError, OSError])
def test_any_error_of_a_world_is_one_of_the_checkpoint(run, monkeypatch, error):
    def fails(p1, p2):
        raise error("no")

    monkeypatch.setitem(nlv.worlds.registry._factories, "rrxor", fails)
    with pytest.raises(CheckpointError, match=rf"cannot be built here: {error.__name__}: "):
        nlv.load(run.folder)


def test_a_world_of_the_users_own_files_is_loaded_again(tmp_path, small, monkeypatch):
    nodes, edges = tmp_path / "nodes.csv", tmp_path / "edges.csv"
    nodes.write_text("node,x,y\na,0,0\nb,100,0\nc,100,100\nd,0,100\n")
    edges.write_text("source,target\na,b\nb,c\nc,d\nd,a\nb,a\na,c\n")
    world = nlv.worlds.get("taxi", nodes=nodes, edges=edges, held_out=0.3)
    run = nlv.train(world, "next_token", out=tmp_path / "run", progress=False, **small | {"context": 8})
    # As in another session: nothing is in memory, and the training text is in the user's cache.
    monkeypatch.setattr(nlv.worlds.outside, "_asked", set())
    assert nlv.load(run.folder).world.spec == world.spec
    monkeypatch.setattr(nlv.worlds.outside, "_asked", set())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "of another user"))
    with pytest.raises(CheckpointError, match="If you trust it, build the world once"):
        nlv.load(run.folder)
    nlv.worlds.from_spec(run.card.world)
    assert nlv.load(run.folder).world.spec == world.spec


def test_unknown_checkpoint_names_the_nearest():
    with pytest.raises(UnknownNameError, match=r"unknown checkpoint 'rrxor/nextlet'. Did you mean 'rrxor/nextlat'"):
        nlv.load("rrxor/nextlet")
    with pytest.raises(UnknownNameError, match=r"unknown checkpoint 'rrxor/nextlat/seed77'.*rrxor/nextlat/seed0"):
        nlv.load("rrxor/nextlat", seed=77)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"is not a checkpoint: it has no card\.json"):
        nlv.load(tmp_path)


def test_list_shows_every_checkpoint(run):
    table = nlv.list_checkpoints(run.folder.parent)
    assert table["name"].tolist() == ["rrxor/nextlat/seed3"]
    assert {"loss", "floor", "excess", "seed", "parameters"} <= set(table.columns)


@pytest.mark.parametrize("content", ["{", '{"format": "nextlat_viz.checkpoint/2"}'])
def test_a_card_that_cannot_be_read_hides_no_other(run, content):
    bad = run.folder.parent / "another"
    bad.mkdir()
    (bad / "card.json").write_text(content)
    with pytest.warns(UserWarning, match=r"left out: .*another.card\.json"):
        table = nlv.list_checkpoints(run.folder.parent)
    assert table["name"].tolist() == ["rrxor/nextlat/seed3"]


def test_state_names_are_escaped_in_html(run):
    card = run.card.model_copy(update={"name": "<script>alert(1)</script>"})
    html = type(run)(card, run.model, run.step, run.weights_sha256, run.folder)._repr_html_()
    assert "<script>" not in html


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.replace(b"1", b"2", 1),
        lambda content: content[: len(content) // 2],
        lambda content: content + b"\xb3",
        lambda content: b"",
    ],
)
def test_an_altered_curve_of_a_shipped_checkpoint_is_refused(tmp_path, damage):
    shipped = nlv.load("rrxor/nextlat")
    assert len(shipped.metrics) > 1
    folder = tmp_path / "copy"
    shutil.copytree(shipped.folder, folder)
    path = folder / "metrics.csv"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\n", b"\r\n"))
    assert nlv.load(folder).metrics.equals(shipped.metrics)
    path.write_bytes(damage(content))
    with pytest.raises(CheckpointError, match=r"metrics\.csv is truncated or altered.*Get it again"):
        _ = nlv.load(folder).metrics


def test_every_shipped_curve_has_a_hash():
    for checkpoint in map(nlv.load, shipped_folders()):
        assert checkpoint.card.metrics_sha256
        assert len(checkpoint.metrics)


@pytest.mark.parametrize("depth", [150, 900])
def test_a_deeply_nested_card_is_refused(run, depth):
    path = run.folder / "card.json"
    nested = '{"a":' * depth + "0" + "}" * depth
    path.write_text(path.read_text().replace('"world": {', f'"world": {{"deep": {nested},', 1))
    with pytest.raises(CheckpointError, match=r"card\.json.*nested more than 100 levels deep"):
        nlv.load(run.folder)


def test_the_command_of_an_older_card_makes_a_model_without_a_start_token() -> None:
    newer = nlv.load("rrxor/nextlat")
    assert newer.card.config.start_token
    config = newer.card.config.model_copy(update={"start_token": False})
    older = replace(newer, card=newer.card.model_copy(update={"config": config}))
    assert sorted(older.command.split()) == sorted(f"{older.card.command} --start-token False".split())
    assert older.command.split("nextlat-viz train")[1] in older._repr_html_()
    assert newer.command == newer.card.command


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, "NextLat"),
        ({"kv_heads": 4}, "NextLat"),
        ({"kv_heads": 1}, "NextLat, MQA"),
        ({"sharing": "k=v", "kv_heads": 2}, "NextLat, k=v, GQA of 2"),
        ({"sharing": "q=k=v"}, "NextLat, q=k=v"),
    ],
)
def test_a_label_names_what_attention_shares(changes, label):
    plain = nlv.load("rrxor/nextlat")
    config = plain.card.config.model_copy(update=changes)
    shared = replace(plain, card=plain.card.model_copy(update={"config": config}))
    assert shared.label == label
    assert replace(shared, step=0).label == f"{label} (untrained)"


@pytest.mark.parametrize(
    "folder", [path for path in shipped_folders() if path.name == "seed0"], ids=lambda path: path.parts[-3]
)
def test_the_command_of_a_shipped_checkpoint_makes_its_hyperparameters(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, commands = nlv.load(folder), []
    monkeypatch.setattr(nlv.training, "train", lambda **options: commands.append(options) or checkpoint)
    cli.main(shlex.split(checkpoint.command)[1:])
    (options,) = commands
    world, objective, preset = (options.pop(name) for name in ("world", "objective", "preset"))
    places = ("seed", "out", "accelerator", "devices", "strategy")
    overrides = {name: value for name, value in options.items() if name not in places}
    # The text of a world of text is missing; its title names all parameters except hashes.
    assert world == nlv.worlds.title(checkpoint.world)
    assert (objective, options["seed"]) == (checkpoint.objective, checkpoint.seed)
    assert resolve_config(preset, checkpoint.world, overrides) == checkpoint.card.config
