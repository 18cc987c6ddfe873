"""Your own text as a world: documents, tokenised by a byte-level BPE and packed end to end."""
