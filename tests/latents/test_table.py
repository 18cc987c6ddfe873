from __future__ import annotations

import json

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from nextlat_viz import latents as nl
from nextlat_viz import worlds
from nextlat_viz.errors import LatentsError, UnknownNameError
from nextlat_viz.worlds import Episodes
from tests.synthetic import make_latents

ORIGIN = {"card": "{}", "weights_sha256": "w", "label": "A", "name": "a", "step": 1}


def table_of(episodes: Episodes, world: worlds.World) -> AnnData:
    hidden = np.random.default_rng(0).normal(size=(*episodes.tokens.shape, 4))
    probs = np.full((*episodes.tokens.shape, len(world.vocabulary)), 1 / len(world.vocabulary))
    return nl.build(hidden, {"embed": hidden + 1}, episodes, world, ORIGIN, probs)


def test_a_row_is_one_episode_and_position(latents: AnnData) -> None:
    world = worlds.get("rrxor")
    episodes = world.sample(6, 5, seed=0)
    assert latents.shape == (30, 4)
    assert list(latents.obs["episode"]) == np.repeat(range(6), 5).tolist()
    assert list(latents.obs["position"]) == [1, 2, 3, 4, 5] * 6
    assert list(latents.obs_names[:6]) == ["e0p1", "e0p2", "e0p3", "e0p4", "e0p5", "e1p1"]
    names = np.array(world.vocabulary)[episodes.tokens].ravel()
    assert list(nl.column(latents, "token")) == names.tolist()
    assert list(nl.column(latents, "state")) == np.array(world.state_names)[episodes.states["state"]].ravel().tolist()
    assert latents.X.dtype == np.float32
    assert {values.dtype for values in latents.layers.values()} == {np.dtype(np.float32)}


def test_truth_columns_equal_the_worlds(latents: AnnData) -> None:
    world = worlds.get("rrxor")
    tokens = world.sample(6, 5, seed=0).tokens
    np.testing.assert_array_equal(nl.column(latents, "belief"), world.belief(tokens).reshape(30, -1))
    np.testing.assert_array_equal(
        nl.column(latents, "next_token_probs_exact"), world.next_token_probs(tokens).reshape(30, -1)
    )
    np.testing.assert_array_equal(nl.tokens_of(latents), tokens)
    assert nl.world_of(latents).spec == world.spec


@pytest.mark.parametrize("name", ["rrxor", "mess3", "z1r", "even", "golden_mean", "sns", "bloch_walk"])
def test_every_world_has_a_table(name: str) -> None:
    world = worlds.get(name)
    latents = table_of(world.sample(3, 4, seed=1), world)
    assert nl.column(latents, "belief").shape == (12, len(world.state_names))
    assert nl.world_of(latents).spec == world.spec


def test_padding_has_no_row_and_does_not_change_the_belief() -> None:
    world = worlds.get("rrxor")
    whole = world.sample(4, 6, seed=2)
    length = np.array([6, 2, 0, 4])
    tokens = np.where(np.arange(6) < length[:, None], whole.tokens, 99)
    latents = table_of(Episodes(tokens, states={}, length=length), world)
    assert list(latents.obs_names) == [f"e{e}p{p + 1}" for e in range(4) for p in range(length[e])]
    rows = np.arange(6) < length[:, None]
    np.testing.assert_allclose(nl.column(latents, "belief"), world.belief(whole.tokens)[rows], atol=1e-12)
    np.testing.assert_array_equal(nl.tokens_of(latents), np.where(rows, whole.tokens, -1)[[0, 1, 3]])


def test_other_states_are_columns() -> None:
    world = worlds.get("z1r")
    episodes = world.sample(2, 3, seed=0)
    states = {
        **episodes.states,
        "depth": np.tile(np.arange(3), (2, 1)),
        "even": np.tile([True, False, True], (2, 1)),
        "place": np.ones((2, 3, 2)),
    }
    latents = table_of(Episodes(episodes.tokens, states=states), world)
    assert nl.column(latents, "depth").tolist() == [0, 1, 2, 0, 1, 2]
    assert nl.column(latents, "even").dtype == bool
    assert nl.column(latents, "place").shape == (6, 2)


def test_a_table_without_rows_is_refused() -> None:
    world = worlds.get("z1r")
    with pytest.raises(LatentsError, match="every episode is empty"):
        table_of(world.sample(2, 3, seed=0)[:0], world)


def test_sites_in_the_order_they_are_computed(latents: AnnData) -> None:
    assert nl.sites(latents) == ["embed", "block0", "block1", "hidden"]
    np.testing.assert_array_equal(nl.site(latents), latents.X)
    np.testing.assert_array_equal(nl.site(latents, "block1"), latents.layers["block1"])
    del latents.layers["block0"]
    assert nl.sites(latents) == ["embed", "block1", "hidden"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda a: nl.site(a, "blok1"), "unknown site 'blok1'. Did you mean 'block1'"),
        (lambda a: nl.column(a, "beleif"), "unknown column 'beleif'. Did you mean 'belief'"),
        (lambda a: nl.select(a, positon=3), "unknown column 'positon'. Did you mean 'position'"),
        (lambda a: nl.select(a, state="TT"), "unknown state 'TT'"),
        (lambda a: nl.select(a, position=99), "no row has position=99: there are 1, 2, 3, 4, 5"),
        (lambda a: nl.select(a, np.zeros(30, bool)), "no row is left"),
        (lambda a: nl.select(a, np.arange(30)), "mask must be 30 booleans, got int64"),
        (lambda a: nl.episode_rows(a, 6), "no episode 6 in these latents: they hold 0, 1, 2, 3, 4, 5"),
        (lambda a: nl.meta(AnnData(a.X)), "not a latents table"),
        (lambda a: nl.concatenate([]), "nothing to concatenate"),
        (lambda a: nl.concatenate([a, a]), "names must be 2 different names"),
        (lambda a: nl.concatenate([a], names=["x", "y"]), "names must be 1 different names"),
        (
            lambda a: nl.concatenate([a, make_latents(n=6, length=5, dim=8, label="B")]),
            r"widths .*\(4, 8",
        ),
        (lambda a: nl.concatenate([a, make_latents("mess3", n=6, length=5, dim=4, label="B")]), "different worlds"),
    ],
)
def test_errors_say_what_exists(latents: AnnData, wrong, message: str) -> None:
    with pytest.raises((LatentsError, UnknownNameError), match=message):
        wrong(latents)


def test_slices_keep_tokens_and_facts(latents: AnnData) -> None:
    # Copying a view drops the categories that are not in it, and with them the old codes of the tokens.
    ones = latents[(latents.obs["token"] == "1").to_numpy()].copy()
    assert list(ones.obs["token"].cat.categories) == ["1"]
    tokens = nl.tokens_of(ones)
    assert set(tokens.ravel()) <= {1, -1}
    assert nl.meta(ones) == nl.meta(latents)
    assert (nl.column(ones, "token") == "1").all()

    shuffled = latents[np.random.default_rng(0).permutation(30)]
    np.testing.assert_array_equal(nl.tokens_of(shuffled), nl.tokens_of(latents))
    rows = nl.episode_rows(shuffled, 3)
    assert list(shuffled.obs_names[rows]) == [f"e3p{p}" for p in range(1, 6)]


def test_select_keeps_categories_and_does_not_change_the_table(latents: AnnData) -> None:
    chosen = nl.select(latents, nl.column(latents, "episode") < 4, position=range(3, 6), token="1")
    assert set(nl.column(chosen, "position")) <= {3, 4, 5}
    assert set(nl.column(chosen, "episode")) <= {0, 1, 2, 3}
    assert list(chosen.obs["token"].cat.categories) == ["0", "1"]
    assert list(chosen.obs["state"].cat.categories) == ["start", "first 0", "first 1", "XOR 1", "XOR 0"]
    chosen.obsm["X_pca"] = np.zeros((chosen.n_obs, 2))  # not a view: writing to it warns of nothing
    assert latents.n_obs == 30
    assert anndata.settings.remove_unused_categories


def test_concatenate_keeps_the_rows_and_card_of_each_model(latents: AnnData) -> None:
    latents.obsm["X_pca"] = np.zeros((30, 2))
    other = make_latents(n=6, length=5, dim=4, label="next-token", blocks=1)
    both = nl.concatenate([latents, other])
    assert both.n_obs == 60
    assert both.obs_names.is_unique
    assert list(both.obs["model"].cat.categories) == ["NextLat", "next-token"]
    assert "X_pca" not in both.obsm
    assert nl.sites(both) == ["embed", "block0", "hidden"]
    assert list(both.obs["state"].cat.categories) == ["start", "first 0", "first 1", "XOR 1", "XOR 0"]
    np.testing.assert_array_equal(nl.tokens_of(both), nl.tokens_of(latents))
    with pytest.raises(LatentsError, match="several models"):
        nl.meta(both)
    for name, table in {"NextLat": latents, "next-token": other}.items():
        for part in (nl.select(both, model=name), both[(both.obs["model"] == name).to_numpy()]):
            np.testing.assert_array_equal(part.X, table.X)
            np.testing.assert_array_equal(nl.column(part, "belief"), nl.column(table, "belief"))
            assert nl.meta(part)["weights_sha256"] == nl.meta(table)["weights_sha256"]
            assert json.loads(nl.meta(part)["card"]) == json.loads(nl.meta(table)["card"])
    again = nl.concatenate([nl.select(both, model="NextLat"), nl.select(both, model="next-token")], names=["a", "b"])
    assert list(again.obs_names[[0, 30]]) == ["a:e0p1", "b:e0p1"]


def test_concatenate_names_models_of_one_label_by_checkpoint() -> None:
    same = [make_latents(n=2, length=3, dim=4, seed=seed) for seed in (0, 0)]
    same[1].uns["nextlat_viz"]["name"] = "rrxor/nextlat/seed1"
    assert list(nl.metas(nl.concatenate(same))) == ["rrxor/nextlat/seed0 step 100", "rrxor/nextlat/seed1 step 100"]


def test_concatenate_warns_if_episodes_differ() -> None:
    first, two = (make_latents(n=2, length=3, dim=4, label=f"m{seed}", seed=seed) for seed in (0, 1))
    with pytest.warns(UserWarning, match="read from different episodes"):
        both = nl.concatenate([first, two])
    with pytest.raises(LatentsError, match="read different episodes"):
        nl.tokens_of(both)
    np.testing.assert_array_equal(nl.tokens_of(nl.select(both, model="m1")), nl.tokens_of(two))


def test_summary_has_a_line_per_model(latents: AnnData) -> None:
    both = nl.concatenate([latents, make_latents(n=6, length=5, dim=4, label="next-token")])
    lines = nl.summary(both)
    assert list(lines.index) == ["NextLat", "next-token"]
    assert lines.loc["NextLat"].to_dict() == {
        "checkpoint": "rrxor/nextlat/seed0",
        "step": 100,
        "world": "rrxor",
        "rows": 30,
        "episodes": 6,
        "positions": "1 to 5",
        "dim": 4,
        "sites": "embed, block0, block1, hidden",
        "weights": nl.meta(latents)["weights_sha256"][:12],
    }
    pd.testing.assert_frame_equal(nl.summary(latents), lines.iloc[:1])


def test_names_with_markup_stay_text() -> None:
    latents = make_latents(n=2, length=3, dim=4, label="<b>a/b</b>")
    both = nl.concatenate([latents, make_latents(n=2, length=3, dim=4)])
    assert set(nl.column(both, "model")) == {"<b>a/b</b>", "NextLat"}
