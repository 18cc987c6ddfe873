"""Points of the plane as targets of a probe, and the world's predictions there."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st

from nextlat_viz import analysis, worlds
from nextlat_viz.analysis.interventions.inject import inject
from nextlat_viz.analysis.interventions.plane import JointProbe, injection_plane, nearest_belief
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents import extract
from nextlat_viz.training.checkpoint import Checkpoint, load
from nextlat_viz.worlds.hmm.plane import polygon

RNG = np.random.default_rng


def vertices(corners: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Return all distributions over at most three corners whose mean is the point: others are mixtures of these."""
    result = []
    for three in combinations(range(len(corners)), 3):
        system = np.vstack([corners[list(three)].T, np.ones(3)])
        share = np.linalg.solve(system, np.append(point, 1.0))
        if share.min() >= -1e-12:
            first = np.zeros(len(corners))
            first[list(three)] = np.maximum(share, 0)
            result.append(first)
    return np.array(result)


@given(st.integers(4, 7), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_nearest_belief_is_nearest_to_the_present_one(k: int, seed: int) -> None:
    rng = RNG(seed)
    corners = polygon(tuple(range(k)))
    point = rng.dirichlet(np.ones(k)) @ corners
    now = rng.dirichlet(np.ones(k)) + rng.normal(scale=0.1, size=k)
    result = nearest_belief(corners, point, now)
    assert result.min() >= 0
    assert result.sum() == pytest.approx(1)
    np.testing.assert_allclose(result @ corners, point, atol=1e-9)
    ends = vertices(corners, point)
    best = np.linalg.norm(result - now)
    # The problem is convex: no point towards any other solution is nearer.
    others = np.concatenate([ends, rng.dirichlet(np.full(len(ends), 0.5), size=500) @ ends])
    for share in (1e-3, 0.03, 0.3, 1.0):
        assert np.linalg.norm((1 - share) * result + share * others - now, axis=1).min() >= best - 1e-9


@given(st.integers(3, 7), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_a_point_outside_is_moved_to_the_nearest_inside(k: int, seed: int) -> None:
    rng = RNG(seed)
    corners = polygon(tuple(range(k)))
    point = rng.normal(size=2)
    point *= (1.01 + rng.random()) / np.linalg.norm(point)
    result = nearest_belief(corners, point, np.full(k, 1 / k))
    assert result.min() >= 0
    assert result.sum() == pytest.approx(1)
    fine = np.linspace(0, 1, 2001)[:, None]
    edge = np.concatenate([fine * a + (1 - fine) * b for a, b in zip(corners, np.roll(corners, 1, 0), strict=True)])
    assert np.linalg.norm(result @ corners - point) <= np.linalg.norm(edge - point, axis=1).min() + 1e-12


@given(st.integers(3, 7), st.integers(0, 6), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_only_one_belief_on_an_edge(k: int, first: int, share: float) -> None:
    corners = polygon(tuple(range(k)))
    only = share * np.eye(k)[first % k] + (1 - share) * np.eye(k)[(first + 1) % k]
    # Tolerance of the square root of rounding: along the edge's normal a belief is fixed only to second order.
    np.testing.assert_allclose(nearest_belief(corners, only @ corners, np.full(k, 1 / k)), only, atol=1e-6)


def test_the_present_point_gives_the_present_reading() -> None:
    corners = polygon((0, 1, 2, 3, 4))
    now = np.array([0.1, 0.2, 0.3, 0.4, 0.0])
    np.testing.assert_allclose(nearest_belief(corners, now @ corners, now), now, atol=1e-12)


@pytest.mark.parametrize("name", ["mess3", "rrxor", "z1r"])
def test_beliefs_survive_the_plane_and_back(name: str) -> None:
    world = worlds.get(name)
    plane = analysis.injection_plane(world, "belief")
    assert plane is not None
    assert plane.targets == ("belief",)
    assert list(plane.places) == list(plane.landmarks) == list(world.state_names)
    for state, certain in plane.places.items():
        np.testing.assert_allclose(plane.coordinates(certain), plane.landmarks[state])
        np.testing.assert_allclose(
            plane.reading(plane.landmarks[state], np.full(world.n_states, 0.2)), certain, atol=1e-6
        )
    belief = world.belief(world.sample(1, 5, seed=0).tokens)[0, -1]
    back = plane.reading(plane.coordinates(belief), belief)
    np.testing.assert_allclose(back, belief, atol=1e-9)
    world.predict(back)


def test_two_states_lie_on_a_line() -> None:
    coin = worlds.HiddenMarkovWorld("coin", [[[0.45, 0.05], [0.09, 0.81]], [[0.45, 0.05], [0.01, 0.09]]])
    plane = injection_plane(coin, "belief")
    assert plane is not None
    for point, belief in (((0.3, 0.8), [0.7, 0.3]), ((4.0, 0.0), [0.0, 1.0]), ((-1.0, -1.0), [1.0, 0.0])):
        np.testing.assert_allclose(plane.reading(point, np.array([0.5, 0.5])), belief, atol=1e-9)


def test_generalised_beliefs_have_no_corners() -> None:
    world = worlds.get("bloch_walk")
    plane = injection_plane(world, "belief")
    assert plane is not None
    assert plane.places == plane.landmarks == {}
    assert plane.outline == ()
    now = world.stationary
    back = plane.reading((0.05, -0.02), now)
    np.testing.assert_allclose(plane.coordinates(back), (0.05, -0.02), atol=1e-9)
    assert back @ world.readout == pytest.approx(1)


def test_targets_without_a_plane() -> None:
    assert injection_plane(worlds.get("mess3"), "state") is None
    assert injection_plane(worlds.get("a5"), "x") is None
    assert injection_plane(worlds.get("taxi", width=4, height=4), "distance") is None


def test_a_point_near_a_crossing_means_the_crossing() -> None:
    world = worlds.get("taxi", width=6, height=5)
    plane = injection_plane(world, "y")
    assert plane is not None
    assert plane.targets == ("x", "y")
    ways = {tuple(sorted(edge)) for edge in world.streets.edges.tolist()}
    assert len(plane.outline) == len(ways)
    assert list(plane.places) == sorted(world.streets.nodes)
    crossing = np.array([world.streets.x[7], world.streets.y[7]])
    np.testing.assert_array_equal(plane.reading(crossing + np.array([0.05, -0.03]), crossing), crossing)
    np.testing.assert_array_equal(
        plane.reading(crossing + np.array([0.3, 0.4]), crossing), crossing + np.array([0.3, 0.4])
    )


def test_a_large_city_is_thinned() -> None:
    plane = injection_plane(worlds.get("taxi", width=60, height=60, max_turns=20), "x")
    assert plane is not None
    assert 1000 < len(plane.outline) <= 3000
    assert 100 < len(plane.places) <= 300


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load("taxi/nextlat")


def test_a_real_city_is_in_metres_and_credits_its_source(checkpoint: Checkpoint) -> None:
    plane = injection_plane(checkpoint.world, "x")
    assert plane is not None
    assert plane.axes is not None
    assert "metres" in plane.axes[0]
    assert "OpenStreetMap" in checkpoint.world.streets.attribution
    assert checkpoint.world.streets.attribution in plane.caption


@pytest.fixture(scope="module")
def latents(checkpoint: Checkpoint) -> AnnData:
    return extract(checkpoint, checkpoint.world.sample(80, seed=1), progress=False)


@pytest.fixture(scope="module")
def place(latents: AnnData) -> JointProbe:
    return JointProbe(tuple(analysis.probe(latents, name, n_bootstrap=10) for name in "xy"))


def test_a_joint_probe_reads_like_its_probes(latents: AnnData, place: JointProbe) -> None:
    assert (place.target, place.names, place.site, place.metric) == ("x, y", ("x", "y"), "hidden", "R2")
    read = place.predict(latents)
    for i, fitted in enumerate(place.probes):
        np.testing.assert_array_equal(read[:, i], fitted.predict(latents)[:, 0])
    np.testing.assert_allclose(read, latents.X.astype(np.float64) @ place.coef.T + place.intercept, atol=1e-9)


def test_probes_of_different_models_or_kinds_are_refused(latents: AnnData, place: JointProbe) -> None:
    x, y = place.probes
    with pytest.raises(ValueError, match="probes is empty"):
        JointProbe(())
    with pytest.raises(LatentsError, match="'x' and 'y' read different models or sites"):
        JointProbe((x, replace(y, site="embed")))
    with pytest.raises(LatentsError, match="'y' reads classes"):
        JointProbe((x, replace(y, metric="accuracy")))


def row_of(latents: AnnData, episode: int, position: int) -> int:
    here = (latents.obs["episode"] == episode) & (latents.obs["position"] == position)
    return int(np.flatnonzero(here)[0])


def test_both_coordinates_are_edited_at_once(checkpoint: Checkpoint, latents: AnnData, place: JointProbe) -> None:
    row = row_of(latents, 3, 4)
    result = inject(checkpoint, latents, place, row, [100.0, -200.0], steps=2)
    np.testing.assert_allclose(result.read_after, [100.0, -200.0], atol=1e-3)
    assert result.names == ("x", "y")
    # Between crossings there is no exact prediction.
    assert result.exact is result.kl_after is result.exact_rollout is None


def test_exact_predictions_at_a_crossing(checkpoint: Checkpoint, latents: AnnData, place: JointProbe) -> None:
    world, row = checkpoint.world, row_of(latents, 3, 4)
    streets = world.streets
    # Where the taxi is: the exact prediction is the world's own.
    node = streets.nodes.index(latents.obs["node"].iloc[row])
    here = [streets.x[node], streets.y[node]]
    result = inject(checkpoint, latents, place, row, here, steps=3)
    np.testing.assert_allclose(result.exact, latents.obsm["next_token_probs_exact"][row], atol=1e-6)
    assert result.exact_rollout is not None
    for step in range(3):
        kept = latents.obsm["next_token_probs_exact"][row + step + 1]
        np.testing.assert_allclose(result.exact_rollout[step], kept, atol=1e-6)
    # At the destination the ride ends, and nothing can follow.
    goal = streets.nodes.index(latents.obs["destination"].iloc[row])
    result = inject(checkpoint, latents, place, row, [streets.x[goal], streets.y[goal]], steps=2)
    assert result.exact is not None
    assert world.vocabulary[int(result.exact.argmax())] == "end"
    assert result.exact.max() == 1
    assert result.exact_rollout is not None
    assert np.isnan(result.exact_rollout).all()
    # Before the destination is named there is no exact prediction.
    result = inject(checkpoint, latents, place, row_of(latents, 3, 1), here)
    assert result.exact is None


def test_no_exact_prediction_out_of_reach(checkpoint: Checkpoint, latents: AnnData, place: JointProbe) -> None:
    streets = checkpoint.world.streets
    late = int(np.flatnonzero(latents.obs["moves_left"].to_numpy() <= 2)[0])
    goal = streets.nodes.index(latents.obs["destination"].iloc[late])
    far = int(streets.distance[:, goal].argmax())
    assert inject(checkpoint, latents, place, late, [streets.x[far], streets.y[far]]).exact is None
