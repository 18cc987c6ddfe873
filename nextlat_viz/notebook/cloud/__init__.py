"""Clouds of one to a few million points, drawn by WebGL: `widget` is the anywidget, `latents` shows a table in it."""

from nextlat_viz.notebook.cloud.latents import latent_cloud, paint
from nextlat_viz.notebook.cloud.widget import Cloud

__all__ = ["Cloud", "latent_cloud", "paint"]
