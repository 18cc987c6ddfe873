"""World-model measures: how far what a model predicts is what its world allows.

All of them read a model through what it predicts, as a `decoding.Predictor`, so that the world itself and controls are
measured in the same way; none of them changes the world. Definitions follow Vafa et al. 2024, "Evaluating the world
model implicit in a generative model", arXiv:2406.03689, and Teoh et al. 2025, arXiv:2511.05963.
"""

from nextlat_viz.analysis.worldmodel.compression import compression_greedy, compression_vafa
from nextlat_viz.analysis.worldmodel.detours import detour_robustness
from nextlat_viz.analysis.worldmodel.distinction import distinction
from nextlat_viz.analysis.worldmodel.reconstruction import (
    MapReconstruction,
    map_from_rides,
    map_reconstruction,
    reconstruct_map,
)
from nextlat_viz.analysis.worldmodel.trajectories import next_token_test, valid_trajectories

__all__ = [
    "MapReconstruction",
    "compression_greedy",
    "compression_vafa",
    "detour_robustness",
    "distinction",
    "map_from_rides",
    "map_reconstruction",
    "next_token_test",
    "reconstruct_map",
    "valid_trajectories",
]
