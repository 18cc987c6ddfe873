"""Short stories about people, places and things, from a grammar with a known state."""
