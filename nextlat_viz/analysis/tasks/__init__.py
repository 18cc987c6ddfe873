"""Measures of single tasks: equations of Countdown, paths of Path-Star, states of word problems."""

from nextlat_viz.analysis.tasks.countdown import equation_validity
from nextlat_viz.analysis.tasks.groups import state_tracking
from nextlat_viz.analysis.tasks.path_star import path_accuracy

__all__ = ["equation_validity", "path_accuracy", "state_tracking"]
