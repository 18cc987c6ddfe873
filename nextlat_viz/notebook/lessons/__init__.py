"""Lessons: steps beside the panels of a studio, each in a JSON file that is checked before anything is changed.

Examples
--------
>>> lesson = read_lesson("beliefs")
>>> lesson.world, len(lesson.steps)
('rrxor', 8)
"""

from nextlat_viz.notebook.lessons.lesson import Lesson as Lesson
from nextlat_viz.notebook.lessons.lesson import read_lesson as read_lesson
from nextlat_viz.notebook.lessons.lesson import shipped_lessons as shipped_lessons
from nextlat_viz.notebook.lessons.rail import Rail as Rail
