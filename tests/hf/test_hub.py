"""Checkpoints on the Hugging Face Hub, against a server on this machine that stands in for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

import nextlat_viz as nlv
from nextlat_viz.errors import CheckpointError
from nextlat_viz.hf import hub as our_hub
from nextlat_viz.io import write

from .hub_server import Hub, serving

NAME = "ada/rrxor-nextlat"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setattr(our_hub, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(our_hub, "_SECONDS", 2.0)
    monkeypatch.setenv("HF_TOKEN", "good")
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture(scope="module")
def published() -> dict[str, bytes]:
    """Files of a checkpoint on the Hub."""
    with serving() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        nlv.push("rrxor/nextlat", NAME, token="good")
        return hub.files[NAME]


@pytest.fixture
def hub_with(hub: Hub, published: dict[str, bytes]) -> Hub:
    """The Hub with that checkpoint."""
    hub.files[NAME] = dict(published)
    hub.private.add(NAME)
    return hub


def test_push_and_load(hub: Hub, tmp_path: Path) -> None:
    original = nlv.load("rrxor/nextlat")
    assert nlv.push("rrxor/nextlat", NAME) == f"{hub.url}/{NAME}/commit/1"
    assert hub.private == {NAME}
    snapshots = [f"snapshots/step{step:06d}.safetensors" for step in original.card.snapshots]
    expected = {".gitattributes", "README.md", "card.json", "metrics.csv", "model.safetensors", *snapshots}
    assert set(hub.files[NAME]) == expected

    readme = hub.files[NAME]["README.md"].decode()
    front, text = re.fullmatch(r"---\n(.*?)\n---\n(.*)", readme, re.DOTALL).groups()
    assert yaml.safe_load(front) == {
        "library_name": "nextlat_viz",
        "tags": ["nextlat_viz", "belief-states", "nextlat", "rrxor"],
    }
    assert f'nlv.load("hf:{NAME}")' in text
    assert original.card.weights_sha256 in text
    assert f"{original.card.metrics['loss']:.6g}" in text

    loaded = nlv.load(f"hf:{NAME}")
    assert loaded.card == original.card
    assert loaded.folder.is_relative_to(tmp_path / "cache")
    for key, weights in original.model.state_dict().items():
        torch.testing.assert_close(loaded.model.state_dict()[key], weights, rtol=0, atol=0)
    assert len(loaded.metrics) == len(original.metrics)
    step = next(iter(original.card.snapshots))
    assert loaded.at(step).weights_sha256 == original.card.snapshots[step]
    # A name on the Hub works wherever the name of a checkpoint does.
    assert nlv.extract(f"hf:{NAME}", original.world.sample(2, 4, seed=0), progress=False).n_obs == 8


def test_only_files_named_by_the_card_are_downloaded(hub_with: Hub, tmp_path: Path) -> None:
    hub_with.files[NAME]["modeling.py"] = b"raise SystemExit('code was run')"
    hub_with.files[NAME]["pytorch_model.bin"] = b"\x80\x04cposix\nsystem\n."
    nlv.load(f"hf:{NAME}")
    assert not [request for request in hub_with.requests if request.endswith((".py", ".bin", "README.md"))]


def test_without_a_connection_the_last_version_is_loaded(hub_with: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = nlv.load(f"hf:{NAME}").weights_sha256
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert nlv.load(f"hf:{NAME}").weights_sha256 == digest
    with pytest.raises(
        CheckpointError, match=r"hf:ada/another cannot be loaded: the Hugging Face Hub cannot be reached"
    ):
        nlv.load("hf:ada/another")
    with pytest.raises(CheckpointError, match=r"not published as ada/another: the Hugging Face Hub cannot be reached"):
        nlv.push("rrxor/nextlat", "ada/another")


def test_names_that_cannot_be_read(hub_with: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"hf:ada/none cannot be loaded: the Hub has no model of this name"):
        nlv.load("hf:ada/none")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    with pytest.raises(CheckpointError, match="log in with `hf auth login` or set HF_TOKEN"):
        nlv.load(f"hf:{NAME}")
    with pytest.raises(CheckpointError, match=r"was not published as ada/other: .*log in with"):
        nlv.push("rrxor/nextlat", "ada/other")
    hub_with.refuse = 500
    with pytest.raises(CheckpointError, match="status 500"):
        nlv.load(f"hf:{NAME}")


@pytest.mark.parametrize("name", ["hf:../../x", "hf:/etc/passwd", "hf:a/b/c", "hf:ada/..", "hf:~nobody/x", "hf:c:\\x"])
def test_invalid_names_are_refused(hub_with: Hub, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="is neither a folder nor a name on the Hugging Face Hub"):
        nlv.load(name)
    with pytest.raises(ValueError, match="is no name on the Hugging Face Hub: give 'user/name'"):
        nlv.push("rrxor/nextlat", name)
    assert hub_with.requests == []


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", lambda old: old[:-1] + b"\0", "its sha256 is .* the card says"),
        ("card.json", lambda old: old.replace(b'"seed": 0', b'"seed": 1'), "do not match card_sha256"),
        ("card.json", lambda old: old.replace(b"checkpoint/1", b"checkpoint/9"), "checkpoint/9' is not"),
        ("card.json", lambda old: old.ljust(1 << 21), "has 2,097,152 bytes, of at most 1,048,576"),
        ("model.safetensors", lambda old: old.ljust(3 << 20), "its model.safetensors has 3,145,728 bytes"),
        ("snapshots/step000200.safetensors", None, "its snapshots/step000200.safetensors is missing"),
    ],
)
def test_altered_files_are_refused(hub_with: Hub, tmp_path: Path, file: str, content, message: str) -> None:
    files = hub_with.files[NAME]
    whole = files[file]
    if content is None:
        del files[file]
    else:
        files[file] = content(whole)
    with pytest.raises(CheckpointError, match=f"hf:{NAME} is .*{message}"):
        nlv.load(f"hf:{NAME}")
    files[file] = whole
    assert nlv.load(f"hf:{NAME}").card.name == "rrxor/nextlat/seed0"


def test_a_damaged_download_is_repeated(hub_with: Hub) -> None:
    path = nlv.load(f"hf:{NAME}").folder / "model.safetensors"
    write(path.resolve(), path.read_bytes()[:-1] + b"\0")
    with pytest.raises(CheckpointError, match="sha256"):
        nlv.load(f"hf:{NAME}")
    assert nlv.load(f"hf:{NAME}").step == 4000


def test_an_interrupted_download_cannot_be_loaded(hub_with: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = hub_with.files[NAME]["model.safetensors"]

    hub_with.files[NAME]["model.safetensors"], hub_with.promised["model.safetensors"] = whole[:1000], len(whole)
    with pytest.raises(CheckpointError, match=f"hf:{NAME}"):
        nlv.load(f"hf:{NAME}")
    hub_with.files[NAME]["model.safetensors"] = whole
    assert nlv.load(f"hf:{NAME}").step == 4000


def test_other_models_are_left_to_transformers(hub_with: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_with.files["ada/gpt"] = {"config.json": b"{}"}
    hub_with.files["ada/cards"] = {"config.json": b"{}", "card.json": b'{"suit": "spades"}'}
    left: list[str] = []

    def load_hf(name: str) -> None:
        left.append(name)
        raise FileNotFoundError

    monkeypatch.setattr("nextlat_viz.hf.finetuned.load_hf", load_hf)
    for name in ("hf:ada/gpt", "hf:ada/cards", "hf:gpt2"):
        with pytest.raises(FileNotFoundError):
            nlv.load(name)
        assert left.pop() == name


def test_only_finished_runs_are_published(hub_with: Hub) -> None:
    checkpoint = nlv.load("rrxor/nextlat")
    for unfinished in (checkpoint.untrained(), checkpoint.at(200)):
        with pytest.raises(CheckpointError, match=r"no finished run: give a checkpoint of nlv\.train at its last step"):
            nlv.push(unfinished, NAME)
    assert hub_with.requests == []
