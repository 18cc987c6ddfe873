"""Path-Star: find the path along one arm of a star from its shuffled edges."""

from nextlat_viz.worlds.path_star.world import PathStar as PathStar
from nextlat_viz.worlds.path_star.world import path_star as path_star
