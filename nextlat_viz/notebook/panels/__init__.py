"""The panels: one file for each question about a model."""
