"""Evaluation: every measure that fits, over every checkpoint and seed, in one tidy table."""

from nextlat_viz.evaluation.battery import BATTERY, battery
from nextlat_viz.evaluation.run import Evaluation, csv_bytes, evaluate, write
from nextlat_viz.evaluation.tables import RESULTS, belief_table, by_objective, markdown, results

__all__ = [
    "BATTERY",
    "RESULTS",
    "Evaluation",
    "battery",
    "belief_table",
    "by_objective",
    "csv_bytes",
    "evaluate",
    "markdown",
    "results",
    "write",
]
