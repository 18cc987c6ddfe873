"""Exercises and predictions of the lessons: the `Exercise` and `RightOption` objects in the modules ``lesson_NN``.

In a lesson's notebook, the cell that the student fills in has the tags ``exercise`` and the exercise's name. The next
cell checks it: ``checked = course.check("belief_update", belief_update)``. Later cells use ``checked.function``, which
is the solution until the student's function passes.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any

from nextlat_viz.course.exercise import Exercise, RightOption
from nextlat_viz.errors import one_of


def _all(kind: type[Any]) -> dict[str, Any]:
    """Return the objects of a class in all lessons, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    lessons = (importlib.import_module(f"{__name__}.{name}") for name in names)
    return {value.name: value for lesson in lessons for value in vars(lesson).values() if isinstance(value, kind)}


@cache
def all_exercises() -> dict[str, Exercise]:
    """Return every exercise by name, in reading order."""
    return _all(Exercise)


@cache
def all_predictions() -> dict[str, RightOption]:
    """Return every prediction by name."""
    return _all(RightOption)


def find_exercise(name: str) -> Exercise:
    """Return an exercise by name; raise an error that lists the names if it is unknown."""
    return all_exercises()[one_of("exercise", name, all_exercises())]
