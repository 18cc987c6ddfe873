"""Hugging Face models: load them without running their code, fine-tune them with NextLat, load the result."""
