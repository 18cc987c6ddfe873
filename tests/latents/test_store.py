from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from nextlat_viz import latents as nl
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents import store
from nextlat_viz.training.checkpoint import Checkpoint
from tests.synthetic import make_latents


@pytest.fixture
def saved(latents: AnnData, tmp_path: Path) -> Path:
    return nl.save_latents(latents, tmp_path / "latents.h5ad")


def assert_same(a: AnnData, b: AnnData) -> None:
    assert nl.metas(a) == nl.metas(b)
    assert nl.sites(a) == nl.sites(b)
    for name in nl.sites(a):
        np.testing.assert_array_equal(nl.site(a, name), nl.site(b, name))
    assert nl.columns(a) == nl.columns(b)
    for name in nl.columns(a):
        np.testing.assert_array_equal(nl.column(a, name), nl.column(b, name))
        assert nl.column(a, name).dtype == nl.column(b, name).dtype
    assert list(a.obs_names) == list(b.obs_names)


def test_a_saved_table_is_loaded_unchanged(latents: AnnData, saved: Path) -> None:
    assert_same(nl.load_latents(saved), latents)
    assert_same(anndata.read_h5ad(saved), latents)
    assert list(nl.load_latents(saved).obs["state"].cat.categories) == ["start", "first 0", "first 1", "XOR 1", "XOR 0"]


def test_slices_and_concatenations_are_loaded_unchanged(latents: AnnData, tmp_path: Path) -> None:
    part = latents[(latents.obs["position"] >= 3).to_numpy()]
    both = nl.concatenate([latents, make_latents(n=6, length=5, dim=4, label="a/b <i>")])
    for i, table in enumerate([part, both, nl.select(both, model="a/b <i>")]):
        loaded = nl.load_latents(nl.save_latents(table, tmp_path / f"{i}.h5ad"))
        assert_same(loaded, table)
        assert_same(nl.load_latents(nl.save_latents(loaded, tmp_path / f"{i} again.h5ad")), table)
        assert nl.world_of(loaded).name == "rrxor"
        np.testing.assert_array_equal(nl.tokens_of(loaded), nl.tokens_of(table))


def test_columns_and_arrays_that_users_add_are_kept(latents: AnnData, tmp_path: Path) -> None:
    latents.obsm["X_pca"] = np.ones((30, 2), dtype=np.float32)
    latents.obs["note"] = ["a", "b", "b"] * 10
    latents.uns["X_pca"] = {"site": "hidden", "variance": np.array([0.5, 0.25]), "seed": 3, "nested": {"trust": 0.9}}
    before = latents.copy()
    loaded = nl.load_latents(nl.save_latents(latents, tmp_path / "a.h5ad"))
    assert_same(loaded, latents)
    assert loaded.uns["X_pca"]["nested"]["trust"] == 0.9
    assert_same(latents, before)  # saving does not touch what it saves
    assert latents.obs.dtypes.equals(before.obs.dtypes)


def test_reloads_in_a_process_that_has_no_torch(saved: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from nextlat_viz import latents\n"
        f"table = latents.load_latents({str(saved)!r})\n"
        "print(table.n_obs, latents.world_of(table).name, latents.tokens_of(table).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "30 rrxor (6, 5)"


def test_the_same_table_gives_the_same_bytes(latents: AnnData, saved: Path) -> None:
    again = nl.save_latents(latents, saved.with_name("again.h5ad"))
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(saved.read_bytes()).digest()


def test_any_altered_byte_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for where in np.random.default_rng(0).integers(0, len(whole), 100):
        altered = bytearray(whole)
        altered[where] ^= 0x10
        saved.write_bytes(altered)
        with pytest.raises(LatentsError):
            nl.load_latents(saved)
    saved.write_bytes(whole + b"\0")
    with pytest.raises(LatentsError, match="altered or damaged"):
        nl.load_latents(saved)


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(saved: Path, share: float) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(LatentsError, match=r"truncated: it has [\d,]+ of [\d,]+ bytes"):
        nl.load_latents(saved)


def test_files_of_other_programs_are_refused(tmp_path: Path, saved: Path) -> None:
    path = tmp_path / "other.h5ad"
    with pytest.raises(LatentsError, match=r"cannot read .*No such file"):
        nl.load_latents(path)
    path.write_bytes(b"")
    with pytest.raises(LatentsError, match="is empty"):
        nl.load_latents(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(LatentsError, match=r"not an \.h5ad file of latents"):
        nl.load_latents(path)
    AnnData(np.zeros((2, 2), dtype=np.float32)).write_h5ad(path)
    with pytest.raises(LatentsError, match=r"HDF5, but was not written by nlv.save_latents"):
        nl.load_latents(path)


@pytest.mark.parametrize(("version", "advice"), [(2, "upgrade it"), (0, "extract the latents again")])
def test_files_of_other_versions_are_refused(saved: Path, version: int, advice: str) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole.replace(b"latents/1\n", f"latents/{version}\n".encode(), 1))
    with pytest.raises(LatentsError, match=rf"has format nextlat_viz\.latents/{version}.*{advice}"):
        nl.load_latents(saved)


def test_an_existing_file_is_replaced_only_with_overwrite(latents: AnnData, saved: Path) -> None:
    before = saved.read_bytes()
    other = nl.select(latents, position=5)
    with pytest.raises(LatentsError, match="exists already: pass overwrite=True"):
        nl.save_latents(other, saved)
    assert saved.read_bytes() == before
    nl.save_latents(other, saved, overwrite=True)
    assert_same(nl.load_latents(saved), other)


def test_other_suffixes_and_other_tables_are_refused(latents: AnnData, tmp_path: Path) -> None:
    with pytest.raises(LatentsError, match=r"must end in \.h5ad"):
        nl.save_latents(latents, tmp_path / "latents.csv")
    with pytest.raises(LatentsError, match="not a latents table"):
        nl.save_latents(AnnData(np.zeros((2, 2), dtype=np.float32)), tmp_path / "a.h5ad")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_refused(latents: AnnData, saved: Path) -> None:
    with pytest.raises(LatentsError, match=r"cannot write .*Choose a folder you can write to"):
        nl.save_latents(latents, saved / "inside.h5ad")


@pytest.mark.skipif(os.name == "nt", reason="folders have no write bit")
def test_a_read_only_folder_is_refused(latents: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:  # nothing is forbidden to root
        refuse = lambda **_: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))  # noqa: E731
        monkeypatch.setattr(tempfile, "mkstemp", refuse)
    tmp_path.chmod(0o500)
    with pytest.raises(LatentsError, match=r"cannot write .*Permission denied"):
        nl.save_latents(latents, tmp_path / "a.h5ad")
    tmp_path.chmod(0o700)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_interrupted_saves_leave_the_old_file(
    latents: AnnData, saved: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    before = saved.read_bytes()

    def fail(path: Path) -> bytes:
        raise failure

    monkeypatch.setattr(store, "_block", fail)
    with pytest.raises((LatentsError, KeyboardInterrupt)):
        nl.save_latents(nl.select(latents, position=5), saved, overwrite=True)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_check_same_model(make_checkpoint: Callable[..., Checkpoint]) -> None:
    checkpoint, other = make_checkpoint(seed=0), make_checkpoint(seed=1)
    episodes = checkpoint.world.sample(2, 4, seed=0)
    latents = nl.extract(checkpoint, episodes)
    nl.check_same_model(latents, checkpoint)
    with pytest.raises(LatentsError, match=r"of rrxor/nextlat/seed0 step 10 .*, not of rrxor/nextlat/seed1"):
        nl.check_same_model(latents, other)
    with pytest.raises(LatentsError, match="not of rrxor/nextlat/seed0 step 0"):
        nl.check_same_model(latents, checkpoint.untrained())
    nl.check_same_model(nl.concatenate([latents, nl.extract(other, episodes)]), other)


GAPS = {
    "bool": pd.array([True, None, False] * 10, dtype=object),
    "text": pd.array(["b", None, "a"] * 10, dtype=object),
    "integer": pd.array([1, None, 2] * 10, dtype=object),
    "float": pd.array([1.5, None, 2] * 10, dtype=object),
    "empty": pd.array([None] * 30, dtype=object),
    "nullable text": pd.array(["b", None, "a"] * 10, dtype="string"),
    "text of pandas 3": pd.array(["b", None, "a"] * 10, dtype=pd.StringDtype("python", na_value=np.nan)),
    "nullable float": pd.array([1.5, None, 2] * 10, dtype="Float64"),
    "nullable bool": pd.array([True, None, False] * 10, dtype="boolean"),
    "bins": pd.cut(np.arange(30), 3),
    "days": pd.Categorical(pd.date_range("2024-01-01", periods=30)),
}


@pytest.mark.parametrize("kind", GAPS)
def test_columns_with_gaps_and_of_pandas_types_are_kept(latents: AnnData, tmp_path: Path, kind: str) -> None:
    latents.obs["own"] = GAPS[kind]
    before = latents.obs["own"].copy()
    back = nl.load_latents(nl.save_latents(latents, tmp_path / "a.h5ad")).obs["own"]
    assert back.isna().tolist() == before.isna().tolist()
    present = before.notna()
    assert [str(value) for value in back[present]] == [
        str(float(value) if "float" in kind else value) for value in before[present]
    ]
    assert latents.obs["own"].dtype == before.dtype  # saving leaves the table as it was


@pytest.mark.parametrize(
    "values",
    [[1, "a", True] * 10, [[1], [2], [3]] * 10, pd.date_range("2024-01-01", periods=30), pd.to_timedelta(range(30))],
)
def test_columns_that_cannot_be_stored_are_named(latents: AnnData, tmp_path: Path, values: Any) -> None:
    latents.obs["own"] = values
    with pytest.raises(LatentsError, match=r"column 'own' holds values of type .*astype\(str\)"):
        nl.save_latents(latents, tmp_path / "a.h5ad")
    latents.obs["own"] = latents.obs["own"].astype(str)
    assert_same(nl.load_latents(nl.save_latents(latents, tmp_path / "a.h5ad")), latents)
    latents.uns["own"] = {"thing": object()}
    with pytest.raises(LatentsError, match=r"table cannot be stored: .*thing"):
        nl.save_latents(latents, tmp_path / "b.h5ad")
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5ad"]


@pytest.mark.parametrize("name", ["_index", "", ".", "a/b", "a\0b", 5])
@pytest.mark.parametrize("where", ["obs", "obsm"])
def test_names_that_cannot_be_stored_are_refused(latents: AnnData, tmp_path: Path, name: Any, where: str) -> None:
    getattr(latents, where)[name] = np.ones((30, 2) if where == "obsm" else 30)
    with pytest.raises(LatentsError, match="cannot be the name of a column or site in a file"):
        nl.save_latents(latents, tmp_path / "a.h5ad")


def test_tables_can_be_stored_with_the_text_type_of_pandas_3(tmp_path: Path) -> None:
    with pd.option_context("future.infer_string", True):
        latents = make_latents(n=6, length=5, dim=4)
        latents.obs["note"] = ["a", "b", "b"] * 10
        both = nl.concatenate([latents, make_latents(n=6, length=5, dim=4, label="B")])
        for table in (latents, both):
            path = nl.save_latents(table, tmp_path / "a.h5ad", overwrite=True)
            assert_same(nl.load_latents(path), table)


def bomb(file: h5py.File) -> None:
    file["obsm"].create_dataset("zeros", (24, 10**9), "f4", chunks=(24, 10**6), compression="gzip")


def same_array_under_many_names(file: h5py.File) -> None:
    for k in range(100):
        file["obsm"][f"belief{k}"] = file["obsm/belief"]


def group_in_itself(file: h5py.File) -> None:
    file["uns/again"] = file["uns"]


def link_to_another_file(file: h5py.File) -> None:
    file["obsm/secret"] = h5py.ExternalLink("/other/file.h5", "/data")


def text_for_numbers(file: h5py.File) -> None:
    del file["obsm/belief"]
    file["obsm/belief"] = "nothing"


@pytest.mark.parametrize(
    "change", [bomb, same_array_under_many_names, group_in_itself, link_to_another_file, text_for_numbers]
)
def test_content_that_is_no_table_is_refused_whatever_its_hash(
    saved: Path, change: Callable[[h5py.File], None]
) -> None:
    with h5py.File(saved, "r+") as file:
        change(file)
    store.seal_file(saved)
    with pytest.raises(LatentsError, match=r"\.h5ad (does not hold a table|was not written by nlv\.save)"):
        nl.load_latents(saved)
