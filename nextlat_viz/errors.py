"""Errors that name what was wrong, what was expected and what to do."""

from __future__ import annotations

import difflib
import importlib
import operator
from collections.abc import Iterable
from numbers import Real
from typing import Any, SupportsIndex

_MOST_NAMES = 60


class UnknownNameError(ValueError):
    """A name that is not in the list it was looked up in."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded: files missing, truncated, altered or of another format."""


class TrainingError(RuntimeError):
    """A run that cannot continue: the loss is NaN or infinite, or the device's memory is full."""


class LatentsError(ValueError):
    """A latents file or table that is damaged, or does not have what the caller needs."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the machine, or of its accelerator, is full. Does not import torch.

    Examples
    --------
    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes differ"))
    (True, False)
    """
    # On a CPU torch raises a plain RuntimeError, on a GPU an OutOfMemoryError.
    return isinstance(error, MemoryError) or any(
        text in f"{type(error).__name__} {error}" for text in ("OutOfMemoryError", "can't allocate memory")
    )


def unknown(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """Build the error for a name that does not exist, nearest existing name first.

    Examples
    --------
    >>> print(unknown("world", "rrxr", ["mess3", "rrxor"]))
    unknown world 'rrxr'. Did you mean 'rrxor'? Known: rrxor, mess3
    """
    names = [str(candidate) for candidate in known]
    if not names:
        return UnknownNameError(f"unknown {kind} {name!r}: there are none")
    close = difflib.get_close_matches(str(name).lower(), names, n=len(names), cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    ordered = close + [candidate for candidate in names if candidate not in close]
    more = f" and {len(ordered) - _MOST_NAMES:,} more" if len(ordered) > _MOST_NAMES else ""
    return UnknownNameError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(ordered[:_MOST_NAMES])}{more}")


def shown(value: object) -> str:
    """Write a value for an error message: its ``repr`` if that is one short line, otherwise the name of its type.

    Examples
    --------
    >>> shown([1, 2]), shown("x" * 100)
    ('[1, 2]', 'str')
    """
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else type(value).__name__


def one_of(kind: str, name: Any, known: Iterable[str]) -> str:
    """Return a name after checking that a list has it: the error of `unknown` if not, a TypeError if it is not text.

    Examples
    --------
    >>> one_of("preset", ["tiny"], ["tiny", "small"])
    Traceback (most recent call last):
    TypeError: preset must be one name, got ['tiny']: give one of tiny, small
    """
    names = [str(candidate) for candidate in known]
    if not isinstance(name, str):
        raise TypeError(f"{kind} must be one name, got {shown(name)}: give one of {', '.join(names)}")
    if name not in names:
        raise unknown(kind, name, names)
    return name


def listed(argument: str, values: Any, example: str) -> list[Any]:
    """Return the values of an argument as a list, or raise a TypeError if it is a single value.

    Examples
    --------
    >>> listed("seeds", 3, "[0, 1, 2]")
    Traceback (most recent call last):
    TypeError: seeds=3 must be a list, such as seeds=[0, 1, 2]
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{argument}={shown(values)} must be a list, such as {argument}={example}")
    return list(values)


def optional(package: str, advice: str) -> Any:
    """Import an optional package. If it is missing, the message of the ImportError is the advice.

    Examples
    --------
    >>> optional("no_such_package", "reports need the package no_such_package: pip install no_such_package")
    Traceback (most recent call last):
    ImportError: reports need the package no_such_package: pip install no_such_package
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        # If the package is installed but cannot be imported, its own error says why.
        missing = isinstance(error, ModuleNotFoundError) and f"{package}.".startswith(f"{error.name}.")
        if not missing:
            raise
        raise ImportError(advice, name=package.partition(".")[0]) from None


def require_callable(argument: str, value: Any) -> None:
    """Raise a TypeError for a callback that cannot be called; None means that there is no callback."""
    if value is not None and not callable(value):
        hint = ", such as monitor.watch('my model')" if hasattr(value, "watch") else ""
        raise TypeError(f"{argument} must be a function{hint}, got {type(value).__name__}")


def is_number(value: object) -> bool:
    """Tell whether a value is a real number, of Python or of numpy, and not a bool.

    Examples
    --------
    >>> is_number(0.5), is_number("0.5"), is_number(True)
    (True, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool)


def at_least(argument: str, value: Any, least: int = 1, why: str = "") -> int:
    """Return the value of an argument as an int, or raise a ValueError that names it.

    Examples
    --------
    >>> at_least("n", 0)
    Traceback (most recent call last):
    ValueError: n=0 must be at least 1
    """
    is_integer = isinstance(value, SupportsIndex) and not isinstance(value, bool)
    if is_integer:
        # Torch cannot compare a tensor with 2**63.
        value = operator.index(value)
    if not is_integer or not least <= value < 2**63:
        expected = f"at least {least}" if is_integer else f"an integer of at least {least}"
        if is_integer and value >= least:
            expected = "less than 2**63"
        raise ValueError(f"{argument}={value!r} must be {expected}" + (f": {why}" if why else ""))
    return int(value)
