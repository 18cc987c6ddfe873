"""The studio: models side by side, linked panels, each the answer to one question."""

from nextlat_viz.notebook.studio.widget import Studio, studio

__all__ = ["Studio", "studio"]
