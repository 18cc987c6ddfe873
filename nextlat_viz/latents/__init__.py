"""Latents: a model's states at every position, with the true states.

An `anndata.AnnData` with one row per (episode, position); `build` says what is where. Use the functions here to read
one: they work on any slice of it, after a reload, and know the names that exist. The public names are listed in
``__init__.pyi``; saved latents are read without torch, which only extraction needs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
