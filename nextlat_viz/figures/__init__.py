"""Figures of results, one function each, without state.

Every function takes ``theme="auto"`` (no background, text readable on light and dark), ``"light"`` or ``"dark"``.
"""

from nextlat_viz.figures.bars import prediction_bars as prediction_bars
from nextlat_viz.figures.bars import read_out_figure as read_out_figure
from nextlat_viz.figures.clouds import clouds as clouds
from nextlat_viz.figures.compose import compose as compose
from nextlat_viz.figures.compose import contact_sheet as contact_sheet
from nextlat_viz.figures.compose import for_print as for_print
from nextlat_viz.figures.emergence import clouds_over_training as clouds_over_training
from nextlat_viz.figures.export import one_browser as one_browser
from nextlat_viz.figures.export import write_figure as write_figure
from nextlat_viz.figures.injection import injection_figure as injection_figure
from nextlat_viz.figures.lookahead import look_ahead_path as look_ahead_path
from nextlat_viz.figures.measures import measure_figure as measure_figure
from nextlat_viz.figures.measures import probe_offsets as probe_offsets
from nextlat_viz.figures.paper import print_options as print_options
from nextlat_viz.figures.probes import probe_overview as probe_overview
from nextlat_viz.figures.provenance import figure_caption as figure_caption
from nextlat_viz.figures.provenance import provenance_of as provenance_of
from nextlat_viz.figures.reading import string_figure as string_figure
from nextlat_viz.figures.reconstruction import maps_side_by_side as maps_side_by_side
from nextlat_viz.figures.reconstruction import reconstruction as reconstruction
from nextlat_viz.figures.recursion import thinking_boards as thinking_boards
from nextlat_viz.figures.recursion import thinking_curves as thinking_curves
from nextlat_viz.figures.rows import color_options as color_options
from nextlat_viz.figures.seeds import claims_figure as claims_figure
from nextlat_viz.figures.seeds import every_seed as every_seed
from nextlat_viz.figures.theme import template as template
from nextlat_viz.figures.training import headline_curves as headline_curves
from nextlat_viz.figures.training import loss_curves as loss_curves
from nextlat_viz.figures.training import training_curves as training_curves
from nextlat_viz.figures.trajectories import trajectories as trajectories
