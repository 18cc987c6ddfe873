"""Worlds by name: built in, registered at run time, or provided by other packages as entry points."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from nextlat_viz.errors import shown, unknown
from nextlat_viz.worlds import outside
from nextlat_viz.worlds.base import World

ENTRY_POINT_GROUP = "nextlat_viz.worlds"
_factories: dict[str, Callable[..., World]] = {}


def register(name: str, factory: Callable[..., World]) -> None:
    """Make ``get(name, **params)`` call ``factory(**params)``.

    A factory of the same module and name replaces the one registered before.

    Parameters
    ----------
    name : str
        Lower-case letters, digits and underscores, because it becomes part of file names.
    factory : callable
        Returns a World. ``names`` lists the world if every parameter has a default.

    Raises
    ------
    ValueError
        If the name is malformed or belongs to another factory.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"a world's name must be lower-case letters, digits and underscores, got {name!r}")
    # Running a notebook cell again defines the same factory as a new object.
    if _definition(_factories.get(name, factory)) != _definition(factory):
        raise ValueError(f"a world named {name!r} is already registered; choose another name")
    _factories[name] = factory


def names() -> list[str]:
    """List the worlds that ``get`` can build without parameters, sorted.

    Examples
    --------
    >>> {"rrxor", "mess3", "z1r"} <= set(names())
    True
    """
    registered = [name for name, factory in _factories.items() if not _required(factory)]
    return sorted({*registered, *_announced()})


def get(name: str | World, /, **params: Any) -> World:
    """Build a world by name.

    Parameters
    ----------
    name : str
        One of ``names()``, optionally with parameters as on the command line: ``"mess3:x=0.15,alpha=0.6"``. A World is
        returned as it is.
    **params
        Parameters of the world.

    Raises
    ------
    UnknownNameError
        If there is no such world; the error suggests the nearest name.
    ValueError
        If a parameter is unknown or missing, or a value is out of range.
    TypeError
        If ``name`` is neither a name nor a World.

    Examples
    --------
    >>> get("mess3", x=0.15, alpha=0.6).spec
    {'name': 'mess3', 'x': 0.15, 'alpha': 0.6}
    >>> get("mess3:x=0.15").spec
    {'name': 'mess3', 'x': 0.15, 'alpha': 0.85}
    """
    if isinstance(name, World) and not params:
        return name
    if not isinstance(name, str):
        raise TypeError(f"world must be the name of a world, such as 'rrxor', or a World, got {shown(name)}")
    name, parsed = _parsed(name)
    params = parsed | params
    factory = _factory(name)
    if factory is None:
        raise unknown("world", name, names())
    accepted = inspect.signature(factory).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    for parameter in params:
        if parameter not in accepted and not takes_any:
            raise unknown(f"parameter of world {name!r}:", parameter, accepted)
    missing = [parameter for parameter in _required(factory) if parameter not in params]
    if missing:
        raise ValueError(f"world {name!r} needs the parameter {missing[0]!r}; pass get({name!r}, {missing[0]}=...)")
    outside.require_moderate(params)
    world = factory(**params)
    if not isinstance(world, World):
        raise TypeError(f"the factory of world {name!r} returned {type(world).__name__}, not a World")
    if not outside.confined():
        outside.ask(world.spec)
    return world


def everywhere(name: str) -> bool:
    """Whether other Python processes know the world: it is part of this package, or an entry point of another.

    Examples
    --------
    >>> everywhere("rrxor")
    True
    """
    return name in _announced() or getattr(_factories.get(name), "__module__", "").startswith("nextlat_viz.")


def from_spec(spec: Mapping[str, Any], *, trusted: bool = True) -> World:
    """Build a world from its ``spec``.

    Parameters
    ----------
    spec : dict
        The name and the parameters of a world.
    trusted : bool
        False for a spec from a card: unless this user built the same world before, no file is opened, no server is
        contacted and no number may be above a million. Text that is in the cache, by its hash, is used.

    Raises
    ------
    ValueError
        If the spec does not describe a world, or needs a file, a server or a size that is not trusted; the error says
        how to build it anyway.

    Examples
    --------
    >>> from_spec({"name": "z1r", "p": 0.25}).spec
    {'name': 'z1r', 'p': 0.25}
    """
    if not isinstance(spec, Mapping) or "name" not in spec:
        raise ValueError(f"a world's spec must be a mapping with a 'name' and its parameters, got {spec!r:.200}")
    with contextlib.nullcontext() if trusted or outside.asked(spec) else outside.confine():
        return get(spec["name"], **{key: value for key, value in spec.items() if key != "name"})


def title(world: World | Mapping[str, Any]) -> str:
    """Write a world, or its spec, as text that ``get`` takes: its name and the parameters that are not the default.

    Hashes, which only check the other parameters, are left out. A world that is not registered has only its name.

    Examples
    --------
    >>> title(get("mess3")), title(get("mess3", x=0.15)), title(get("countdown", targets=(10, 40)))
    ('mess3', 'mess3:x=0.15', 'countdown:targets=[10,40]')
    """
    spec = world.spec if isinstance(world, World) else world
    name = str(spec["name"])
    factory = _factory(name)
    if factory is None:
        return world.name if isinstance(world, World) else name
    accepted = inspect.signature(factory).parameters.values()
    defaults = {parameter.name: parameter.default for parameter in accepted} if _required(factory) else factory().spec
    changed = {
        key: value
        for key, value in spec.items()
        if key != "name" and defaults.get(key) != value and not key.endswith("sha256") and key != "expected"
    }
    # Long lists come last, so that a shortened title still shows the rest.
    keys = sorted(changed, key=lambda key: isinstance(changed[key], (list, dict)))
    words = ",".join(f"{key}={_written(changed[key])}" for key in keys)
    return f"{name}:{words}" if words else name


def _written(value: Any) -> str:
    """Write a value for `_parsed`: text unquoted if that is unambiguous, anything else as JSON."""
    # In `_parsed` a comma in text ends the parameter.
    if isinstance(value, str) and "," not in value and _parsed(f"x:y={value}")[1] == {"y": value}:
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _parsed(text: str) -> tuple[str, dict[str, Any]]:
    """Split a title into name and parameters. Values that are not JSON are text up to the next comma."""
    name, colon, rest = str(text).partition(":")
    params: dict[str, Any] = {}
    decoder = json.JSONDecoder()
    while colon:
        key, equals, rest = rest.partition("=")
        if not (key.strip() and equals) or "," in key:
            part = key.partition(",")[0] if "," in key else key + equals
            raise ValueError(f"world {text!r}: parameters must be written as {name}:key=value,key=value, got {part!r}")
        try:
            value, end = decoder.raw_decode(rest)
        except json.JSONDecodeError:
            end = -1
        if end < 0 or rest[end : end + 1] not in ("", ","):
            end = len(rest.partition(",")[0])
            value = rest[:end]
        params[key.strip()] = value
        colon, rest = rest[end : end + 1], rest[end + 1 :]
    return name, params


def _factory(name: str) -> Callable[..., World] | None:
    if name not in _factories and name in _announced():
        factory: Callable[..., World] = _announced()[name].load()
        return factory
    return _factories.get(name)


@cache
def _announced() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def _definition(factory: Callable[..., World]) -> object:
    """Module and name of a function or class; the object itself if it has none."""
    name = getattr(factory, "__qualname__", None)
    return factory if name is None else (factory.__module__, name)


def _required(factory: Callable[..., World]) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [
        name
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.default is parameter.empty and parameter.kind in kinds
    ]
