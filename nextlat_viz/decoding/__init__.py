"""Decoding: what predicts the next token, and how text is made of it."""

from nextlat_viz.decoding.generation import Generated, generate
from nextlat_viz.decoding.predictor import ModelPredictor, Predictor, Reader, UniformLegal, WorldPredictor, as_predictor

__all__ = [
    "Generated",
    "ModelPredictor",
    "Predictor",
    "Reader",
    "UniformLegal",
    "WorldPredictor",
    "as_predictor",
    "generate",
]
