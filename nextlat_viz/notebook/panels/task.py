"""The task panel: how well each model does what its world asks, by the measure of that world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nextlat_viz import analysis
from nextlat_viz.analysis.measure import basic  # noqa: F401  (registers tokens_ahead)
from nextlat_viz.analysis.measure.registry import MEASURES
from nextlat_viz.figures.theme import Theme
from nextlat_viz.notebook.panel import Panel
from nextlat_viz.notebook.scene import Scene
from nextlat_viz.notebook.state import ViewState

if TYPE_CHECKING:
    from nextlat_viz.analysis import Measure

# The measure of a world is the first that fits, with options that keep it to seconds.
_MEASURES: dict[str, dict[str, Any]] = {
    "state_tracking": {"n": 200}, "path_accuracy": {"n": 200, "decodings": "greedy"}, "valid_trajectories": {"n": 200},
    "equation_validity": {"n": 200}, "tokens_ahead": {"offsets": (1, 2, 4, 8, 16), "episodes": 200},
}  # fmt: skip


class TaskPanel(Panel):
    """Products of a group past the training length, paths, rides, equations, or what is known of the tokens ahead."""

    name, question, tab = "task", "How well does the model do what its world asks?", "Task"
    follows = ("dark",)

    def __init__(self, *models: Any, state: ViewState | None = None, theme: Theme | None = None) -> None:
        super().__init__(*models, state=state, theme=theme)
        self._show()

    def _depends_on(self) -> tuple[Any, ...]:
        return (self.state.jobs.changes,)

    @property
    def measure(self) -> str:
        """Name of the world's measure; empty where there is none, or a model was given as latents."""
        return _measure_of(self.state.scene)

    @classmethod
    def unsuited(cls, state: ViewState) -> str:
        """Why nothing can be measured."""
        suited = _measure_of(state.scene)
        return "" if suited else "These models were given as latents, or their world has no task to measure."

    def _figure(self) -> Any:
        name, checkpoints = self.measure, self.state.scene.opened
        if not name:
            return self.why_not

        def compute() -> Measure:
            take, options = MEASURES[name].take, _MEASURES[name]
            first, *others = (take(checkpoint, progress=False, **options) for checkpoint in checkpoints)
            return sum(others, first)

        title = name.replace("_", " ").capitalize()
        try:
            return self._computed(("measure", name), f"{title} of these models", compute).plot(theme=self.state.theme)
        except ValueError as error:
            return str(error)


def _measure_of(scene: Scene) -> str:
    """Name of the first measure that fits all models; empty where there is none, or a model was given as latents."""
    if len(scene.opened) < len(scene.latents):
        return ""
    for name in _MEASURES:
        if name not in MEASURES:
            getattr(analysis, name)  # imports the measure, which registers it
        if all(MEASURES[name].fits(checkpoint) for checkpoint in scene.opened):
            return name
    return ""
