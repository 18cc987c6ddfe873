"""Clouds of up to a few million points, drawn by WebGL: `widget` has the anywidget, `latents` shows tables in it."""

from nextlat_viz.notebook.cloud.latents import latent_cloud, paint
from nextlat_viz.notebook.cloud.widget import Cloud

__all__ = ["Cloud", "latent_cloud", "paint"]
