"""Errors name the wrong argument and what was expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nextlat_viz import worlds
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.worlds import HiddenMarkovWorld

EVEN = [[[0.5, 0], [0, 0]], [[0, 0.5], [1, 0]]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: worlds.get("rrxr"), r"unknown world 'rrxr'\. Did you mean 'rrxor'\? Known: rrxor, "),
        (lambda: worlds.get("z1r", q=0.5), r"unknown parameter of world 'z1r': 'q'\..*Known: p"),
        (lambda: worlds.get("z1r").draw("machin"), r"unknown kind of picture 'machin'\. Did you mean 'machine'\?"),
        (lambda: worlds.get("z1r").draw("beliefs", depht=3), r"unknown option of picture 'beliefs': 'depht'.*'depth'"),
    ],
)
def test_unknown_names_suggest_the_nearest(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        call()


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("rrxor", {"p1": 1.5}, r"p1 must be in \[0, 1\], got 1\.5"),
        ("z1r", {"p": -0.1}, r"p must be in \[0, 1\], got -0\.1"),
        ("even", {"p": float("nan")}, r"p must be in \[0, 1\], got nan"),
        ("mess3", {"x": 0.0}, r"x must be in \(0, 0\.5\], got 0\.0"),
        ("mess3", {"alpha": 2.0}, r"alpha must be in \[0, 1\], got 2\.0"),
        ("bloch_walk", {"beta": float("inf")}, "beta must be a finite number, got inf"),
        ("bloch_walk", {"alpha": 0.0, "beta": 0.0}, "alpha and beta must not both be 0"),
        ("sns", {"p": 0.0, "q": 0.0}, "must have one stationary distribution"),
        ("hmm", {}, r"world 'hmm' needs the parameter 'transitions'"),
    ],
)
def test_bad_parameters_are_refused(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        worlds.get(name, **params)


@pytest.mark.parametrize(
    ("transitions", "message"),
    [
        ([[0.5, 0.5]], r"shape \(tokens, states, states\).* got \(1, 2\)"),
        (np.zeros((2, 2, 3)), r"shape \(tokens, states, states\).* got \(2, 2, 3\)"),
        ([[[0.5, 0], [0]]], "transitions must be an array of numbers with rows of equal length"),
        ([[["a"]]], "transitions must be an array of numbers"),
        ([[[np.nan]]], r"transitions must be finite, got nan at \(0, 0, 0\)"),
        ([[[1.5, -0.5], [0, 1]]], r"must not be negative, got -0\.5 at \(0, 0, 1\).*generalised=True"),
        ([[[0.5, 0], [0, 0]], [[0, 0.4], [1, 0]]], r"from state 0 the transitions .* sum to 1, got 0\.9"),
        ([np.eye(2)], "one stationary distribution to start from, got 2"),
    ],
)
def test_bad_transition_matrices_are_refused(transitions: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HiddenMarkovWorld("mine", transitions)


@pytest.mark.parametrize("name", ["", " "])
def test_a_world_needs_a_name(name: str) -> None:
    with pytest.raises(ValueError, match="name must not be empty, got"):
        HiddenMarkovWorld(name, EVEN)


def test_a_generalised_world_needs_eigenvalue_one() -> None:
    with pytest.raises(ValueError, match="must have eigenvalue 1"):
        HiddenMarkovWorld("mine", [0.5 * np.eye(2)], generalised=True)


@pytest.mark.parametrize("names", ["01", ["0"], ["0", "0"]])
def test_bad_names_are_refused(names: Any) -> None:
    with pytest.raises(ValueError, match="token_names must be 2 different names"):
        HiddenMarkovWorld("mine", EVEN, names)


@pytest.mark.parametrize(
    ("belief", "message"),
    [
        ([0.5, 0.5, 0], r"must have 2 entries, one per state, got shape \(3,\)"),
        ([1.5, -0.5], r"must not be negative, got -0\.5 at \(1,\)"),
        ([0.5, 0.6], r"must sum to 1, got 1\.1.*; divide by the sum"),
        ([np.nan, 1], r"must be finite, got nan at \(0,\)"),
        (["a", "b"], "must be an array of numbers"),
    ],
)
def test_bad_beliefs_are_refused(belief: Any, message: str) -> None:
    world = worlds.get("even")
    with pytest.raises(ValueError, match="beliefs " + message):
        world.predict(belief)
    with pytest.raises(ValueError, match="start " + message):
        world.belief([[1]], start=belief)


@pytest.mark.parametrize("method", ["belief", "next_token_probs", "legal_next"])
@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([[0, 1], [1, 2]], r"token 2 of episode 1 at position 2 is outside the vocabulary of world 'even': ids 0\.\.1"),
        ([[-1, 1]], "token -1 of episode 0 at position 1 is outside"),
        ([[1, 1], [0, 1], [1, 0]], None),
        ([[1, 1, 0], [0, 1, 0]], "episode 1 cannot happen in world 'even': token '0' at position 3 has probability 0"),
        ([0, 1], r"tokens must be integers of shape \(episodes, positions\), got int64 of shape \(2,\).*tokens\[None"),
        ([[0.0, 1.0]], r"tokens must be integers of shape .* got float64 of shape \(1, 2\)"),
        ([["0", "1"]], "tokens must be integers"),
    ],
)
def test_bad_tokens_are_refused(method: str, tokens: Any, message: str | None) -> None:
    call = getattr(worlds.get("even"), method)
    if message is None:
        assert call(np.array(tokens)).shape[:2] == (3, 2)
        return
    with pytest.raises(ValueError, match=message):
        call(np.array(tokens))


def test_impossible_tokens_leave_no_warnings_and_no_numbers() -> None:
    with pytest.raises(ValueError, match="token '1' at position 2 has probability 0"):
        worlds.get("golden_mean").belief(np.array([[1, 1, 0, 0, 1]]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda world: world.sample(0, 5, 0), "n must be an integer of at least 1, got 0"),
        (lambda world: world.sample(2, -1, 0), "length must be an integer of at least 1, got -1"),
        (lambda world: world.sample(2, 5, -3), "seed must be an integer of at least 0, got -3"),
        (lambda world: world.floor(0), "length must be an integer of at least 1, got 0"),
        (lambda world: world.reachable_beliefs(8, max_beliefs=10), "more than max_beliefs=10 beliefs are reachable"),
        (lambda world: world.belief_coordinates([0.5, 0.5]), "beliefs must have 5 entries on the last axis"),
        (lambda world: world.draw("beliefs", depth=0), "depth must be an integer of at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(call: Callable[[HiddenMarkovWorld], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(worlds.get("rrxor"))


def test_episodes_of_the_wrong_shape_are_refused() -> None:
    tokens = np.zeros((2, 3), int)
    with pytest.raises(ValueError, match=r"states\['state'\] must be shape \(2, 3, \.\.\.\), got .* of shape \(3, 2\)"):
        worlds.Episodes(tokens, {"state": np.zeros((3, 2))})
    with pytest.raises(ValueError, match=r"length must be values in 0\.\.3"):
        worlds.Episodes(tokens, length=np.array([3, 4]))
