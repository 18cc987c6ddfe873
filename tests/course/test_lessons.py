"""The lessons run from top to bottom in this process, with the solutions and with nothing filled in."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import pytest
from ipywidgets.widgets.widget import _instances

from nextlat_viz import course
from nextlat_viz.course.exercises import all_exercises, all_predictions
from nextlat_viz.course.prediction import Question
from nextlat_viz.notebook.panel import Panel

LESSONS = sorted((Path(__file__).parents[2] / "notebooks" / "course").glob("[0-9]*.ipynb"))


def cells(lesson: Path) -> list[Any]:
    return [cell for cell in nbformat.read(lesson, as_version=4).cells if cell.cell_type == "code"]


def exercise_of(cell: Any) -> str:
    """Return the exercise of a cell that is to be filled in, or an empty text."""
    kind, name, *_ = [*cell.metadata.get("tags", []), "", ""]
    return name if kind == "exercise" else ""


def execute(source: str, namespace: dict[str, Any]) -> Any:
    """Run a cell in this process, training for a few steps only, and return the value of its last expression."""
    source = source.replace("TRAIN = False", "TRAIN = True").replace("STEPS = 600", "STEPS = 12")
    *body, last = ast.parse(source).body
    value = last.value if isinstance(last, ast.Expr) else None
    exec(compile(ast.Module(body if value else [*body, last], []), "<cell>", "exec"), namespace)
    return eval(compile(ast.Expression(value), "<cell>", "eval"), namespace) if value else None


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_lesson_runs_from_top_to_bottom(lesson: Path) -> None:
    namespace: dict[str, Any] = {}
    before = set(_instances)
    questions, known = [], all_exercises()
    code = cells(lesson)
    for cell in code:
        name = exercise_of(cell)
        value = execute(inspect.getsource(known[name].solution) if name else cell.source, namespace)
        if isinstance(value, course.Verdict):
            assert value.passed, value
        if isinstance(value, Panel):
            assert value.shown
            assert value.drawn, value
        if isinstance(value, Question):
            value.options.value = value.options.options[-1]
            value.button.click()
            assert value.locked
            questions.append(value)
    assert questions
    # A widget shows its own errors, and the cell ends without one.
    result = [getattr(_instances[number], "value", "") for number in set(_instances) - before]
    assert not [value for value in result if 'role="alert"' in str(value)]
    for question in questions:
        question.close()
    # With nothing filled in, the cells below a check use the solution.
    for cell, check in pairwise(code):
        if name := exercise_of(cell):
            execute(cell.source, namespace)
            verdict = execute(check.source, namespace)
            assert repr(verdict).startswith(f"{name}: not filled in yet")
            assert verdict.function is known[name].solution


def test_every_exercise_and_prediction_has_its_lesson() -> None:
    sources = {lesson: "".join(cell.source for cell in cells(lesson)) for lesson in LESSONS}
    for lesson, source in sources.items():
        number = int(lesson.stem.partition("_")[0])
        named = {name for name, exercise in all_exercises().items() if exercise.lesson == number}
        assert {exercise_of(cell) for cell in cells(lesson)} - {""} == named != set()
        assert all(f'course.check("{name}", {name})' in source for name in named)
    text = "".join(sources.values())
    assert all(f'"{name}"' in text for name in all_predictions())
