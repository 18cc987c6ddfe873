"""HTML pages that need no running kernel: reports, episodes to step through, galleries, handouts, lessons."""

from nextlat_viz.pages.demo import demo, readme_figures
from nextlat_viz.pages.episode import Step, episode_page, steps_page
from nextlat_viz.pages.gallery import write_gallery
from nextlat_viz.pages.handout import write_handouts
from nextlat_viz.pages.lesson import write_lesson
from nextlat_viz.pages.page import write_page
from nextlat_viz.pages.report import report

__all__ = [
    "Step",
    "demo",
    "episode_page",
    "readme_figures",
    "report",
    "steps_page",
    "write_gallery",
    "write_handouts",
    "write_lesson",
    "write_page",
]
