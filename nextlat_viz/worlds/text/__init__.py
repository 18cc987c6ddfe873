"""Text of one's own as a world: documents, cut into tokens by a byte-level BPE and packed end to end."""

from nextlat_viz.worlds.text.world import Text as Text
from nextlat_viz.worlds.text.world import text as text
