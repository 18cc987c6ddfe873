"""Decoding: predictors of the next token, generation, and self-speculative decoding."""

from nextlat_viz.decoding.adaptive import Adaptive, DraftCosts, measure_costs
from nextlat_viz.decoding.generation import generate
from nextlat_viz.decoding.predictor import ModelPredictor, Predictor, Reader, UniformLegal, WorldPredictor, as_predictor
from nextlat_viz.decoding.result import Generated, Speculated
from nextlat_viz.decoding.speculation import speculative_generate

__all__ = [
    "Adaptive",
    "DraftCosts",
    "Generated",
    "ModelPredictor",
    "Predictor",
    "Reader",
    "Speculated",
    "UniformLegal",
    "WorldPredictor",
    "as_predictor",
    "generate",
    "measure_costs",
    "speculative_generate",
]
