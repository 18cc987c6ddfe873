"""HTML pages that need no running kernel: reports, episodes to step through, galleries, handouts, lessons."""

from nextlat_viz.pages.demo import demo as demo
from nextlat_viz.pages.demo import readme_figures as readme_figures
from nextlat_viz.pages.episode import Step as Step
from nextlat_viz.pages.episode import episode_page as episode_page
from nextlat_viz.pages.episode import steps_page as steps_page
from nextlat_viz.pages.gallery import write_gallery as write_gallery
from nextlat_viz.pages.handout import write_handouts as write_handouts
from nextlat_viz.pages.lesson import write_lesson as write_lesson
from nextlat_viz.pages.page import write_page as write_page
from nextlat_viz.pages.report import report as report
