"""Presets, the training loop, sweeps, and checkpoints with their cards.

The public names are listed in ``__init__.pyi``. Lightning Fabric takes over a second to import, and only training
needs it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
