"""Checked exercises of the course: check an answer, get a hint, see the solution, lock a prediction, keep progress.

Examples
--------
>>> from nextlat_viz import course
>>> course.check("belief_update", ...)
belief_update: not filled in yet
...
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
