"""Widgets: live figures with controls, linked through a shared `ViewState`. No mathematics in here.

The public names are listed in ``__init__.pyi``; each loads when it is first used.

Examples
--------
>>> from nextlat_viz.notebook import LatentExplorer, ProbeLab, ViewState
>>> state = ViewState("rrxor/next_token", "rrxor/nextlat")
>>> explorer, lab = LatentExplorer(state=state), ProbeLab(state=state)
>>> explorer.state is lab.state
True
>>> explorer.close(), lab.close()
(None, None)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
