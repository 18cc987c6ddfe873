"""Interventions: edit a hidden state so that a probe reads a target, and compare the predictions that follow."""
