"""Check a student's function: call it on random cases within a time limit, and explain the first wrong answer."""

from __future__ import annotations

import copy
import ctypes
import dis
import inspect
import threading
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nextlat_viz.course import record
from nextlat_viz.course.exercise import Exercise, Function, Note, agree, as_numbers
from nextlat_viz.course.exercises import find_exercise
from nextlat_viz.display import counted, shorten

_BLANK = "not filled in yet"
_WRONG = "not right yet"
_TENSOR = "a torch tensor, expected a numpy array: tensor.numpy() converts it."
# Longest answer shown in a verdict, in characters.
_LONGEST = 200


class _TimeUp(BaseException):
    """Raised in a student's function whose time is up. A BaseException, which ``except Exception`` does not catch."""


@dataclass(frozen=True, eq=False)
class _Outcome:
    """The outcome of one case: the value or the error raised, and the number of an argument that was changed."""

    value: Any = None
    error: BaseException | None = None
    changed: int | None = None


@dataclass(frozen=True, repr=False)
class Verdict(Note):
    """The outcome of a check; true if the answer is right.

    Attributes
    ----------
    passed : bool
    function : callable
        The student's function if it passed, else the solution, so that later cells can run.
    """

    passed: bool = False
    function: Any = None

    def __bool__(self) -> bool:
        return self.passed


def check(name: str, function: Any) -> Verdict:
    """Check a student's function against the solution on seeded random cases.

    A wrong answer raises no error: the verdict shows the first case that fails, with a hint if the mistake is typical.
    The outcome is stored in the file of `course.progress`.

    Parameters
    ----------
    name : str
        Name of the exercise.
    function : callable
        The student's answer.

    Raises
    ------
    UnknownNameError
        If there is no such exercise.

    Examples
    --------
    >>> check("belief_update", ...)
    belief_update: not filled in yet
    ...
    """
    exercise = find_exercise(name)
    state, rows, text = _examine(exercise, function)
    passed = state not in (_BLANK, _WRONG)
    if state == _WRONG:
        text = f"{text} Stuck? course.hint({name!r}) gives a hint."
    if state != _BLANK:
        text = f"{text} {record.add(name, counts='tries', state='done' if passed else 'tried')[1]}".strip()
    return Verdict(f"{name}: {state}", text, rows, passed=passed, function=function if passed else exercise.solution)


def hint(name: str) -> Note:
    """Return the next hint of an exercise; after the last, start again with the first.

    Examples
    --------
    >>> import tempfile
    >>> table = record.progress(f"{tempfile.mkdtemp()}/mine.json")
    >>> hint("belief_update").title
    'belief_update: hint 1 of 3'
    """
    hints = find_exercise(name).hints
    entry, message = record.add(name, counts="hints")
    number = (entry.hints - 1) % len(hints)
    return Note(f"{name}: hint {number + 1} of {len(hints)}", f"{hints[number]} {message}".strip())


def solution(name: str) -> Note:
    """Return the source of an exercise's solution.

    Examples
    --------
    >>> import tempfile
    >>> table = record.progress(f"{tempfile.mkdtemp()}/mine.json")
    >>> solution("belief_update").code.splitlines()[0]
    'def belief_update(belief, token, T):'
    """
    exercise = find_exercise(name)
    _, message = record.add(name, solution=True)
    return Note(f"{name}: a solution", message, code=inspect.getsource(exercise.solution))


def _examine(exercise: Exercise, function: Any) -> tuple[str, dict[str, str], str]:
    """Return the state, rows and text of a verdict."""
    name = exercise.name
    parameters = list(inspect.signature(exercise.solution).parameters)
    called = f"{name}({', '.join(parameters)})"
    text = f"{exercise.task} Write {called} in the cell above and run both cells again."
    blank: tuple[str, dict[str, str], str] = (_BLANK, {}, text)
    if function is None or function is ... or _is_blank(function):
        return blank
    if not callable(function):
        return _WRONG, {}, f"This is not a function, it is {_shown(function)}. Write check({name!r}, {name})."
    cases = list(exercise.cases(np.random.default_rng(0)))
    try:
        inspect.signature(function).bind(*cases[0])
    except (TypeError, ValueError) as error:
        return _WRONG, {}, f"It has to take the arguments of {called}: {error}."
    outcomes = _outcomes(exercise, function, cases)
    # If the time was up, there are fewer outcomes than cases.
    for case, outcome in zip(cases, outcomes, strict=False):
        right = exercise.call(exercise.solution, *copy.deepcopy(case))
        problem = _problem(exercise, function, case, outcome, right)
        if problem == _BLANK:
            return blank
        if problem is not None:
            arguments = (f"{argument} = {_shown(value)}" for argument, value in zip(parameters, case, strict=True))
            rows = {"case": exercise.describe(*case) if exercise.describe else ", ".join(arguments)}
            if outcome.error is None:
                rows["your answer"] = _shown(outcome.value)
            if exercise.judge is None:
                rows["expected"] = _shown(right)
            return _WRONG, rows, f"{problem} {_typical(exercise, cases, outcomes)}".strip()
    return f"right, in {counted(len(cases), 'case')}", {}, ""


def _is_blank(function: Any) -> bool:
    """Whether a function's body is only a docstring, dots or ``pass``."""
    code = getattr(function, "__code__", None)
    # RETURN_CONST is an instruction of newer versions of Python.
    return code is not None and all(
        step.opname in {"RESUME", "NOP", "RETURN_VALUE"}
        or (step.opname in {"LOAD_CONST", "RETURN_CONST"} and step.argval is None)
        for step in dis.get_instructions(code)
    )


def _outcomes(exercise: Exercise, function: Function, cases: Sequence[tuple[Any, ...]]) -> list[_Outcome]:
    """Call a function on every case, in a thread that is stopped at the time limit."""
    outcomes: list[_Outcome] = []

    def work() -> None:
        try:
            with np.errstate(all="ignore"):
                for case in cases:
                    outcomes.append(_outcome(exercise, function, case))
        except _TimeUp:
            pass

    thread = threading.Thread(target=work, daemon=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            thread.start()
            thread.join(exercise.seconds)
    finally:
        # Stop the thread, also when the student interrupts the cell. Compiled code cannot be stopped and runs on.
        for _ in range(20):
            if thread.is_alive():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_TimeUp))
                thread.join(0.05)
    finished = list(outcomes)
    return finished if len(finished) == len(cases) else [*finished, _Outcome(error=_TimeUp())]


def _outcome(exercise: Exercise, function: Function, case: tuple[Any, ...]) -> _Outcome:
    arguments = copy.deepcopy(case)
    try:
        value = exercise.call(function, *arguments)
    except _TimeUp:
        raise
    except BaseException as error:
        return _Outcome(error=error)
    # An argument that does not agree with itself, such as a model, cannot be compared.
    pairs = enumerate(zip(case, arguments, strict=True))
    changed = [k for k, (before, after) in pairs if agree(before, before) and not agree(before, after)]
    return _Outcome(value, changed=changed[0] if changed else None)


def _problem(
    exercise: Exercise, function: Function, case: tuple[Any, ...], outcome: _Outcome, expected: Any
) -> str | None:
    """Describe the problem with the outcome of one case: None for no problem, empty if only the numbers are wrong."""
    value = outcome.value
    if value is ... or "ellipsis" in str(outcome.error):
        return _BLANK
    if outcome.error is not None:
        return _explained(exercise, function, outcome.error)
    if value is None:
        return "It returned None: a function returns the value after the word return."
    if outcome.changed is not None:
        argument = list(inspect.signature(exercise.solution).parameters)[outcome.changed]
        return f"It changed its argument {argument}, which the caller still needs. Work on a copy of it."
    if exercise.judge is not None:
        try:
            return exercise.judge(value, *copy.deepcopy(case)) or None
        except Exception:
            return f"It returned {_kind(value)}, which is not what the task asks for."
    tensor = _is_tensor(value) and not _is_tensor(expected)
    if exercise.compare(expected, value):
        return f"The numbers are right, but it returned {_TENSOR}" if tensor else None
    if tensor:
        return f"It returned {_TENSOR}"
    target, numbers = as_numbers(expected), as_numbers(value)
    if target is None or numbers is None:
        return "" if type(value) is type(expected) else f"It returned {_kind(value)}, expected {_kind(expected)}."
    if target.shape != numbers.shape:
        return f"It returned {_kind(value)} of shape {numbers.shape}, expected shape {target.shape}."
    if np.isnan(numbers).any():
        return "It returned NaN (not a number), the result of 0/0 or 0 times log 0."
    return ""


def _explained(exercise: Exercise, function: Function, error: BaseException) -> str:
    if isinstance(error, _TimeUp):
        return f"It was stopped after {exercise.seconds:g} s: is there a loop that never ends?"
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f" in line {lines[-1].lineno} of the cell, {lines[-1].line}" if lines else ""
    return f"It raised {type(error).__name__}{where}: {shorten(error, _LONGEST)}."


def _typical(exercise: Exercise, cases: Sequence[tuple[Any, ...]], outcomes: Sequence[_Outcome]) -> str:
    """Return the hint of the typical mistake with the same outcomes as the student's function; empty if none has."""
    for mistake, text in exercise.mistakes:
        pairs = zip(outcomes, _outcomes(exercise, mistake, cases), strict=False)
        if all(_same(exercise, *pair) for pair in pairs):
            return text
    return ""


def _same(exercise: Exercise, first: _Outcome, second: _Outcome) -> bool:
    if first.error is not None or second.error is not None:
        return type(first.error) is type(second.error)
    return exercise.compare(second.value, first.value)


def _is_tensor(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "torch"


def _kind(value: Any) -> str:
    return f"{'an' if type(value).__name__[0] in 'aeiou' else 'a'} {type(value).__name__}"


def _shown(value: Any) -> str:
    """Write a value on one line, arrays to three digits."""
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}"
    if isinstance(value, np.ndarray):
        value = np.array2string(value, precision=3, suppress_small=True, separator=", ", threshold=60)
    elif isinstance(value, str):
        value = repr(value)
    return shorten(" ".join(str(value).split()), _LONGEST)
