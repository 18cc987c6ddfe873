"""Decoding: what predicts the next token, and how text is made of it."""

from nextlat_viz.decoding.adaptive import Adaptive, DraftCosts, measure_costs
from nextlat_viz.decoding.generation import Generated, generate
from nextlat_viz.decoding.predictor import ModelPredictor, Predictor, Reader, UniformLegal, WorldPredictor, as_predictor
from nextlat_viz.decoding.speculated import Speculated
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
