"""Word problems of finite groups: predict the product of all elements read so far."""

from nextlat_viz.worlds.groups.world import GroupWorld as GroupWorld
from nextlat_viz.worlds.groups.world import a4 as a4
from nextlat_viz.worlds.groups.world import a4xz5 as a4xz5
from nextlat_viz.worlds.groups.world import a5 as a5
from nextlat_viz.worlds.groups.world import s3 as s3
from nextlat_viz.worlds.groups.world import s4 as s4
from nextlat_viz.worlds.groups.world import s5 as s5
from nextlat_viz.worlds.groups.world import z60 as z60
