"""Cheap checks of signatures: prepared when a function is first called, and for shapes only where it has some.

jaxtyping's import hook decorates every function of the package. Its decorator builds two checked copies of each while
the module is imported, and a context for shapes at each call. A process of these tests imports all modules and calls
less than half of the functions, most of which have no shapes.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from types import FunctionType
from typing import Any

import jaxtyping
from beartype import BeartypeConf

_TYPE_ERRORS = BeartypeConf(violation_type=jaxtyping.TypeCheckError)
_WITH_SHAPES = jaxtyping.jaxtyped


def install() -> None:
    """Let jaxtyping's import hook use `checked`. Call it before the package is imported."""
    jaxtyping.jaxtyped = checked


def checked(function: Any = None, *, typechecker: Any = None) -> Any:
    """Check the arguments and the result of a function, or the fields of a dataclass, as `jaxtyping.jaxtyped` does."""
    if function is None:
        return functools.partial(checked, typechecker=typechecker)
    if isinstance(function, type):
        if dataclasses.is_dataclass(function) and isinstance(vars(function).get("__init__"), FunctionType):
            function.__init__ = checked(function.__init__, typechecker=typechecker)  # type: ignore[misc]
        return function
    if hasattr(function, "__wrapped__"):
        return function
    if not isinstance(function, FunctionType):
        return _WITH_SHAPES(function, typechecker=typechecker)
    ready: Callable[..., Any] | None = None

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal ready
        if jaxtyping.config.jaxtyping_disable:
            return function(*arguments, **options)
        if ready is None:
            ready = _prepared(function, typechecker)
        return ready(*arguments, **options)

    return call


def _prepared(function: FunctionType, typechecker: Any) -> Callable[..., Any]:
    hints = {name: _hint(annotation, function.__globals__) for name, annotation in function.__annotations__.items()}
    if inspect.isgeneratorfunction(function):
        # What it yields is not checked, and that it returns a generator is certain.
        hints.pop("return", None)
    if any(map(_has_shape, hints.values())):
        return _WITH_SHAPES(function, typechecker=typechecker)
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__, copy.__annotations__ = function.__kwdefaults__, hints
    copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
    checked_copy: Callable[..., Any] = typechecker(copy, conf=_TYPE_ERRORS)
    return checked_copy


def _hint(annotation: Any, names: dict[str, Any]) -> Any:
    """Return an annotation as an object; Any if it has names that are imported for type checkers only."""

    def stub() -> None: ...

    stub.__annotations__ = {"value": annotation}
    try:
        return typing.get_type_hints(stub, names, include_extras=True)["value"]
    except Exception:
        return Any


def _has_shape(hint: Any) -> bool:
    if isinstance(hint, list):
        return any(map(_has_shape, hint))
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(map(_has_shape, typing.get_args(hint)))
