"""See what a transformer believes.

World -> model -> checkpoint -> latents -> analysis -> figure -> notebook. Everything public is here, listed in
``__init__.pyi``, and loads when it is first used.

Examples
--------
>>> import nextlat_viz as nlv
>>> nlv.worlds.get("rrxor").vocabulary
('0', '1')
"""

from __future__ import annotations

import importlib
from typing import Any

import lazy_loader

__version__ = "0.1.0"

_lazy_attribute, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
# Former names of subpackages, which users' notebooks may still contain.
_MOVED = {"widgets": "notebook", "evaluation": "analysis.measure"}
__all__ = sorted([*__all__, *_MOVED, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _MOVED:
        return importlib.import_module(f"{__name__}.{_MOVED[name]}")
    return _lazy_attribute(name)
