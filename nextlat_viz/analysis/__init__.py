"""Analysis: pure functions, latents in, results out. No plotting, no widgets, no model loading.

What is listed here loads when it is first used, so that drawing a cached projection never waits for scikit-learn
or UMAP.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Measure": "measure",
    "ProbeResult": "probe_result",
    "Projection": "projection",
    "ProjectionCache": "cache",
    "Trajectory": "trajectories",
    "UmapJob": "background",
    "aligned": "projection",
    "compare_trajectories": "trajectories",
    "default_cache": "cache",
    "effective_rank": "geometry",
    "linear_cka": "geometry",
    "mean_trajectory_error": "trajectories",
    "probe": "probes",
    "probe_positions": "probes",
    "probe_sites": "probes",
    "procrustes": "geometry",
    "project": "projections",
    "project_in_background": "background",
    "read_trajectory": "trajectories",
    "same_state_spread": "geometry",
    "split_episodes": "probes",
    "trustworthiness": "geometry",
    "with_projection": "projection",
}

__all__ = [
    "Measure",
    "ProbeResult",
    "Projection",
    "ProjectionCache",
    "Trajectory",
    "UmapJob",
    "aligned",
    "compare_trajectories",
    "default_cache",
    "effective_rank",
    "linear_cka",
    "mean_trajectory_error",
    "probe",
    "probe_positions",
    "probe_sites",
    "procrustes",
    "project",
    "project_in_background",
    "read_trajectory",
    "same_state_spread",
    "split_episodes",
    "trustworthiness",
    "with_projection",
]

if TYPE_CHECKING:
    from nextlat_viz.analysis.background import UmapJob, project_in_background
    from nextlat_viz.analysis.cache import ProjectionCache, default_cache
    from nextlat_viz.analysis.geometry import (
        effective_rank,
        linear_cka,
        procrustes,
        same_state_spread,
        trustworthiness,
    )
    from nextlat_viz.analysis.measure import Measure
    from nextlat_viz.analysis.probe_result import ProbeResult
    from nextlat_viz.analysis.probes import probe, probe_positions, probe_sites, split_episodes
    from nextlat_viz.analysis.projection import Projection, aligned, with_projection
    from nextlat_viz.analysis.projections import project
    from nextlat_viz.analysis.trajectories import (
        Trajectory,
        compare_trajectories,
        mean_trajectory_error,
        read_trajectory,
    )


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"nextlat_viz.analysis.{_HOME[name]}"), name)
    raise AttributeError(f"module 'nextlat_viz.analysis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
