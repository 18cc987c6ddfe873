"""Linear probes: what can be read from a latent by a linear map, with the controls that make the score meaningful."""
