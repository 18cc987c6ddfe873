"""The N-queens puzzle: complete a board on which some queens are given."""

from nextlat_viz.worlds.queens.world import Queens as Queens
