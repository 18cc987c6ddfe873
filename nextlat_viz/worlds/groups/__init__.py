"""Word problems of finite groups: predict the product of all elements read so far."""

from nextlat_viz.worlds.groups.named import a4 as a4
from nextlat_viz.worlds.groups.named import a4xz5 as a4xz5
from nextlat_viz.worlds.groups.named import a5 as a5
from nextlat_viz.worlds.groups.named import s3 as s3
from nextlat_viz.worlds.groups.named import s4 as s4
from nextlat_viz.worlds.groups.named import s5 as s5
from nextlat_viz.worlds.groups.named import z60 as z60
from nextlat_viz.worlds.groups.world import GroupWorld as GroupWorld
