"""Cheap checks of signatures: prepared when a function is first called, and made once for the same shapes.

jaxtyping's import hook decorates every function of the package. Its decorator builds two checked copies of each while
the module is imported, and at each call a context for shapes, in which it checks every argument twice. A process of
these tests imports all modules, calls less than half of the functions, most of which have no shapes, and calls the
others again and again with arrays of the same shapes.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from types import FunctionType
from typing import Any

import jaxtyping
from beartype import BeartypeConf
from beartype.door import die_if_unbearable

_TYPE_ERRORS = BeartypeConf(violation_type=jaxtyping.TypeCheckError)
_WITH_SHAPES = jaxtyping.jaxtyped
# In this context the name of an axis has one size.
_AXES = _WITH_SHAPES("context")


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
    shapes = {name: hint for name, hint in hints.items() if _has_shape(hint)}
    code = function.__code__
    names = {*code.co_varnames[: code.co_argcount + code.co_kwonlyargcount], "return"}
    if not (shapes.keys() <= names and all(map(_tells_by_form, shapes.values()))):
        return _WITH_SHAPES(function, typechecker=typechecker)
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = {name: hint for name, hint in hints.items() if name not in shapes}
    copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
    checked_copy: Callable[..., Any] = typechecker(copy, conf=_TYPE_ERRORS)
    return _with_shapes(checked_copy, shapes, code.co_varnames[: code.co_argcount]) if shapes else checked_copy


def _with_shapes(
    function: Callable[..., Any], hints: Mapping[str, Any], positional: tuple[str, ...]
) -> Callable[..., Any]:
    """Check the arrays among the arguments, and those of the result, unless those before had the same forms."""
    order = {name: place for place, name in enumerate(positional)}
    places = [(name, order.get(name, sys.maxsize)) for name in hints if name != "return"]
    passed: set[Hashable] = set()

    def check(arrays: Mapping[str, Any]) -> None:
        with _AXES:
            for name, value in arrays.items():
                where = f"{function.__module__}.{function.__qualname__}() {name} "
                die_if_unbearable(value, hints[name], conf=_TYPE_ERRORS, exception_prefix=where)

    def call(*arguments: Any, **options: Any) -> Any:
        arrays = {
            name: arguments[place] if place < len(arguments) else options[name]
            for name, place in places
            if place < len(arguments) or name in options
        }
        forms: tuple[Hashable, ...] = tuple([(name, _form(arrays[name])) for name in arrays])
        if forms not in passed:
            check(arrays)
            passed.add(forms)
        result = function(*arguments, **options)
        if "return" in hints:
            forms = (*forms, _form(result))
            if forms not in passed:
                check({**arrays, "return": result})
                passed.add(forms)
        return result

    return call


def _form(value: Any) -> Hashable:
    """What a hint of `_tells_by_form` looks at."""
    if isinstance(value, tuple):
        return type(value), *map(_form, value)
    try:
        return type(value), value.dtype, value.shape
    except AttributeError:
        return type(value)


def _tells_by_form(hint: Any) -> bool:
    """Whether a hint accepts all values of one form, or none: arrays, classes, their unions and tuples."""
    if typing.get_origin(hint) in (tuple, typing.Union, types.UnionType):
        return all(map(_tells_by_form, typing.get_args(hint)))
    return isinstance(hint, type) and not isinstance(hint, types.GenericAlias)


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
