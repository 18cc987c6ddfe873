"""Extraction by several processes into a folder, which is read as one table."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from anndata import AnnData

import nextlat_viz as nlv
from nextlat_viz import latents as nl
from nextlat_viz.cli import main
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents import parts, streaming
from tests.latents.test_streaming import OPTIONS, TOKENS, Cut, assert_same, model

OPTIONS = {name: value for name, value in OPTIONS.items() if name != "lengths"}


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make this process one of several, as torchrun does."""

    def become(number: int, count: int) -> None:
        monkeypatch.setenv("RANK", str(number))
        monkeypatch.setenv("WORLD_SIZE", str(count))

    return become


@pytest.fixture
def folder(rank: Any, tmp_path: Path) -> Path:
    for number in range(3):
        rank(number, 3)
        nl.extract(model(), TOKENS, **OPTIONS, out=tmp_path / "big").file.close()
    rank(0, 1)
    return tmp_path / "big"


def whole(path: Path, **options: Any) -> AnnData:
    nl.extract(model(), TOKENS, **{**OPTIONS, **options}, out=path).file.close()
    return nl.load_latents(path)


def test_the_parts_equal_the_table_of_one_process(folder: Path, tmp_path: Path) -> None:
    together, alone = nlv.load_latents(folder), whole(tmp_path / "one.h5ad")
    assert sorted(path.name for path in folder.iterdir()) == [f"part{k}of3.h5ad" for k in (1, 2, 3)]
    assert together.X.tobytes() == alone.X.tobytes()
    assert_same(together, alone)
    assert together.uns["nextlat_viz"]["extraction"] == alone.uns["nextlat_viz"]["extraction"]
    # A single part is a table of its episodes, with their numbers.
    part = nl.load_latents(folder / "part2of3.h5ad")
    assert part.obs["episode"].min() == 16
    pd.testing.assert_frame_equal(part.obs, alone.obs.loc[part.obs_names])


def test_some_positions_only(rank: Any, tmp_path: Path) -> None:
    for number in range(2):
        rank(number, 2)
        nl.extract(model(), TOKENS, **OPTIONS, positions=[2, -1], out=tmp_path / "big").file.close()
    rank(0, 1)
    assert_same(nl.load_latents(tmp_path / "big"), whole(tmp_path / "one.h5ad", positions=[2, -1]))


@pytest.mark.slow
def test_two_processes_with_gloo(tmp_path: Path) -> None:
    """Two real processes, forked after the imports, in a process group."""
    code = f"""
import os, sys
import torch, torch.distributed as dist
import nextlat_viz as nlv
nlv.latents.extract  # imported before the fork
torch.set_num_threads(1)
child = os.fork()
dist.init_process_group("gloo", init_method="file://{tmp_path}/meet", rank=int(child == 0), world_size=2)
checkpoint = nlv.load("rrxor/nextlat")
episodes = nlv.latents.heldout(checkpoint, 40, 7)
nlv.extract(checkpoint, episodes, batch_size=8, out="{tmp_path}/big", progress=False)
dist.barrier()
dist.destroy_process_group()
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
nlv.extract(checkpoint, episodes, batch_size=8, out="{tmp_path}/one.h5ad", progress=False)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    together, alone = nlv.load_latents(tmp_path / "big"), nlv.load_latents(tmp_path / "one.h5ad")
    assert together.X.tobytes() == alone.X.tobytes()
    assert_same(together, alone)


def test_an_interrupted_part_is_continued(
    folder: Path, rank: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(growing: streaming.Growing) -> None:
        growing._stop()
        raise Cut

    before = (folder / "part2of3.h5ad").read_bytes()
    (folder / "part2of3.h5ad").unlink()
    with pytest.raises(LatentsError, match=r"big lacks part 2 of 3: the same extraction, started again, finishes it"):
        nlv.load_latents(folder)
    monkeypatch.setattr(streaming, "SYNC_EVERY", 0.0)
    rank(1, 3)
    with monkeypatch.context() as patched:
        patched.setattr(streaming.Growing, "_finish", cut)
        with pytest.raises(Cut):
            nl.extract(model(), TOKENS, **OPTIONS, out=folder)
    with pytest.raises(LatentsError, match="lacks part 2 of 3"):
        nlv.load_latents(folder)
    rank(0, 2)
    with pytest.raises(LatentsError, match="holds parts of 3 processes, and these are 2: start 3 to finish it"):
        nl.extract(model(), TOKENS, **OPTIONS, out=folder)
    for number in range(3):
        rank(number, 3)
        nl.extract(model(), TOKENS, **OPTIONS, out=folder).file.close()
    assert (folder / "part2of3.h5ad").read_bytes() == before
    nlv.load_latents(folder)


def test_a_changed_part_is_refused(folder: Path, rank: Any, tmp_path: Path) -> None:
    path = folder / "part2of3.h5ad"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(LatentsError, match=r"part2of3.h5ad was altered or damaged"):
        nlv.load_latents(folder)
    rank(1, 3)
    nl.extract(model(2.0), TOKENS, **OPTIONS, out=tmp_path / "other").file.close()
    shutil.copy(tmp_path / "other" / path.name, path)
    with pytest.raises(LatentsError, match=r"part2of3.h5ad is of another extraction than part 1 \(another weights"):
        nlv.load_latents(folder)
    shutil.copy(folder / "part3of3.h5ad", path)
    with pytest.raises(LatentsError, match=r"than part 1 \(another part\): delete it"):
        nlv.load_latents(folder)
    path.rename(folder / "part1of2.h5ad")
    with pytest.raises(LatentsError, match="holds parts of 2 and of 3 processes: keep those of one extraction"):
        nlv.load_latents(folder)


def test_mistakes_are_named(rank: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LatentsError, match=r"holds no part of a table, as nlv.extract writes them under torchrun"):
        nlv.load_latents(tmp_path)
    with pytest.raises(LatentsError, match=r"out must end in .h5ad, got .*big; a folder is for several processes"):
        nl.extract(model(), TOKENS, **OPTIONS, out=tmp_path / "big")
    rank(0, 20)
    with pytest.raises(LatentsError, match="50 episodes in batches of 4 are 13 for 20 processes: give batch_size=2 or"):
        nl.extract(model(), TOKENS, **OPTIONS, out=tmp_path / "big")
    with pytest.raises(SystemExit):
        main(["extract", "rrxor/nextlat", "--out", str(tmp_path / "a.h5ad")])
    assert (
        "20 processes write a folder of parts, which is never replaced: give --out a new name"
        in capsys.readouterr().err
    )


def test_the_command_writes_its_part(rank: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rank(1, 2)
    options = ["--episodes", "12", "--batch-size", "6", "--device", "cpu"]
    main(["extract", "rrxor/nextlat", "--out", str(tmp_path / "big"), *options])
    assert capsys.readouterr().out == f"{tmp_path / 'big'}, part 2 of 2: 72 rows of 64\n"


def test_each_process_takes_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert parts.own_device("cuda") == torch.device("cuda", 3)
    assert parts.own_device("cuda:1") == "cuda:1"
    assert parts.own_device(None) is None
