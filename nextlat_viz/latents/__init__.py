"""Latents: a model's states at every position, with the true states.

A table of latents is an `anndata.AnnData` with one row per (episode, position); `build` describes its layout. Read it
with the functions here: they work on any slice and after a reload, and suggest the nearest name for a wrong one. The
public names are listed in ``__init__.pyi``. Only extraction needs torch, reading a saved table does not.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
