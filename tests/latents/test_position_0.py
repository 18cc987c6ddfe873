"""Position 0: the latent of a model with a start token when nothing has been read."""

from __future__ import annotations

from dataclasses import replace

import anndata
import numpy as np
import pytest
import torch
from ipywidgets import HTML
from ipywidgets.widgets.widget import _instances

import nextlat_viz as nlv
from nextlat_viz import latents as tables
from nextlat_viz import worlds
from nextlat_viz.analysis._rows import prefixes
from nextlat_viz.analysis.prediction import episode_predictions
from nextlat_viz.analysis.probes.probe import probe_positions
from nextlat_viz.analysis.trajectories import read_trajectory
from nextlat_viz.errors import LatentsError
from nextlat_viz.figures.trajectories import trajectories
from nextlat_viz.training.checkpoint import Checkpoint, build_model
from nextlat_viz.training.config import TrainConfig


def started(world: worlds.World, **sizes: object) -> Checkpoint:
    """An untrained model of a world, with a start token and the card of a shipped model."""
    config = TrainConfig(context=world.length or 12, layers=1, heads=2, dim=16, mlp_dim=16, **sizes)
    model = build_model("nextlat", config, world, 0).eval()
    shipped = nlv.load("rrxor/nextlat")
    card = shipped.card.model_copy(update={"config": config, "world": world.spec, "name": f"{world.name}/started"})
    return replace(shipped, card=card, model=model)


@pytest.fixture(scope="module")
def rrxor() -> Checkpoint:
    return started(worlds.get("rrxor"))


def test_the_belief_at_position_0_is_the_prior(rrxor):
    world = rrxor.world
    episodes = world.sample(5, 6, seed=1)
    latents = nlv.extract(rrxor, episodes, positions=slice(0, None), progress=False)
    assert latents.n_obs == 5 * 7
    first = latents[latents.obs["position"].to_numpy() == 0]
    assert first.obs_names.tolist() == [f"e{e}p0" for e in range(5)]
    assert first.obs["token"].isna().all()
    assert first.obs["state"].isna().all()
    np.testing.assert_allclose(first.obsm["belief"], np.tile(world.stationary, (5, 1)))
    np.testing.assert_allclose(first.obsm["next_token_probs_exact"], np.tile(world.start_probs(), (5, 1)))
    backbone = rrxor.model.backbone
    with torch.no_grad():
        hidden = backbone(backbone.started(torch.from_numpy(episodes.tokens)))
    np.testing.assert_allclose(tables.site(latents), hidden.flatten(0, 1).numpy(), atol=1e-6)
    np.testing.assert_allclose(first.obsm["next_token_probs"].sum(axis=1), 1, rtol=1e-5)


def test_other_rows_do_not_depend_on_position_0(rrxor):
    episodes = rrxor.world.sample(5, 6, seed=1)
    latents = nlv.extract(rrxor, episodes, progress=False)
    whole = nlv.extract(rrxor, episodes, positions=slice(0, None), progress=False)
    assert latents.obs["position"].min() == 1
    after = whole[whole.obs["position"].to_numpy() > 0]
    np.testing.assert_array_equal(tables.site(latents), tables.site(after))
    assert latents.obs["state"].tolist() == after.obs["state"].tolist()


def test_tokens_and_prefixes_include_position_0(rrxor, tmp_path):
    episodes = rrxor.world.sample(5, 6, seed=1)
    whole = nlv.extract(rrxor, episodes, positions=slice(0, None), progress=False)
    assert tables.tokens_of(whole).tolist() == episodes.tokens.tolist()
    ids = prefixes(whole)[whole.obs["position"].to_numpy() == 0]
    assert len(set(ids.tolist())) == 1
    assert ids[0] not in prefixes(whole)[whole.obs["position"].to_numpy() > 0]
    few = nlv.extract(rrxor, episodes, positions=[0, -1], out=tmp_path / "few.h5ad", progress=False)
    assert few.obs["position"].tolist() == [0, 6] * 5
    assert tables.tokens_of(few).tolist() == episodes.tokens.tolist()
    assert isinstance(few, anndata.AnnData)
    assert few.isbacked


def test_probes_read_the_prior_at_position_0(rrxor):
    latents = nlv.extract(rrxor, rrxor.world.sample(40, 6, seed=1), positions=slice(0, None), progress=False)
    by_position = probe_positions(latents, nlv.probe(latents, "belief"))
    assert by_position["position"].tolist() == list(range(7))
    with pytest.raises(LatentsError, match="target 'state' is missing in"):
        nlv.probe(latents, "state")


def test_the_widgets_show_position_0(rrxor):
    latents = nlv.extract(rrxor, rrxor.world.sample(40, 6, seed=1), positions=slice(0, None), progress=False)
    state = nlv.ViewState(latents)
    views = [nlv.LatentExplorer(state=state), nlv.ProbeLab(state=state), nlv.TrajectoryCompare(state=state)]
    state.go_to_row(0)
    assert (state.episode, state.position) == (0, 0)
    shown = [widget.value for widget in _instances.values() if isinstance(widget, HTML)]
    assert not [text for text in shown if 'role="alert"' in text]
    paths = [read_trajectory(latents, nlv.probe(latents, "belief"), 0)]
    figure = trajectories([latents], paths, position=2)
    (strip,) = [trace for trace in figure.data if (trace.meta or {}).get("role") == "strip"]
    assert strip.text[0] == "start"
    assert len(strip.text) == 7
    table = episode_predictions(latents, 0)
    assert table["token"].iloc[0] is None
    assert table["next_token"].iloc[0] == table["token"].iloc[1]
    for view in views:
        view.close()


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [("othello", "turn", "black"), ("othello", "score", 0), ("a5", "state", "e"), ("taxi", "moves_left", None)],
)
def test_every_world_has_facts_at_position_0(name, column, value):
    world = worlds.get(name, width=3, height=3) if name == "taxi" else worlds.get(name)
    checkpoint = started(world)
    episodes = world.sample(3, world.length or 5, seed=0)
    latents = nlv.extract(checkpoint, episodes, positions=[0, 1], progress=False)
    values = latents.obs[column][latents.obs["position"].to_numpy() == 0]
    assert values.isna().all() if value is None else (values == value).all()


def test_states_of_packed_documents_do_not_depend_on_the_start_token():
    world = worlds.get("rrxor")
    checkpoint = started(world)
    tokens = world.sample(1, 8, seed=3).tokens
    packed = worlds.Episodes(tokens, {"document": np.array([[0, 0, 0, 0, 1, 1, 1, 1]])})
    together = nlv.extract(checkpoint, packed, progress=False)
    separate = nlv.extract(checkpoint, worlds.Episodes(tokens.reshape(2, 4)), progress=False)
    np.testing.assert_allclose(tables.site(together), tables.site(separate), atol=1e-5)


@pytest.mark.parametrize("positions", [[0], slice(0, None), 0])
def test_a_model_without_a_start_token_has_no_position_0(positions):
    with pytest.raises(LatentsError, match=r"positions holds 0, and .* has no start token"):
        nlv.extract(started(worlds.get("rrxor"), start_token=False), positions=positions, progress=False)


def test_a_position_below_0_is_refused_in_a_slice(rrxor):
    with pytest.raises(LatentsError, match="positions count from 1, or 0 for the start token"):
        nlv.extract(rrxor, positions=slice(-1, None), progress=False)
