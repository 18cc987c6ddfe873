"""Countdown: make a target out of given numbers, one equation after another."""

from nextlat_viz.worlds.countdown.verdict import Verdict as Verdict
from nextlat_viz.worlds.countdown.world import Countdown as Countdown
from nextlat_viz.worlds.countdown.world import countdown as countdown
