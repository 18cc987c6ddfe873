"""Short stories about people, places and things, from a grammar with a known state."""

from nextlat_viz.worlds.story.world import Story as Story
