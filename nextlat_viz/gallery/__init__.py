"""The gallery: every figure that fits some runs, as files, with one page that leads to them."""

from nextlat_viz.gallery.runs import Group
from nextlat_viz.gallery.write import write_gallery

__all__ = ["Group", "write_gallery"]
