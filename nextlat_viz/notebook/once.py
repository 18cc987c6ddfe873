"""Values that take a while, computed once by name, whichever thread asks first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Once:
    """Values by name. One thread computes; another that asks for the same meanwhile waits for it, and no other does.

    Parameters
    ----------
    most : int, optional
        How many values to keep, those asked for last; default all.

    Examples
    --------
    >>> once = Once(most=2)
    >>> [once.get(name, lambda: f"{name}!") for name in "abc"]
    ['a!', 'b!', 'c!']
    >>> "a" in once, once.peek("c")
    (False, 'c!')
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._guard = threading.Lock()
        # One lock a name, while it is computed: whoever needs another value must not wait for this one.
        self._locks: dict[Hashable, threading.RLock] = {}

    def __contains__(self, name: Hashable) -> bool:
        with self._guard:
            return name in self._values

    def __len__(self) -> int:
        return len(self._values)

    def get(self, name: Hashable, compute: Callable[[], T]) -> T:
        """Return a value, computed if it is not there; what computing raises is raised, and not kept."""
        with self._guard:
            if name in self._values:
                self._values.move_to_end(name)
                known: T = self._values[name]
                return known
            lock = self._locks.setdefault(name, threading.RLock())
        with lock:
            with self._guard:
                if name in self._values:
                    return self._values[name]
            value = compute()
            self.keep(name, value)
        return value

    def peek(self, name: Hashable, default: Any = None) -> Any:
        """Return a value if it is there."""
        with self._guard:
            return self._values.get(name, default)

    def keep(self, name: Hashable, value: Any) -> None:
        """Keep a value that was computed elsewhere."""
        with self._guard:
            self._values[name] = value
            self._values.move_to_end(name)
            self._locks.pop(name, None)
            while self._most is not None and len(self._values) > self._most:
                self._values.popitem(last=False)

    def drop(self, name: Hashable) -> None:
        """Forget a value, if it is there."""
        with self._guard:
            self._values.pop(name, None)
