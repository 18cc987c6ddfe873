"""Measures of models: the result, the decorator, and `evaluate`.

``Measure`` is the result of every measure. ``@measure`` turns a function of models into a measure. ``evaluate`` runs
every registered measure that fits a checkpoint. The public names are listed in ``__init__.pyi``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
