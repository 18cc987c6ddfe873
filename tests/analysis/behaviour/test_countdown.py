from __future__ import annotations

import re

import numpy as np
import pytest

from nextlat_viz import worlds
from nextlat_viz.analysis import equation_validity
from nextlat_viz.latents import HELDOUT_SEED
from nextlat_viz.training import load
from tests.analysis.models import Scripted, fresh

WORLD = worlds.get("countdown", numbers=3, largest=20, targets=(10, 60), limit=500)
N = 6


def script(**wrong: list[int]) -> np.ndarray:
    tokens = WORLD.sample(N, seed=HELDOUT_SEED, split="test").tokens.copy()
    assert len({tuple(item) for item in tokens[:, : WORLD.prompt].tolist()}) == N
    for row, answer in wrong.items():
        tokens[int(row[1:]), WORLD.prompt : WORLD.prompt + len(answer)] = answer
    return tokens


def values(measure, part: str) -> dict:
    (row,) = measure.table.query("part == @part").to_dict("records")
    return row


def literal(text: str) -> tuple[list[bool], bool]:
    """Judge a solution as a person would read it."""
    problem, _, solution = text.partition(" | ")
    *pool, target = map(int, problem.split(","))
    valid = []
    for equation in solution.removesuffix(" end").split(", "):
        match = re.fullmatch(r"(\d+)([-+*/])(\d+)=(\d+)", equation.strip())
        if match is None:
            valid.append(False)
            continue
        a, sign, b, c = int(match[1]), match[2], int(match[3]), int(match[4])
        true = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[sign] == c
        left = list(pool)
        available = a in left and (left.remove(a) or b in left)
        if available:
            left.remove(b)
            pool = [*left, c]
        valid.append(bool(available and true))
    valid += [False] * (2 - len(valid))
    return valid, all(valid) and c == target


def test_true_solutions_are_valid() -> None:
    result = equation_validity(Scripted(WORLD, script(), WORLD.prompt), n=N, progress=False)
    assert result.table["part"].tolist() == ["equation 1", "equation 2", "answer"]
    assert result.table["value"].tolist() == [1.0] * 3
    assert values(result, "equation 2")["untrue"] == 0
    assert result.references["true world"] == 1


def test_wrong_solutions_are_counted_by_reason() -> None:
    tokens = script()
    plus, equals, end = WORLD.plus, WORLD.equals, WORLD.end
    first, second, third = (tokens[row, : WORLD.numbers].tolist() for row in (1, 2, 3))
    made = script(
        r1=[first[0], plus, first[1], equals, first[0] + first[1] + 1],
        r2=[second[0], plus, 500 - second[0], equals, 500],
        r3=[third[0], plus, equals, end],
    )
    result = equation_validity(Scripted(WORLD, made, WORLD.prompt), n=N, progress=False)
    single = values(result, "equation 1")
    assert (single["untrue"], single["unavailable"], single["malformed"]) == (1, 1, 1)
    assert single["value"] == 0.5
    assert single["trials"] == N
    judged = [literal(WORLD.decode(row[: list(row).index(end) + 1])) for row in made]
    for k in range(2):
        assert values(result, f"equation {k + 1}")["value"] == np.mean([valid[k] for valid, _ in judged])
    assert values(result, "answer")["value"] == np.mean([solved for _, solved in judged]) == 0.5


def test_true_equations_that_miss_the_target_are_not_an_answer() -> None:
    inputs, target = script()[:, :3], script()[:, 3]
    row = int((inputs.sum(axis=1) != target).argmax())
    a, b, c = inputs[row].tolist()
    plus, equals = WORLD.plus, WORLD.equals
    made = script(**{f"r{row}": [a, plus, b, equals, a + b, a + b, plus, c, equals, a + b + c]})
    result = equation_validity(Scripted(WORLD, made, WORLD.prompt), n=N, progress=False)
    assert [values(result, part)["value"] for part in ("equation 1", "equation 2")] == [1, 1]
    assert values(result, "answer")["value"] == pytest.approx(1 - 1 / N)


def test_another_world_is_refused() -> None:
    with pytest.raises(ValueError, match=r"equation validity is measured on Countdown.*'rrxor'"):
        equation_validity(load("rrxor/nextlat"))
    with pytest.raises(ValueError, match="n=0 must be at least 1"):
        equation_validity(Scripted(WORLD, script(), WORLD.prompt), n=0)


def test_an_untrained_model_writes_no_valid_equation() -> None:
    model = fresh(WORLD, "next_token", context=WORLD.length, layers=1)
    result = equation_validity(model, n=20, progress=False)
    assert (result.table["value"] == 0).all()
    first = values(result, "equation 1")
    assert first["malformed"] + first["unavailable"] + first["untrue"] == 20
