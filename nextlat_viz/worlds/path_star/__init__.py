"""Path-Star: find the path along one arm of a star from its shuffled edges."""

from nextlat_viz.worlds.path_star.world import PathStar as PathStar
