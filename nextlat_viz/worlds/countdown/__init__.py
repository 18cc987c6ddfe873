"""Countdown: combine given numbers into a target, one equation after another."""

from nextlat_viz.worlds.countdown.oracle import Verdict as Verdict
from nextlat_viz.worlds.countdown.world import Countdown as Countdown
