"""Follow rides token by token, and explain why a token is not legal."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from nextlat_viz.worlds.taxi.rides import Rides
from nextlat_viz.worlds.taxi.streets import COMPASS
from nextlat_viz.worlds.taxi.traffic import END

PROMPT = 2
"""Tokens before the first turn: origin and destination."""


class Followed(NamedTuple):
    """The state after each token; it does not change from the first illegal token on."""

    node: Int[np.ndarray, "episodes positions"]
    destination: Int[np.ndarray, "episodes positions"]
    moves_left: Int[np.ndarray, "episodes positions"]
    legal: Bool[np.ndarray, "episodes positions"]


def follow(rides: Rides, tokens: Int[np.ndarray, "episodes positions"]) -> Followed:
    """Follow the turns of every episode at once."""
    nodes, max_turns = rides.n_nodes, rides.max_turns
    # Position by position in memory, so that a step of all episodes is one run.
    columns = np.ascontiguousarray(tokens.T)
    node, destination, moves_left = (np.empty(columns.shape, np.int32) for _ in range(3))
    legal = np.empty(columns.shape, bool)
    leads = np.append(rides.streets.turns, np.full((nodes, 1), -1), axis=1).ravel().astype(np.int32)
    for t, token in enumerate(columns):
        if t == 0:
            legal[t] = token < nodes
            node[t], destination[t], moves_left[t] = np.where(legal[t], token, 0), -1, max_turns
            continue
        at, left = node[t - 1], moves_left[t - 1]
        if t == 1:
            goal = np.where(token < nodes, token, 0).astype(np.int32)
            legal[t] = legal[0] & (token < nodes) & rides.connects(at, goal)
            node[t], destination[t], moves_left[t] = at, np.where(legal[t], goal, -1), left
            continue
        goal = destination[t - 1]
        turn = token - nodes
        # Tokens that are not turns get a ninth direction, without a street.
        to = leads.take(at * (END + 1) + np.where((turn >= 0) & (turn < END), turn, END))
        there = at == goal
        moves = legal[t - 1] & (to >= 0) & (left > 0) & ~there
        legal[t] = moves | (legal[t - 1] & there & (turn == END))
        node[t], destination[t], moves_left[t] = np.where(moves, to, at), goal, left - moves
    return Followed(node.T, destination.T, moves_left.T, legal.T)


def refusal(rides: Rides, token: int, position: int, before: tuple[int, int, int]) -> str:
    """Why a token is not legal at a position, from 1, given node, destination and moves left before it."""
    name = rides.streets.nodes.__getitem__
    node, destination, left = before
    if position <= PROMPT:
        if token >= rides.n_nodes:
            return "an episode opens with two intersections, the origin and the destination"
        if token == node:
            return "origin and destination must differ"
        return (
            f"it is {rides.to_goal[token, node]} moves from {name(node)!r}, and rides have at most "
            f"max_turns={rides.max_turns}"
        )
    if node == destination:
        return "the ride has reached its destination, and only 'end' may follow"
    if token < rides.n_nodes:
        return "turns follow the destination, no further intersections"
    if token == rides.n_nodes + END:
        return f"the taxi is at {name(node)!r}, not yet at its destination {name(destination)!r}"
    if left == 0:
        return f"all {rides.max_turns} moves are used up"
    return f"no street leads {COMPASS[token - rides.n_nodes]} from {name(node)!r}"
