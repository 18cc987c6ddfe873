"""Clouds of up to a few million points, drawn by WebGL: `widget` has the anywidget, `latents` shows tables in it."""

from nextlat_viz.notebook.cloud.latents import latent_cloud as latent_cloud
from nextlat_viz.notebook.cloud.latents import paint as paint
from nextlat_viz.notebook.cloud.widget import Cloud as Cloud
