"""Analysis: latents and models in, numbers out. No plotting, no widgets, no model loading.

The public names are listed in ``__init__.pyi``; each loads when it is first used, so that drawing a cached projection
never waits for scikit-learn or UMAP.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
