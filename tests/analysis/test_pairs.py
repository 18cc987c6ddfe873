from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from nextlat_viz.analysis import pairs
from nextlat_viz.analysis.pairs import same_state_pairs
from nextlat_viz.errors import LatentsError, UnknownNameError
from nextlat_viz.latents import select
from tests.synthetic import make_latents

EPISODE, A, B = ["episode_a", "position_a", "episode_b", "position_b"], "prefix_a", "prefix_b"


def literal(latents: AnnData, by: list[str], min_position: int = 1) -> pd.DataFrame:
    """Rank all pairs of rows exactly as the docstring defines it."""
    seen: dict[str, tuple[int, int, tuple[object, ...], np.ndarray]] = {}
    tokens: list[str] = []
    for row, (episode, position) in enumerate(zip(latents.obs["episode"], latents.obs["position"], strict=True)):
        tokens = [*(tokens if position > 1 else []), str(latents.obs["token"].iloc[row])]
        read = " ".join(tokens)
        state = tuple(
            tuple(np.round(latents.obsm[item][row], 8) + 0.0) if item in latents.obsm else latents.obs[item].iloc[row]
            for item in by
        )
        if position >= min_position:
            seen.setdefault(read, (episode, position, state, np.asarray(latents.X[row], dtype=float)))
    rows = [
        {"pair": frozenset([item, other]), "distance": np.linalg.norm(seen[item][3] - seen[other][3])}
        for item, other in combinations(seen, 2)
        if seen[item][2] == seen[other][2]
    ]
    return pd.DataFrame(rows).sort_values("distance", ascending=False, kind="stable", ignore_index=True)


@pytest.mark.parametrize(("by", "start"), [("belief", 1), ("state", 3), (("state", "token"), 2)])
def test_pairs_equal_those_of_a_literal_search(small: AnnData, by: str | tuple[str, ...], start: int) -> None:
    expected = literal(small, [by] if isinstance(by, str) else list(by), start)
    result = same_state_pairs(small, by, n=10**6, min_position=start)
    assert len(result) == len(expected)
    np.testing.assert_allclose(result["distance"], expected["distance"], rtol=1e-6)
    assert set(map(frozenset, zip(result[A], result[B], strict=True))) == set(expected["pair"])
    np.testing.assert_allclose(same_state_pairs(small, by, n=7, min_position=start)["distance"], result["distance"][:7])


def test_a_pair_has_its_places_and_distance(small: AnnData) -> None:
    pair = same_state_pairs(small, "state", n=1).iloc[0]
    rows = [f"e{pair[f'episode_{item}']}p{pair[f'position_{item}']}" for item in "ab"]
    item, other = small[rows[0]], small[rows[1]]
    assert item.obs["state"].iloc[0] == other.obs["state"].iloc[0] == pair["state"]
    assert pair["distance"] == pytest.approx(np.linalg.norm(item.X - other.X), rel=1e-5)
    assert len(pair[A].split()) == pair["position_a"]


def test_distances_are_relative_to_those_between_states(small: AnnData) -> None:
    placed = small.copy()
    states = pd.factorize(placed.obs["state"])[0]
    # States lie 3 apart on an axis each; histories of one state differ by nothing but their episode's sign.
    sign = np.where(placed.obs["episode"] % 2 == 0, 0.5, -0.5)
    placed.X = np.zeros(placed.shape, np.float32)
    placed.X[np.arange(len(states)), states] = 3 / np.sqrt(2)
    placed.X[:, 15] = sign
    result = same_state_pairs(placed, "state", n=20)
    np.testing.assert_allclose(result["distance"], 1, rtol=1e-6)
    assert 1 / np.sqrt(10) < result["relative"].iloc[0] < 1 / 3


def test_a_belief_is_written_with_the_names_of_its_states(small: AnnData) -> None:
    text = same_state_pairs(small, n=500)["state"]
    assert {"start 1", "first 0 0.5, XOR 1 0.5"} & set(text)


def test_large_states_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    latents = make_latents(n=60, length=10)
    whole = same_state_pairs(latents, "state", n=5)
    monkeypatch.setattr(pairs, "LARGEST_STATE", 24)
    part = [same_state_pairs(latents, "state", n=5, seed=seed) for seed in (0, 0, 1)]
    pd.testing.assert_frame_equal(part[0], part[1])
    # The farthest pairs are at the rim of a cloud, which is always searched.
    assert part[0]["distance"].iloc[0] > 0.95 * whole["distance"].iloc[0]
    assert (part[0]["distance"] <= whole["distance"] + 1e-9).all()


def test_rows_without_a_state_are_left_out(small: AnnData) -> None:
    holes = small.copy()
    holes.obs["state"] = holes.obs["state"].where(holes.obs["position"] > 4)
    result = same_state_pairs(holes, "state", n=10**6)
    assert result[["position_a", "position_b"]].min().min() == 5


def test_no_pairs_where_every_history_has_its_own_state(small: AnnData) -> None:
    alone = small.copy()
    alone.obs["own"] = np.arange(alone.n_obs)
    assert same_state_pairs(alone, "own").empty


def test_bad_input_is_refused(small: AnnData) -> None:
    with pytest.raises(ValueError, match="n=0 must be at least 1"):
        same_state_pairs(small, n=0)
    with pytest.raises(ValueError, match="by is empty"):
        same_state_pairs(small, ())
    with pytest.raises(UnknownNameError, match="unknown column 'stat'"):
        same_state_pairs(small, "stat")
    with pytest.raises(LatentsError, match="from position 11 on"):
        same_state_pairs(small, min_position=11)
    first = select(small, state=small.obs["state"].iloc[0])
    with pytest.raises(LatentsError, match="one state by 'state'"):
        same_state_pairs(first, "state")
    flat = small.copy()
    flat.X = np.ones(flat.shape, np.float32)
    with pytest.raises(LatentsError, match="latents are equal"):
        same_state_pairs(flat)
    flat.X[3] = np.nan
    with pytest.raises(LatentsError, match="NaN or infinity in 1 of 200 rows"):
        same_state_pairs(flat)


def test_a_checkpoint_is_extracted_and_an_array_is_refused(small: AnnData) -> None:
    assert len(same_state_pairs("mess3/nextlat", n=3)) == 3
    with pytest.raises(TypeError, match="latents must be a table of latents, a checkpoint or the name of one, got nda"):
        same_state_pairs(small.X)
