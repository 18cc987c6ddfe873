"""Linear probes: what can be read from a latent by a linear map, with the controls that make the score meaningful.

`probe` fits one and `probe_sweep` fits many at once, also to targets some steps ahead. The public names are listed in
``nextlat_viz/analysis/__init__.pyi``.
"""
