"""Panels of the studio, grouped by the questions that they answer about a model."""
