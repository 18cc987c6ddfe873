"""What the tests check of signatures is noticed also where the same function was called before."""

from __future__ import annotations

import inspect

import jaxtyping
import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Float

from tests.shapes import checked

X = np.zeros((3, 4))


@checked(typechecker=beartype)
def mirrored(
    rows: Float[np.ndarray, "n k"], *more: int, scale: Float[np.ndarray, " k"] | None = None, turn: bool = True
) -> tuple[Float[np.ndarray, "k n"], int]:
    return (rows.T if turn else rows), len(more)


@checked(typechecker=beartype)
def mean(tables: dict[str, Float[np.ndarray, "n k"]], weights: Float[np.ndarray, " n"]) -> Float[np.ndarray, " k"]:
    return np.average(tables["rows"], axis=0, weights=weights)


@checked(typechecker=beartype)
def each(rows: Float[np.ndarray, "n k"]):
    yield from rows


@pytest.fixture(autouse=True)
def _called_before() -> None:
    mirrored(X, 1, 2, scale=np.zeros(4))
    mirrored(rows=X)
    mean({"rows": X}, np.ones(3))
    assert len(list(each(X))) == 3


@pytest.mark.parametrize(
    "call",
    {
        "a type": lambda: mirrored(X.astype(int)),
        "an axis more": lambda: mirrored(X[None]),
        "two sizes of an axis": lambda: mirrored(X, scale=np.zeros(3)),
        "two sizes, by name": lambda: mirrored(scale=np.zeros(3), rows=X),
        "no array": lambda: mirrored(X, scale=1.0),
        "more arguments than names": lambda: mirrored(X, 1, 2, 3, 4, scale=np.zeros(3)),
        "no shape": lambda: mirrored(X, "2"),
        "the result": lambda: mirrored(X, turn=False),
        "a dictionary": lambda: mean({"rows": X[0]}, np.ones(3)),
        "beside a dictionary": lambda: mean({"rows": X}, np.ones(2)),
        "a generator": lambda: each(X[0]),
    }.items(),
    ids=lambda call: call[0],
)
def test_what_does_not_fit_is_refused(call) -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        call[1]()


def test_other_sizes_that_fit_are_accepted() -> None:
    assert mirrored(X[:2, :1], scale=np.zeros(1))[0].shape == (1, 2)
    assert mirrored(X, scale=None) is not None
    assert inspect.isgenerator(each(X[:1]))
    with pytest.raises(TypeError, match="rows"):
        mirrored()
