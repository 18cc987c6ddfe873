"""Taxi rides through the streets of a city, one compass direction at a time."""

from nextlat_viz.worlds.taxi.networks import from_networkx as from_networkx
from nextlat_viz.worlds.taxi.sources import grid as grid
from nextlat_viz.worlds.taxi.sources import streets as streets
from nextlat_viz.worlds.taxi.streets import COMPASS as COMPASS
from nextlat_viz.worlds.taxi.streets import Streets as Streets
