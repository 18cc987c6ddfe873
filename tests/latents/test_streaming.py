from __future__ import annotations

import contextlib
import itertools
import json
import runpy
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from torch import nn

from nextlat_viz import latents as nl
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents import layout, streaming
from nextlat_viz.training.checkpoint import Checkpoint

TOKENS = np.random.default_rng(0).integers(0, 9, (50, 6))
LENGTHS = np.random.default_rng(1).integers(0, 7, 50)
TRUTH = {"word": np.array(list("abcdefghi"))[TOKENS], "vector": np.random.default_rng(2).normal(size=(50, 6, 2))}


def model(scale: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    built = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 20), nn.Tanh(), nn.Linear(20, 8))
    with torch.no_grad():
        built[3].weight.mul_(scale)
    return built


OPTIONS: dict[str, Any] = {
    "sites": ["0", "1", "3"], "lengths": LENGTHS, "truth": TRUTH, "batch_size": 4, "progress": False,
}  # fmt: skip


def assert_same(a: AnnData, b: AnnData) -> None:
    assert nl.sites(a) == nl.sites(b)
    assert nl.columns(a) == nl.columns(b)
    for name in nl.sites(a):
        np.testing.assert_array_equal(nl.site(a, name), nl.site(b, name))
    for name in nl.columns(a):
        np.testing.assert_array_equal(nl.column(a, name), nl.column(b, name))
    pd.testing.assert_frame_equal(a.obs, b.obs)
    np.testing.assert_array_equal(nl.tokens_of(a), nl.tokens_of(b))
    first, two = nl.meta(a), nl.meta(b)
    assert {key: first[key] for key in first if key != "extraction"} == {k: two[k] for k in two if k != "extraction"}


@pytest.mark.parametrize("options", [{}, {"positions": [1, -1]}, {"dtype": "float16"}])
def test_a_table_on_disk_equals_one_in_memory(options: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "deep" / "a.h5ad"
    on_disk = nl.extract(model(), TOKENS, **OPTIONS, **options, out=out)
    assert on_disk.isbacked
    assert_same(on_disk, nl.extract(model(), TOKENS, **OPTIONS, **options))
    on_disk.file.close()
    assert_same(nl.load_latents(out), anndata.read_h5ad(out))
    assert [path.name for path in out.parent.iterdir()] == ["a.h5ad"]
    assert nl.load_latents(out).X.dtype == options.get("dtype", "float32")


def test_a_backed_table_can_be_worked_with(tmp_path: Path) -> None:
    on_disk = nl.extract(model(), TOKENS, **OPTIONS, out=tmp_path / "a.h5ad")
    whole = on_disk.to_memory()
    chosen = nl.select(on_disk, position=[2, 3])
    np.testing.assert_array_equal(chosen.X, nl.select(whole, position=[2, 3]).X)
    np.testing.assert_array_equal(nl.site(on_disk[5:9], "1"), nl.site(whole, "1")[5:9])
    again = nl.load_latents(nl.save_latents(on_disk, tmp_path / "b.h5ad"))
    assert_same(again, whole)
    assert nl.concatenate([on_disk, on_disk], names=["x", "y"]).n_obs == 2 * whole.n_obs
    on_disk.file.close()


def test_checkpoints_are_streamed_too(checkpoint: Checkpoint, tmp_path: Path) -> None:
    episodes = checkpoint.world.sample(20, 8, seed=1)
    on_disk = nl.extract(checkpoint, episodes, batch_size=8, out=tmp_path / "a.h5ad")
    assert_same(on_disk, nl.extract(checkpoint, episodes, batch_size=8))
    on_disk.file.close()


class Cut(BaseException):
    """Ends a process at any moment."""


@pytest.mark.parametrize(
    ("where", "batches"), [*itertools.product(("_write", "_sync"), range(0, 13, 3)), ("_finish", 12)]
)
def test_interrupted_anywhere_it_continues_to_the_same_bytes(
    batches: int, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "SYNC_EVERY", 0.0)
    whole, out = tmp_path / "whole.h5ad", tmp_path / "cut.h5ad"
    nl.extract(model(), TOKENS, **OPTIONS, out=whole).file.close()
    calls, untouched = 0, getattr(streaming.Growing, where)

    def cut(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if where == "_finish":
            arguments[0]._stop()
        if where == "_finish" or calls > batches:
            raise Cut
        untouched(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(streaming.Growing, where, cut)
        with pytest.raises(Cut):
            nl.extract(model(), TOKENS, **OPTIONS, out=out)
    assert not out.exists()
    journal = out.with_name(".cut.h5ad.journal")
    # Before the first entry nothing was saved.
    assert journal.exists() == (where != "_sync" or batches > 0)
    begun = json.loads(journal.read_text(encoding="utf-8").split("\n")[0]) if journal.exists() else {}
    with contextlib.closing(streaming.Growing(out, begun)) as growing:
        assert growing.episodes == min(50, 4 * batches if where != "_finish" else 50)
    nl.extract(model(), TOKENS, **OPTIONS, out=out).file.close()
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.h5ad", "whole.h5ad"]


def test_a_short_extraction_waits_for_the_disk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []
    monkeypatch.setattr(streaming, "SYNC_EVERY", 60.0)
    monkeypatch.setattr(streaming.Growing, "_sync", lambda growing: waited.append(growing))
    nl.extract(model(), TOKENS, **OPTIONS, out=tmp_path / "a.h5ad").file.close()
    assert not waited
    assert nl.load_latents(tmp_path / "a.h5ad").n_obs == LENGTHS.sum()


def test_a_killed_extraction_continues_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys, time, torch\n"
        "from pathlib import Path\n"
        "import nextlat_viz.latents as nl\n"
        "from nextlat_viz.latents import streaming\n"
        "streaming.SYNC_EVERY = 0.0\n"
        "import numpy as np\n"
        "torch.manual_seed(0)\n"
        "model = torch.nn.Sequential(torch.nn.Embedding(9, 8), torch.nn.Linear(8, 8))\n"
        "def call(model, tokens, real):\n"
        "    time.sleep(float(sys.argv[2]))\n"
        "    return model(tokens)\n"
        "tokens = np.arange(1200).reshape(200, 6) % 9\n"
        "latents = nl.extract(model, tokens, ['0', '1'], 2, out=Path(sys.argv[1]), call=call, progress=False)\n"
    )
    whole, out = tmp_path / "whole.h5ad", tmp_path / "cut.h5ad"
    script = tmp_path / "script.py"
    script.write_text(code, encoding="utf-8")

    def run(path: Path) -> None:
        monkeypatch.setattr(sys, "argv", [str(script), str(path), "0"])
        runpy.run_path(str(script))["latents"].file.close()

    monkeypatch.setattr(streaming, "SYNC_EVERY", 0.0)
    run(whole)
    killed = subprocess.Popen([sys.executable, str(script), str(out), "0.02"])
    journal = out.with_name(".cut.h5ad.journal")
    until = time.monotonic() + 60
    while time.monotonic() < until and not (journal.exists() and journal.read_bytes().count(b"\n") > 5):
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert not out.exists()
    done = journal.read_text(encoding="utf-8").split("\n")[-2].split()
    assert 0 < int(done[0]) < 200
    run(out)
    assert out.read_bytes() == whole.read_bytes()


def test_an_incomplete_line_of_the_journal_is_ignored(tmp_path: Path) -> None:
    out = tmp_path / "a.h5ad"
    expected = nl.extract(model(), TOKENS, **OPTIONS)

    batches = tmp_path / "batches"

    def call(module: nn.Module, tokens: torch.Tensor, real: torch.Tensor) -> Any:
        if batches.exists():
            batches.write_text(batches.read_text() + ".")
            if len(batches.read_text()) == 4:
                raise KeyboardInterrupt
        return module(tokens)

    journal = out.with_name(".a.h5ad.journal")
    for _ in range(2):
        batches.write_text("")
        with pytest.raises(KeyboardInterrupt):
            nl.extract(model(), TOKENS, **OPTIONS, out=out, call=call)
        with journal.open("a", encoding="utf-8", newline="\n") as file:
            file.write("44 1")
    batches.unlink()
    on_disk = nl.extract(model(), TOKENS, **OPTIONS, out=out, call=call)
    assert_same(on_disk, expected)
    on_disk.file.close()


def test_another_call_is_refused_and_the_differences_listed(tmp_path: Path) -> None:
    out = tmp_path / "a.h5ad"
    nl.extract(model(), TOKENS, **OPTIONS, out=out).file.close()
    before = out.read_bytes()
    nl.extract(model(), TOKENS, **OPTIONS, out=out).file.close()  # the same call opens it
    different = {**OPTIONS, "sites": ["0", "3"], "batch_size": 8}
    with pytest.raises(LatentsError, match=r"another call \(sites was .*, now .*; batch_size was 4, now 8\)"):
        nl.extract(model(), TOKENS, **different, out=out)
    with pytest.raises(LatentsError, match="weights_sha256 was"):
        nl.extract(model(2.0), TOKENS, **OPTIONS, out=out)
    with pytest.raises(LatentsError, match="truth_sha256 was"):
        nl.extract(model(), TOKENS, **{**OPTIONS, "truth": None}, out=out)
    assert out.read_bytes() == before
    begun = tmp_path / "b.h5ad"
    with pytest.raises(LatentsError, match="float16 cannot: give dtype='float32'"):
        nl.extract(model(1e6), TOKENS, **OPTIONS, out=begun, dtype="float16")
    with pytest.raises(LatentsError, match=r"b\.h5ad\.journal is of another call .*to start over"):
        nl.extract(model(), TOKENS, **OPTIONS, out=begun)


def test_errors_when_writing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LatentsError, match=r"must end in \.h5ad"):
        nl.extract(model(), TOKENS, **OPTIONS, out=tmp_path / "a.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(LatentsError, match="cannot write"):
        nl.extract(model(), TOKENS, **OPTIONS, out=tmp_path / "file" / "a.h5ad")
    (tmp_path / "other.h5ad").write_bytes(b"something else")
    with pytest.raises(LatentsError, match="does not state the call that wrote it"):
        nl.extract(model(), TOKENS, **OPTIONS, out=tmp_path / "other.h5ad")
    full: Callable[[Any], Any] = lambda path: type("Usage", (), {"free": 10})()  # noqa: E731
    monkeypatch.setattr(layout.shutil, "disk_usage", full)
    with pytest.raises(LatentsError, match=r"rows need .* GiB .* are free: take fewer sites"):
        nl.extract(model(), TOKENS, **OPTIONS, out=tmp_path / "a.h5ad")


def test_a_disk_that_fills_up_during_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, whole = tmp_path / "a.h5ad", tmp_path / "whole.h5ad"
    nl.extract(model(), TOKENS, **OPTIONS, out=whole).file.close()
    narrow, sites = streaming.narrow, iter(range(100))

    def full(*arguments: Any) -> Any:
        if next(sites) == 7:
            raise OSError(28, "No space left on device")
        return narrow(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(streaming, "narrow", full)
        with pytest.raises(LatentsError, match=r"No space left.* The same call continues from the last saved batch"):
            nl.extract(model(), TOKENS, **OPTIONS, out=out)
    assert not out.exists()
    nl.extract(model(), TOKENS, **OPTIONS, out=out).file.close()
    assert out.read_bytes() == whole.read_bytes()


def test_a_link_planted_under_the_name_of_the_part_is_not_followed(tmp_path: Path) -> None:
    out, target = tmp_path / "a.h5ad", tmp_path / "precious"
    target.write_text("mine")
    part = out.with_name(".a.h5ad.part")
    part.symlink_to(target)
    on_disk = nl.extract(model(), TOKENS, **OPTIONS, out=out)
    on_disk.file.close()
    assert target.read_text() == "mine"
    # Even if a journal says that the part was begun.
    identity = streaming.stated(out)
    out.unlink()
    part.symlink_to(target)
    out.with_name(".a.h5ad.journal").write_text(f"{json.dumps(identity)}\n40 300\n")
    nl.extract(model(), TOKENS, **OPTIONS, out=out).file.close()
    assert target.read_text() == "mine"


def test_tables_can_be_written_with_the_text_type_of_pandas_3(tmp_path: Path) -> None:
    with pd.option_context("future.infer_string", True):
        on_disk = nl.extract(model(), TOKENS, **OPTIONS, out=tmp_path / "a.h5ad")
        assert_same(on_disk, nl.extract(model(), TOKENS, **OPTIONS))
        on_disk.file.close()


@pytest.mark.parametrize("name", ["a/b", "_index", "", "."])
def test_names_that_cannot_be_stored_are_refused_before_the_work(name: str, tmp_path: Path) -> None:
    def call(*_: Any) -> None:
        pytest.fail("the model ran")

    for truth in ({name: TOKENS}, {name: TRUTH["vector"]}):
        with pytest.raises(LatentsError, match="cannot be the name of a column or site in a file"):
            nl.extract(model(), TOKENS, ["0"], truth=truth, call=call, out=tmp_path / "a.h5ad")
    assert not list(tmp_path.iterdir())


class Scaled(nn.Module):
    def __init__(self, scale: float = 1.0, noise: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.out, self.scale = nn.Embedding(9, 8), nn.Identity(), scale
        self.register_buffer("noise", torch.full((8,), noise), persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.embed(tokens) * self.scale + self.noise)


def redefined() -> type[nn.Module]:
    class Again(Scaled):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.out(self.embed(tokens) - 1)

    Again.__qualname__, Again.__module__ = Scaled.__qualname__, Scaled.__module__
    return Again


def hooked() -> nn.Module:
    built = Scaled()
    built.embed.register_forward_hook(lambda module, args, output: output * 3)
    return built


def activated() -> nn.Module:
    built = Scaled()
    built.out = nn.Tanh()
    return built


@pytest.mark.parametrize(
    ("other", "options"),
    [
        (lambda: Scaled(scale=2.0), {}),
        (lambda: Scaled(noise=1.0), {}),
        (lambda: redefined()(), {}),
        (hooked, {}),
        (activated, {}),
        (Scaled, {"call": lambda module, tokens, real: module(tokens + 0)}),
    ],
    ids=["attribute", "buffer", "code", "hook", "activation", "call"],
)
def test_another_computation_of_the_same_weights_is_another_call(
    other: Callable[[], nn.Module], options: dict[str, Any], tmp_path: Path
) -> None:
    for _ in range(2):
        nl.extract(Scaled(), TOKENS, "out", progress=False, out=tmp_path / "a.h5ad").file.close()
    with pytest.raises(LatentsError, match="computation_sha256 was"):
        nl.extract(other(), TOKENS, "out", progress=False, out=tmp_path / "a.h5ad", **options)


def test_a_damaged_finished_file_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "a.h5ad"
    nl.extract(model(), TOKENS, **OPTIONS, out=out).file.close()
    whole = out.read_bytes()
    for where in np.random.default_rng(0).integers(0, len(whole), 40):
        altered = bytearray(whole)
        altered[where] ^= 0x10
        out.write_bytes(altered)
        with pytest.raises(LatentsError, match="delete"):
            nl.extract(model(), TOKENS, **OPTIONS, out=out)


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    def stop(read: int, total: int) -> None:
        if read >= 24:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nl.extract(model(), TOKENS, **{**OPTIONS, "progress": stop}, out=tmp_path / "a.h5ad")
    return tmp_path / "a.h5ad"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]\n8 20\n", b"null\n", b"\xff\xfe\n", b"[" * 200_000 + b"\n", b"8 20\n"]
)
def test_a_damaged_journal_is_named(interrupted: Path, content: bytes) -> None:
    journal = interrupted.with_name(".a.h5ad.journal")
    journal.write_bytes(content)
    with pytest.raises(LatentsError, match=r"\.a\.h5ad\.journal is damaged.* delete .*journal to start over"):
        nl.extract(model(), TOKENS, **OPTIONS, out=interrupted)
    journal.unlink()
    nl.extract(model(), TOKENS, **OPTIONS, out=interrupted).file.close()


@pytest.mark.parametrize("counts", ["48 {rows}", "48 5", "-1 -1", "8 99999999", "24 10", "50 {rows}", "50 5"])
def test_a_journal_that_counts_rows_never_written_is_refused(interrupted: Path, counts: str) -> None:
    journal = interrupted.with_name(".a.h5ad.journal")
    first, *_, last, _ = journal.read_text().split("\n")
    entry = counts.format(rows=int(LENGTHS[: int(counts.split()[0])].sum()))
    journal.write_text(f"{first}\n{entry} {last.split()[2]}\n")
    with pytest.raises(LatentsError, match=r"is damaged, .* delete .*journal to start over"):
        nl.extract(model(), TOKENS, **OPTIONS, out=interrupted)


@pytest.mark.parametrize("size", [0, 100, 3000])
def test_a_damaged_part_is_named(interrupted: Path, size: int) -> None:
    part = interrupted.with_name(".a.h5ad.part")
    part.write_bytes(part.read_bytes()[:size])
    with pytest.raises(LatentsError, match=r"\.part is damaged.* delete .*journal to start over"):
        nl.extract(model(), TOKENS, **OPTIONS, out=interrupted)


def test_altered_rows_are_not_continued(interrupted: Path) -> None:
    part = interrupted.with_name(".a.h5ad.part")
    value = nl.extract(model(), TOKENS, **OPTIONS).X[0].tobytes()
    part.write_bytes(part.read_bytes().replace(value, bytes(len(value)), 1))
    with pytest.raises(LatentsError, match=r"\.part is damaged"):
        nl.extract(model(), TOKENS, **OPTIONS, out=interrupted)


@pytest.mark.parametrize("where", ["obs/_index", "obs/token", "uns/nextlat_viz/label"])
def test_altered_columns_and_layout_are_not_continued(interrupted: Path, where: str) -> None:
    part = interrupted.with_name(".a.h5ad.part")
    with h5py.File(part, "r+") as file:
        item = file[where]["codes"] if isinstance(file[where], h5py.Group) else file[where]
        value = item[()] if item.shape == () else item[0]
        item[() if item.shape == () else 0] = b"other" if isinstance(value, bytes) else value + 1
    with pytest.raises(LatentsError, match=r"\.part is damaged"):
        nl.extract(model(), TOKENS, **OPTIONS, out=interrupted)


def test_two_extractions_do_not_share_a_file(tmp_path):
    module, tokens = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 8)), np.arange(10).reshape(2, 5)
    out = tmp_path / "latents.h5ad"

    def another(done, total):
        with pytest.raises(LatentsError, match="is in use: another process extracts there"):
            nl.extract(module, tokens[::-1], ["1"], out=out, progress=False)

    latents = nl.extract(module, tokens, ["1"], out=out, batch_size=1, progress=another)
    np.testing.assert_array_equal(latents.X[:], nl.extract(module, tokens, ["1"], batch_size=1, progress=False).X)
    assert [path.name for path in tmp_path.iterdir()] == ["latents.h5ad"]
