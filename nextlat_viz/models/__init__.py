"""The transformer that every model shares, and the training objectives."""

from nextlat_viz.models.attention import KVCache, TransformerConfig
from nextlat_viz.models.bst import BeliefState
from nextlat_viz.models.future import JointToken, MultiToken
from nextlat_viz.models.nextlat import LatentDynamics, NextLat
from nextlat_viz.models.objective import Batch, NextToken, Objective
from nextlat_viz.models.recursive import DIS, TRM, EqualDepth, OnePass, Recursive, RecursiveNetwork, Schedule
from nextlat_viz.models.transformer import Transformer

OBJECTIVES: dict[str, type[Objective]] = {
    cls.name: cls for cls in (NextToken, NextLat, MultiToken, JointToken, BeliefState, TRM, DIS, OnePass, EqualDepth)
}
"""Classes of all objectives, by the names that ``train`` takes."""

__all__ = [
    "DIS",
    "OBJECTIVES",
    "TRM",
    "Batch",
    "BeliefState",
    "EqualDepth",
    "JointToken",
    "KVCache",
    "LatentDynamics",
    "MultiToken",
    "NextLat",
    "NextToken",
    "Objective",
    "OnePass",
    "Recursive",
    "RecursiveNetwork",
    "Schedule",
    "Transformer",
    "TransformerConfig",
]
