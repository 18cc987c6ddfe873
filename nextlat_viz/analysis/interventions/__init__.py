"""Interventions on hidden states: edit a state so that a probe reads a target, and compare the predictions that follow.

The public names are listed in ``nextlat_viz/analysis/__init__.pyi``.
"""
