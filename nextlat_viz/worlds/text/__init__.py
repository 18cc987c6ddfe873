"""Your own text as a world: documents, tokenised by a byte-level BPE and packed end to end."""

from nextlat_viz.worlds.text.world import Text as Text
from nextlat_viz.worlds.text.world import text as text
