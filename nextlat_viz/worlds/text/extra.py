"""Packages that only text needs."""

from __future__ import annotations

import importlib
from typing import Any


def package(name: str) -> Any:
    """An optional package, imported.

    Raises
    ------
    ImportError
        If it is not installed; the message says how to install it.

    Examples
    --------
    >>> package("json").dumps([1])
    '[1]'
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if error.name != name:
            raise
        raise ImportError(
            f"the world 'text' needs the package {name}: pip install \"nextlat-viz[text]\"", name=name
        ) from None
