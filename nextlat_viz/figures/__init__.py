"""Figures: results in, a plotly Figure out. No state, no mathematics.

Every function takes ``theme="auto"`` (no background, text readable on light and dark), ``"light"`` or ``"dark"``.
"""

from nextlat_viz.figures.clouds import clouds
from nextlat_viz.figures.export import one_browser, provenance_of, write
from nextlat_viz.figures.injection import injection_figure
from nextlat_viz.figures.lookahead import look_ahead_path
from nextlat_viz.figures.measures import measure
from nextlat_viz.figures.offsets import probe_offsets
from nextlat_viz.figures.prediction import prediction_bars
from nextlat_viz.figures.print import for_print, print_options
from nextlat_viz.figures.probes import every_seed, probe_overview
from nextlat_viz.figures.readout import read_out
from nextlat_viz.figures.reconstruction import reconstruction
from nextlat_viz.figures.report import report
from nextlat_viz.figures.rows import color_options
from nextlat_viz.figures.theme import template
from nextlat_viz.figures.training import loss_curves
from nextlat_viz.figures.trajectories import trajectories

__all__ = [
    "clouds",
    "color_options",
    "every_seed",
    "for_print",
    "injection_figure",
    "look_ahead_path",
    "loss_curves",
    "measure",
    "one_browser",
    "prediction_bars",
    "print_options",
    "probe_offsets",
    "probe_overview",
    "provenance_of",
    "read_out",
    "reconstruction",
    "report",
    "template",
    "trajectories",
    "write",
]
