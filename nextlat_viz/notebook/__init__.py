"""Widgets: live figures with controls, linked through a shared `ViewState`. No mathematics in here.

Examples
--------
>>> state = ViewState("rrxor/next_token", "rrxor/nextlat")
>>> explorer, lab = LatentExplorer(state=state), ProbeLab(state=state)
>>> explorer.state is lab.state
True
>>> explorer.close(), lab.close()
(None, None)
"""

from nextlat_viz.notebook.panels.training import LossMonitor
from nextlat_viz.notebook.panels.world import EpisodeStepper
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.notebook.widgets import LatentExplorer, ProbeLab, TrajectoryCompare

__all__ = ["EpisodeStepper", "LatentExplorer", "LossMonitor", "ProbeLab", "TrajectoryCompare", "ViewState"]
