"""Latents in the files of other tools, read back by those tools' own code where it is installed."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from google.protobuf import text_format
from pyarrow import parquet
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from torch import nn
from werkzeug.test import Client

import nextlat_viz as nlv
from nextlat_viz import latents as nl
from nextlat_viz.analysis.projection.result import with_projection
from nextlat_viz.errors import LatentsError, UnknownNameError
from tests.synthetic import make_latents


def without_truth() -> AnnData:
    model = nn.Sequential(nn.Embedding(4, 6), nn.Tanh())
    tokens = np.random.default_rng(0).integers(0, 4, (5, 4))
    return nl.extract(model, tokens, sites=["1"], vocabulary=["a", "\t", "c\n", ""], progress=False)


def table_of(kind: str) -> AnnData:
    if kind == "no world":
        return without_truth()
    if kind == "recursion":
        checkpoint = nlv.load("queens/trm")
        return nlv.extract(checkpoint, checkpoint.world.sample(3, seed=1), steps=3, progress=False)
    single = make_latents(n=6, length=5, dim=4)
    if kind == "two models":
        return nl.concatenate([single, make_latents(label="next-token", n=6, length=5, dim=4)])
    return single[::3].copy() if kind == "some rows" else single


@pytest.mark.parametrize("kind", ["one model", "two models", "some rows", "no world", "recursion"])
def test_tables_meet_the_needs_of_scanpy(kind: str, tmp_path: Path) -> None:
    """scanpy warns or fails if one of these is broken; it is too large to install for this test."""
    latents = table_of(kind)
    assert latents.obs_names.is_unique
    assert latents.var_names.is_unique
    assert all(type(name) is str for name in (*latents.obs_names, *latents.obs.columns, *latents.uns))
    assert latents.X.dtype == np.float32
    assert np.isfinite(latents.X).all()
    assert all(layer.dtype == np.float32 for layer in latents.layers.values())
    for name in latents.obs:
        # Plots colour by categories and by numbers; text that is no category is converted with a warning.
        assert isinstance(latents.obs[name].dtype, pd.CategoricalDtype) or latents.obs[name].dtype.kind in "iufb", name
    assert all(np.asarray(values).ndim == 2 for values in latents.obsm.values())
    copy = latents[latents.obs["episode"] > 0].copy()
    copy.obs["leiden"], copy.obsm["X_umap"] = pd.Categorical(["0"] * copy.n_obs), copy.X[:, :2]
    nlv.save_latents(copy, tmp_path / "latents.h5ad")
    assert anndata.read_h5ad(tmp_path / "latents.h5ad").shape == copy.shape


@pytest.mark.parametrize("kind", ["one model", "two models", "some rows", "recursion"])
def test_the_projector_reads_the_files(kind: str, tmp_path: Path) -> None:
    latents = table_of(kind)
    folder = nlv.export_projector(latents, tmp_path / "logs", sites="all")
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    assert [embedding.tensor_name for embedding in config.embeddings] == nl.sites(latents)
    plugin = ProjectorPlugin(TBContext(logdir=str(folder)))
    routes = plugin.get_plugin_apps()
    served = json.loads(Client(routes["/info"]).get("/info?run=.").get_data())["embeddings"]
    assert {tuple(embedding["tensorShape"]) for embedding in served} == {latents.shape}
    tensor = Client(routes["/tensor"]).get("/tensor?run=.&name=hidden").get_data()
    np.testing.assert_array_equal(np.frombuffer(tensor, np.float32).reshape(latents.shape), latents.X)
    rows = Client(routes["/metadata"]).get("/metadata?run=.&name=hidden").get_data(as_text=True).splitlines()
    header, *cells = [row.split("\t") for row in rows]
    assert header[: latents.obs.shape[1]] == list(latents.obs.columns)
    assert {len(row) for row in cells} == {len(header)}
    assert [row[header.index("token")] for row in cells] == latents.obs["token"].astype(str).tolist()
    if "belief_1" in header:
        result = np.array([row[header.index("belief_1")] for row in cells], float)
        np.testing.assert_allclose(result, latents.obsm["belief"][:, 1])


def test_names_with_tabs_and_gaps_stay_in_their_cells(tmp_path: Path) -> None:
    latents = without_truth()
    latents.obs["known"] = np.where(latents.obs["position"] > 2, np.nan, 1.5)
    folder = nlv.export_projector(latents, tmp_path)
    rows = (folder / "metadata.tsv").read_text().split("\n")
    assert len(rows) == latents.n_obs + 2
    assert {row.count("\t") for row in rows[:-1]} == {3}
    assert "\\t" in {row.split("\t")[2] for row in rows[1:-1]}
    assert rows[1].split("\t")[3] == "1.5"
    assert rows[3].split("\t")[3] == ""
    # A single column has no header.
    nlv.export_projector(latents, tmp_path, columns=["position"])
    assert (folder / "metadata.tsv").read_text().split("\n")[0] == "1"


def test_without_truth_columns(tmp_path: Path) -> None:
    latents = without_truth()
    for write in (
        lambda: nlv.export_projector(latents, tmp_path / "logs"),
        lambda: nlv.export_atlas(latents, tmp_path / "a.parquet"),
    ):
        with pytest.warns(UserWarning, match=r"no column that says what was true.*give world=\.\.\. or truth="):
            write()
    assert (tmp_path / "logs/metadata.tsv").read_text().startswith("episode\tposition\ttoken\n")
    with pytest.raises(UnknownNameError, match="unknown column 'belief'"):
        nlv.export_projector(latents, tmp_path / "other", columns=["belief"])
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("kind", ["one model", "two models", "some rows", "recursion"])
def test_atlas(kind: str, tmp_path: Path) -> None:
    latents = table_of(kind)
    places = np.random.default_rng(0).normal(size=(latents.n_obs, 2))
    frame = pd.read_parquet(nlv.export_atlas(latents, tmp_path / "atlas.parquet", places, neighbours=3))
    np.testing.assert_allclose(frame[["x", "y"]], places)
    assert frame["row"].tolist() == latents.obs_names.tolist()
    assert all(isinstance(text, str) and text for text in frame["text"])
    distance = np.linalg.norm(latents.X[:, None] - latents.X, axis=-1)
    for row, near in enumerate(frame["neighbors"]):
        assert row not in near["ids"]
        np.testing.assert_allclose(near["distances"], distance[row, near["ids"]], atol=1e-5)
        np.testing.assert_allclose(near["distances"], np.sort(np.delete(distance[row], row))[:3], atol=1e-5)


def test_atlas_texts_are_the_tokens_read(tmp_path: Path) -> None:
    latents = make_latents(n=3, length=5, dim=4)
    vocabulary = nl.world_of(latents).vocabulary
    tokens = nl.tokens_of(latents)
    frame = pd.read_parquet(nlv.export_atlas(latents, tmp_path / "atlas.parquet", neighbours=0))
    assert "neighbors" not in frame
    assert frame["text"][7] == " ".join(vocabulary[token] for token in tokens[1, :3])
    np.testing.assert_allclose(frame[["x", "y"]], nlv.project(latents).coordinates)


def test_atlas_takes_projections(tmp_path: Path) -> None:
    latents = make_latents(n=6, length=5, dim=4)
    some = nlv.project(latents, rows=np.arange(0, 30, 2))
    by_result = pd.read_parquet(nlv.export_atlas(latents, tmp_path / "a.parquet", some))
    assert by_result["row"].tolist() == latents.obs_names[::2].tolist()
    stored = with_projection(latents, some)
    by_name = pd.read_parquet(nlv.export_atlas(stored, tmp_path / "b.parquet", "X_pca"))
    pd.testing.assert_frame_equal(by_name, by_result)
    with pytest.raises(LatentsError, match="projection is of other latents"):
        nlv.export_atlas(latents[:4].copy(), tmp_path / "c.parquet", some)
    with pytest.raises(LatentsError, match="30 rows of 2 numbers"):
        nlv.export_atlas(latents, tmp_path / "c.parquet", np.zeros((3, 2)))
    assert not (tmp_path / "c.parquet").exists()


def test_parquet_keeps_columns_types_and_origin(tmp_path: Path) -> None:
    latents = table_of("two models")
    path = nlv.export_parquet(latents, tmp_path / "rows.parquet", sites="all")
    frame = pd.read_parquet(path)
    pd.testing.assert_frame_equal(
        frame[latents.obs.columns], latents.obs.reset_index(drop=True), check_categorical=False
    )
    np.testing.assert_array_equal(np.stack(frame["hidden"]), latents.X)
    np.testing.assert_array_equal(np.stack(frame["block0"]), nl.site(latents, "block0"))
    np.testing.assert_array_equal(np.stack(frame["belief"]), latents.obsm["belief"])
    about = json.loads(parquet.read_schema(path).metadata[b"nextlat_viz"])
    assert about["NextLat"]["weights_sha256"] == nl.metas(latents)["NextLat"]["weights_sha256"]


def test_errors_leave_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = make_latents(n=2, length=3, dim=4)
    path = nlv.export_parquet(latents, tmp_path / "rows.parquet")
    before = path.read_bytes()
    with pytest.raises(UnknownNameError, match="unknown site 'block9'"):
        nlv.export_parquet(latents, path, sites=["block9"])
    with pytest.raises(LatentsError, match=r"path must end in \.parquet"):
        nlv.export_parquet(latents, tmp_path / "rows.csv")
    with pytest.raises(LatentsError, match="not a latents table"):
        nlv.export_atlas(AnnData(np.zeros((3, 2), np.float32)), path)
    with monkeypatch.context() as patch:
        # Wrong endings are refused before anything is computed.
        patch.setattr("nextlat_viz.analysis.export.project", lambda *_: pytest.fail("projected"))
        with pytest.raises(LatentsError, match=r"path must end in \.parquet"):
            nlv.export_atlas(latents, tmp_path / "atlas.csv")
    monkeypatch.setattr(parquet, "write_table", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(LatentsError, match="No space left"):
        nlv.export_parquet(latents, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["rows.parquet"]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        nlv.export_parquet(latents, path)
    (tmp_path / "file").write_text("")
    with pytest.raises(LatentsError, match=r"cannot write to .*file"):
        nlv.export_projector(latents, tmp_path / "file")


def test_exports_do_not_change_the_table(tmp_path: Path) -> None:
    latents = make_latents(n=2, length=3, dim=4)
    before = latents.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nlv.export_atlas(latents, tmp_path / "a.parquet")
        nlv.export_projector(latents, tmp_path)
        nlv.export_parquet(latents, tmp_path / "rows.parquet", sites=[])
    pd.testing.assert_frame_equal(latents.obs, before.obs)
    assert set(latents.obsm) == set(before.obsm)
