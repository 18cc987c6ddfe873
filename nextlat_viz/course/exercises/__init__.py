"""The exercises of each lesson: modules ``lesson_NN``, each with ``EXERCISES`` and ``PREDICTIONS``.

In a lesson's notebook the cell that the student fills in has the tags ``exercise`` and the exercise's name; the next
cell checks it, ``checked = course.check("belief_update", belief_update)``, and later cells use ``checked.function``,
which is the solution until the student's own function passes.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any

from nextlat_viz.course.exercise import Exercise, RightOption
from nextlat_viz.errors import one_of


def _lessons() -> list[Any]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [importlib.import_module(f"{__name__}.{name}") for name in names]


@cache
def all_exercises() -> dict[str, Exercise]:
    """Every exercise by name, in reading order: those in ``EXERCISES`` of the modules."""
    return {exercise.name: exercise for lesson in _lessons() for exercise in lesson.EXERCISES}


@cache
def all_predictions() -> dict[str, RightOption]:
    """Every prediction by name: those in ``PREDICTIONS`` of the modules."""
    return {prediction.name: prediction for lesson in _lessons() for prediction in lesson.PREDICTIONS}


def find_exercise(name: str) -> Exercise:
    """Return an exercise by name; an error that lists the names if there is none."""
    return all_exercises()[one_of("exercise", name, all_exercises())]
