"""Figures of results, one function each, without state.

Every function takes ``theme="auto"`` (no background, text readable on light and dark), ``"light"`` or ``"dark"``.
"""

from nextlat_viz.figures.bars import prediction_bars, read_out_figure
from nextlat_viz.figures.clouds import clouds
from nextlat_viz.figures.compose import compose, contact_sheet, for_print
from nextlat_viz.figures.emergence import clouds_over_training
from nextlat_viz.figures.export import one_browser, write_figure
from nextlat_viz.figures.injection import injection_figure
from nextlat_viz.figures.lookahead import look_ahead_path
from nextlat_viz.figures.measures import measure_figure, probe_offsets
from nextlat_viz.figures.paper import print_options
from nextlat_viz.figures.probes import probe_overview
from nextlat_viz.figures.provenance import figure_caption, provenance_of
from nextlat_viz.figures.reading import string_figure
from nextlat_viz.figures.reconstruction import maps_side_by_side, reconstruction
from nextlat_viz.figures.recursion import thinking_boards, thinking_curves
from nextlat_viz.figures.rows import color_options
from nextlat_viz.figures.seeds import claims_figure, every_seed
from nextlat_viz.figures.theme import template
from nextlat_viz.figures.training import headline_curves, loss_curves, training_curves
from nextlat_viz.figures.trajectories import trajectories

__all__ = [
    "claims_figure",
    "clouds",
    "clouds_over_training",
    "color_options",
    "compose",
    "contact_sheet",
    "every_seed",
    "figure_caption",
    "for_print",
    "headline_curves",
    "injection_figure",
    "look_ahead_path",
    "loss_curves",
    "maps_side_by_side",
    "measure_figure",
    "one_browser",
    "prediction_bars",
    "print_options",
    "probe_offsets",
    "probe_overview",
    "provenance_of",
    "read_out_figure",
    "reconstruction",
    "string_figure",
    "template",
    "thinking_boards",
    "thinking_curves",
    "training_curves",
    "trajectories",
    "write_figure",
]
