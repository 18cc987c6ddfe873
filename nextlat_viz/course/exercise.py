"""An exercise of the course: its task, solution, cases, typical mistakes with their hints, and hints on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nextlat_viz.display import escape, table

Function = Callable[..., Any]


def agree(expected: Any, got: Any) -> bool:
    """Return whether two answers are the same: numbers to five digits, in arrays of the same shape, lists and dicts.

    Examples
    --------
    >>> agree(np.array([0.5, 0.5]), [0.5, 0.5]), agree(np.eye(2), np.ones(2)), agree({"a": 1.0}, {"a": 2.0})
    (True, False, False)
    """
    if isinstance(expected, Mapping):
        same_keys = isinstance(got, Mapping) and expected.keys() == got.keys()
        return same_keys and all(agree(value, got[key]) for key, value in expected.items())
    if isinstance(expected, (str, bool, type(None), set, frozenset)):
        return type(expected) is type(got) and bool(expected == got)
    target, numbers = as_numbers(expected), as_numbers(got)
    if target is None or numbers is None:
        pairs = isinstance(expected, Sequence) and isinstance(got, Sequence) and len(expected) == len(got)
        return pairs and all(agree(*pair) for pair in zip(expected, got, strict=True))
    return target.shape == numbers.shape and bool(np.allclose(target, numbers, rtol=1e-5, atol=1e-7, equal_nan=True))


def as_numbers(value: Any) -> np.ndarray | None:
    """Convert an answer to an array of floats, or return None if it holds anything but numbers.

    Examples
    --------
    >>> as_numbers((1, 2)), as_numbers("12"), as_numbers([[1], [1, 2]])
    (array([1., 2.]), None, None)
    """
    try:
        numbers = np.asarray(value)
        return numbers.astype(np.float64) if numbers.dtype.kind in "biuf" else None
    except (TypeError, ValueError, RuntimeError):
        return None


def call(function: Function, *arguments: Any) -> Any:
    """Call the student's function: the default of `Exercise.call`."""
    return function(*arguments)


@dataclass(frozen=True, eq=False)
class Exercise:
    """A function for the student to write, with the name of its solution; the solution's docstring is the task.

    Parameters
    ----------
    solution : function
        Its source is shown on request, and tests paste it into the notebook. So it may use only its arguments,
        built-ins, and names that the notebook has imported.
    cases : function of a numpy Generator
        Yields tuples of arguments, easy ones first.
    mistakes : sequence of (function, hint)
        Typical wrong answers. The hint is shown if the student's answers are the same in all cases.
    hints : sequence of str
        Shown one after another on request.
    describe : function of the arguments, optional
        Describes a case in the lesson's terms; by default every argument is shown.
    call : function of the student's function and the arguments
        Returns the answer to compare, for instance a value and its gradient.
    compare : function of two answers
        Returns whether they are the same; default `agree`.
    judge : function of an answer and the arguments, optional
        Used instead of comparing if many answers are right. Returns what is wrong with an answer, or "".
    seconds : float
        Time limit for all cases together.
    """

    solution: Function
    cases: Callable[[np.random.Generator], Iterable[tuple[Any, ...]]]
    mistakes: Sequence[tuple[Function, str]] = ()
    hints: Sequence[str] = ()
    describe: Callable[..., str] | None = None
    call: Function = call
    compare: Callable[[Any, Any], bool] = agree
    judge: Callable[..., str] | None = None
    seconds: float = 10

    @property
    def name(self) -> str:
        """Name of the function to write."""
        return self.solution.__name__

    @property
    def lesson(self) -> int:
        """Number of the lesson, from the name of the exercise's module."""
        return int(self.solution.__module__.rpartition("_")[2])

    @property
    def task(self) -> str:
        """The task in one sentence."""
        return (self.solution.__doc__ or "").strip().partition("\n")[0]


@dataclass(frozen=True)
class RightOption:
    """The right option of a prediction, and the reason, both shown once the student has locked an answer."""

    name: str
    answer: str
    why: str


@dataclass(frozen=True)
class Note:
    """A short text for display in a notebook or a terminal."""

    title: str
    text: str = ""
    rows: Mapping[str, str] | None = None
    code: str = ""

    def __repr__(self) -> str:
        lines = [self.title, *(f"  {key}: {value}" for key, value in (self.rows or {}).items()), self.text, self.code]
        return "\n".join(line for line in lines if line)

    def _repr_html_(self) -> str:
        code = f"<pre>{escape(self.code)}</pre>" if self.code else ""
        return table(self.title, self.rows or {}, self.text) + code
