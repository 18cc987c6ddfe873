"""Projections of latents to the plane: PCA, UMAP, beliefs as a probe reads them, and their cache on disk."""
