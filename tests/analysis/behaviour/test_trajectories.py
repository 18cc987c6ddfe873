from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nextlat_viz import worlds
from nextlat_viz.analysis import (
    compression_vafa,
    detour_robustness,
    map_reconstruction,
    next_token_test,
    valid_trajectories,
)
from nextlat_viz.analysis.behaviour.trajectories import KINDS, detour, drive
from nextlat_viz.analysis.episodes import heldout_prompts, verdicts_of
from nextlat_viz.decoding import Predictor, UniformLegal, WorldPredictor
from nextlat_viz.errors import UnknownNameError

from .models import Forgetful, WrongWay, fingerprint, one_row, tiny_taxi


def test_the_true_world_scores_one_and_is_not_changed() -> None:
    world = tiny_taxi(4, 4)
    before = fingerprint(world)
    model = WorldPredictor(world)
    tested = next_token_test(model, n=40, progress=False)
    assert tested.table["value"].tolist() == [1.0]
    assert tested.table["trials"].tolist() == [world.sample(40, split="test").loss_mask.sum()]
    assert valid_trajectories(model, n=30, progress=False).table["value"].tolist() == [1.0]
    assert valid_trajectories(model, n=30, temperature=1.0, progress=False).table["value"].tolist() == [1.0]
    table = detour_robustness(model, n=20, progress=False).table
    assert (table["value"] == 1).all()
    assert len(table) == 18
    assert fingerprint(world) == before


def test_next_token_test_equals_a_count_by_hand() -> None:
    world = tiny_taxi()
    rides = world.sample(15, seed=5, split="test")
    for token in range(len(world.vocabulary)):
        model = Forgetful(world, np.eye(len(world.vocabulary))[token])
        hits = trials = 0
        for i in range(len(rides)):
            for t in range(1, rides.tokens.shape[1]):
                if rides.loss_mask[i, t]:
                    trials += 1
                    hits += bool(world.legal(np.append(rides.tokens[i, :t], token)[None])[0, -1])
        row = one_row(next_token_test(model, rides, progress=False))
        assert (row["value"], row["trials"]) == (pytest.approx(hits / trials), trials)
    assert one_row(next_token_test(UniformLegal(world), rides, progress=False))["value"] == 1


def test_next_token_test_of_worlds_without_end() -> None:
    world = worlds.get("golden_mean")
    result = next_token_test(
        [WorldPredictor(world), Forgetful(world, np.array([0.4, 0.6]))], n=50, length=9, progress=False
    )
    read = world.sample(50, 9, seed=0).tokens[:, :-1]
    assert result.table["value"].tolist() == [1, pytest.approx(world.legal_next(read)[..., 1].mean())]
    with pytest.raises(ValueError, match="length is needed"):
        next_token_test(WorldPredictor(world), progress=False)
    with pytest.raises(ValueError, match="predict targets"):
        next_token_test(WorldPredictor(worlds.get("a5")), length=5, progress=False)


def test_valid_trajectories_of_a_model_that_merges_two_destinations() -> None:
    world = tiny_taxi(4, 4)
    model = WrongWay(world, taken=3, for_it=9)
    prompts = heldout_prompts(world, 100, 0, "a test")
    assert len(np.unique(prompts, axis=0)) == len(prompts)
    assert world.rides.is_held_out(*prompts.T).all()
    lost = model.confused(prompts)
    assert lost.any()
    row = one_row(valid_trajectories(model, n=100, progress=False))
    assert row["value"] == pytest.approx(1 - lost.mean())
    assert row["trials"] == len(prompts)
    assert row["illegal"] + row["unfinished"] == lost.sum()


def test_valid_trajectories_equal_a_literal_drive() -> None:
    world = tiny_taxi()
    model = UniformLegal(world)
    end = world.vocabulary.index("end")
    prompts = heldout_prompts(world, 100, 1, "a test")
    arrived = illegal = 0
    for prompt in prompts:
        ride = prompt.tolist()
        while len(ride) < world.length and ride[-1] != end:
            ride.append(int(model.next_token_probs(np.array([ride]))[0, -1].argmax()))
        ok = world.legal(np.array([ride]))[0]
        arrived += bool(ok.all() and ride[-1] == end)
        if not ok.all():
            wrong = int(ok.argmin())
            illegal += bool(world.legal_next(np.array([ride[:wrong]]))[0, -1].any())
    row = one_row(valid_trajectories(model, n=100, seed=1, progress=False))
    assert 0 < arrived < len(prompts)
    assert row["value"] == pytest.approx(arrived / len(prompts))
    assert (row["illegal"], row["unfinished"]) == (illegal, len(prompts) - arrived - illegal)
    assert row["error"] == pytest.approx(np.sqrt(row["value"] * (1 - row["value"]) / len(prompts)))


def test_an_episode_without_an_end_is_unfinished() -> None:
    world = tiny_taxi()
    rides = world.sample(4, seed=2)
    verdicts = verdicts_of(world, rides.tokens, rides.length - 1)
    assert verdicts.unfinished.all()
    assert not verdicts.illegal.any()
    early = rides.tokens.copy()
    early[:, 2] = world.vocabulary.index("end")
    assert verdicts_of(world, early, np.full(4, 3)).illegal.all()


def test_other_worlds_with_an_end() -> None:
    world = worlds.get("path_star", arms=2, nodes_per_arm=3, train_size=50, test_size=20)
    row = one_row(valid_trajectories(WorldPredictor(world), n=100, progress=False))
    assert (row["value"], row["trials"]) == (1, 20)
    with pytest.raises(ValueError, match="needs episodes that end"):
        valid_trajectories(WorldPredictor(worlds.get("rrxor")), progress=False)
    with pytest.raises(ValueError, match=r"Countdown\.verify"):
        valid_trajectories(WorldPredictor(worlds.get("countdown")), progress=False)
    with pytest.raises(ValueError, match="needs streets"):
        detour_robustness(WorldPredictor(world), progress=False)
    with pytest.raises(ValueError, match="n=0 must be"):
        valid_trajectories(WorldPredictor(world), n=0, progress=False)


def test_detours_of_each_kind() -> None:
    probs = np.array([[0.1, 0.4, 0.2, 0.3]])
    open_turns = np.array([[True, True, False, True]])
    which = np.array([0.0])

    def turn(kind: str, choice: int, among: np.ndarray = open_turns, which: np.ndarray = which) -> int:
        return int(detour(probs, np.array([choice]), among, kind, which)[0])

    assert [turn("random", 1, which=np.array([w])) for w in (0.0, 0.49, 0.51, 0.999)] == [0, 0, 3, 3]
    assert turn("second", 1) == 3
    assert turn("second", 3) == 1
    assert turn("adversarial", 1) == 0
    assert turn("adversarial", 0) == -1
    # The model's choice may be no turn at all.
    assert turn("second", -5) == 1
    for kind in KINDS:
        assert turn(kind, 1, among=np.array([[False, True, False, False]])) == -1
        assert turn(kind, 1, among=np.zeros((1, 4), bool)) == -1


@pytest.mark.parametrize("kind", KINDS)
def test_drive_equals_a_literal_drive(kind: str) -> None:
    world = tiny_taxi(4, 4)
    nodes, end = len(world.streets.nodes), world.vocabulary.index("end")
    noise = np.random.default_rng(0).random((nodes, len(world.vocabulary)))

    class Opinionated(Predictor):
        """Knows its place and the legal turns, and prefers some turns at every place."""

        name, objective = "opinionated", "a control"

        def __init__(self) -> None:
            self.world = world

        def next_token_probs(self, tokens: np.ndarray) -> np.ndarray:
            probs = noise[world._follow(tokens).node] * (world.legal_next(tokens) + 1e-9)
            return probs / probs.sum(axis=-1, keepdims=True)

    model = Opinionated()
    prompts = heldout_prompts(world, 12, 0, "a test")
    rng = np.random.default_rng(4)
    steps = world.length - 2
    when, which = rng.random((len(prompts), steps)) < 0.5, rng.random((len(prompts), steps))
    tokens, length, detours = drive(model, world, prompts, kind, when, which)
    for i, prompt in enumerate(prompts):
        ride, result = prompt.tolist(), 0
        for step in range(steps):
            probs = model.next_token_probs(np.array([ride]))[0, -1]
            choice = int(probs.argmax())
            at = world._follow(np.array([ride]))
            node, goal, left = (int(values[0, -1]) for values in at[:3])
            if when[i, step] and at.legal.all() and node != goal:
                options = [
                    nodes + d
                    for d, to in enumerate(world.streets.turns[node])
                    if to >= 0 and int(world.streets.distance[to, goal]) <= left - 1
                ]
                others = [token for token in options if token != choice]
                if kind == "random" and others:
                    choice, result = others[int(which[i, step] * len(others))], result + 1
                elif kind == "second" and others:
                    choice, result = max(others, key=lambda token: probs[token]), result + 1
                elif kind == "adversarial" and options:
                    worst = min(options, key=lambda token: probs[token])
                    choice, result = worst, result + (worst != choice)
            ride.append(choice)
            if choice == end:
                break
        assert tokens[i, : length[i]].tolist() == ride
        assert (tokens[i, length[i] :] == -1).all()
        assert detours[i] == result
    assert detours.sum() > 5


def test_detours_share_their_draws_and_repeat() -> None:
    world = tiny_taxi(4, 4)
    model = UniformLegal(world)
    result = detour_robustness(model, p=(0, 0.5, 1), kinds=("random", "second"), n=15, seed=3, progress=False)
    again = detour_robustness(model, p=(0, 0.5, 1), kinds=("random", "second"), n=15, seed=3, progress=False)
    pd.testing.assert_frame_equal(result.table, again.table)
    greedy = one_row(valid_trajectories(model, n=15, seed=3, progress=False))["value"]
    calm = result.table[result.table["p"] == 0]
    assert calm["value"].tolist() == [greedy, greedy]
    assert calm["detours"].tolist() == [0, 0]
    assert result.by == ("p", "kind")
    other = detour_robustness(model, p=(0.5,), kinds=("random",), n=15, seed=4, progress=False)
    assert one_row(other)["detours"] != one_row(result, p=0.5, kind="random")["detours"]
    with pytest.raises(UnknownNameError, match="adversarial"):
        detour_robustness(model, kinds=("adversary",), progress=False)
    with pytest.raises(ValueError, match=r"p=1\.5 must be a probability"):
        detour_robustness(model, p=(1.5,), progress=False)
    with pytest.raises(ValueError, match="at least one setting"):
        detour_robustness(model, p=(), progress=False)


def test_a_model_that_predicts_nan_is_refused() -> None:
    world = tiny_taxi()
    broken = Forgetful(world, np.full(len(world.vocabulary), np.nan))
    for measure in (next_token_test, valid_trajectories, detour_robustness, compression_vafa, map_reconstruction):
        with pytest.raises(ValueError, match="forgetful predicts NaN"):
            measure([WorldPredictor(world), broken], progress=False)
    with pytest.raises(ValueError, match="models is empty"):
        valid_trajectories([], progress=False)
