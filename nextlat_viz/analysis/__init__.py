"""Analysis: pure functions, latents and models in, results out. No plotting, no widgets, no model loading.

What is listed here loads when it is first used, so that drawing a cached projection never waits for scikit-learn
or UMAP.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Injection": "injection_result",
    "InjectionPlane": "injection_planes",
    "JointProbe": "joint_probe",
    "LookAhead": "lookahead",
    "MapReconstruction": "worldmodel.reconstruction",
    "Measure": "measure",
    "Prediction": "prediction",
    "ProbeResult": "probe_result",
    "ProbeSweep": "sweeps",
    "Projection": "projection",
    "ProjectionCache": "cache",
    "ReadOut": "readout",
    "TorchLogisticProbe": "torch_probe",
    "TorchRidgeProbe": "torch_probe",
    "Trajectory": "trajectories",
    "UmapJob": "background",
    "acceptance": "speculation",
    "aligned": "projection",
    "belief_target": "injection",
    "compare_trajectories": "trajectories",
    "compression_greedy": "worldmodel.compression",
    "compression_vafa": "worldmodel.compression",
    "curvature": "shape",
    "default_cache": "cache",
    "detour_robustness": "worldmodel.detours",
    "different_histories": "shape",
    "distinction": "worldmodel.distinction",
    "effective_rank": "geometry",
    "episode_predictions": "prediction",
    "equation_validity": "tasks.countdown",
    "inject": "injection",
    "injection_plane": "injection_planes",
    "latent_geometry": "representations",
    "layer_contributions": "layers",
    "length_generalisation": "lengths",
    "linear_cka": "geometry",
    "look_ahead": "lookahead",
    "map_from_rides": "worldmodel.reconstruction",
    "map_reconstruction": "worldmodel.reconstruction",
    "mean_trajectory_error": "trajectories",
    "merge_distance": "shape",
    "next_token_test": "worldmodel.trajectories",
    "path_accuracy": "tasks.path_star",
    "path_length": "shape",
    "probe": "probes",
    "probe_positions": "probes",
    "probe_sites": "probes",
    "probe_sweep": "sweeps",
    "procrustes": "geometry",
    "project": "projections",
    "project_in_background": "background",
    "psi_rollout": "dynamics",
    "read_out": "readout",
    "read_trajectory": "trajectories",
    "reconstruct_map": "worldmodel.reconstruction",
    "rollout_divergence": "dynamics",
    "same_state_pairs": "pairs",
    "same_state_spread": "geometry",
    "similarity": "representations",
    "split_episodes": "probes",
    "state_numbers": "geometry",
    "state_tracking": "tasks.groups",
    "trajectory_shapes": "shape",
    "transition_consistency": "dynamics",
    "trustworthiness": "geometry",
    "valid_trajectories": "worldmodel.trajectories",
    "with_projection": "projection",
}

__all__ = [
    "Injection",
    "InjectionPlane",
    "JointProbe",
    "LookAhead",
    "MapReconstruction",
    "Measure",
    "Prediction",
    "ProbeResult",
    "ProbeSweep",
    "Projection",
    "ProjectionCache",
    "ReadOut",
    "TorchLogisticProbe",
    "TorchRidgeProbe",
    "Trajectory",
    "UmapJob",
    "acceptance",
    "aligned",
    "belief_target",
    "compare_trajectories",
    "compression_greedy",
    "compression_vafa",
    "curvature",
    "default_cache",
    "detour_robustness",
    "different_histories",
    "distinction",
    "effective_rank",
    "episode_predictions",
    "equation_validity",
    "inject",
    "injection_plane",
    "latent_geometry",
    "layer_contributions",
    "length_generalisation",
    "linear_cka",
    "look_ahead",
    "map_from_rides",
    "map_reconstruction",
    "mean_trajectory_error",
    "merge_distance",
    "next_token_test",
    "path_accuracy",
    "path_length",
    "probe",
    "probe_positions",
    "probe_sites",
    "probe_sweep",
    "procrustes",
    "project",
    "project_in_background",
    "psi_rollout",
    "read_out",
    "read_trajectory",
    "reconstruct_map",
    "rollout_divergence",
    "same_state_pairs",
    "same_state_spread",
    "similarity",
    "split_episodes",
    "state_numbers",
    "state_tracking",
    "trajectory_shapes",
    "transition_consistency",
    "trustworthiness",
    "valid_trajectories",
    "with_projection",
]

if TYPE_CHECKING:
    from nextlat_viz.analysis.background import UmapJob, project_in_background
    from nextlat_viz.analysis.cache import ProjectionCache, default_cache
    from nextlat_viz.analysis.dynamics import psi_rollout, rollout_divergence, transition_consistency
    from nextlat_viz.analysis.geometry import (
        effective_rank,
        linear_cka,
        procrustes,
        same_state_spread,
        state_numbers,
        trustworthiness,
    )
    from nextlat_viz.analysis.injection import belief_target, inject
    from nextlat_viz.analysis.injection_planes import InjectionPlane, injection_plane
    from nextlat_viz.analysis.injection_result import Injection
    from nextlat_viz.analysis.joint_probe import JointProbe
    from nextlat_viz.analysis.layers import layer_contributions
    from nextlat_viz.analysis.lengths import length_generalisation
    from nextlat_viz.analysis.lookahead import LookAhead, look_ahead
    from nextlat_viz.analysis.measure import Measure
    from nextlat_viz.analysis.pairs import same_state_pairs
    from nextlat_viz.analysis.prediction import Prediction, episode_predictions
    from nextlat_viz.analysis.probe_result import ProbeResult
    from nextlat_viz.analysis.probes import probe, probe_positions, probe_sites, split_episodes
    from nextlat_viz.analysis.projection import Projection, aligned, with_projection
    from nextlat_viz.analysis.projections import project
    from nextlat_viz.analysis.readout import ReadOut, read_out
    from nextlat_viz.analysis.representations import latent_geometry, similarity
    from nextlat_viz.analysis.shape import (
        curvature,
        different_histories,
        merge_distance,
        path_length,
        trajectory_shapes,
    )
    from nextlat_viz.analysis.speculation import acceptance
    from nextlat_viz.analysis.sweeps import ProbeSweep, probe_sweep
    from nextlat_viz.analysis.tasks.countdown import equation_validity
    from nextlat_viz.analysis.tasks.groups import state_tracking
    from nextlat_viz.analysis.tasks.path_star import path_accuracy
    from nextlat_viz.analysis.torch_probe import TorchLogisticProbe, TorchRidgeProbe
    from nextlat_viz.analysis.trajectories import (
        Trajectory,
        compare_trajectories,
        mean_trajectory_error,
        read_trajectory,
    )
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


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"nextlat_viz.analysis.{_HOME[name]}"), name)
    raise AttributeError(f"module 'nextlat_viz.analysis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
