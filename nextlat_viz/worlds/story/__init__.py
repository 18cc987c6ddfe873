"""Small stories about people, places and things, told by a grammar that knows who is where and who holds what."""

from nextlat_viz.worlds.story.world import Story as Story
from nextlat_viz.worlds.story.world import story as story
