"""Measures of models: the result, the decorator that makes one, and `evaluate`, which takes all that fit.

``Measure`` is the result of every measure. ``@measure`` turns a function of models into one. ``evaluate`` takes every
registered measure that fits of every checkpoint. The public names are listed in ``__init__.pyi``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
