"""The format of a lesson's JSON file, and its checks against the models that it is opened on."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from nextlat_viz import io
from nextlat_viz.errors import one_of, shown, unknown
from nextlat_viz.notebook import colors
from nextlat_viz.notebook.panels.what_if import named_targets
from nextlat_viz.notebook.scene import Scene
from nextlat_viz.notebook.sources import common_steps
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.training.card import Card, read_card
from nextlat_viz.training.checkpoint import find

_HERE = Path(__file__).parent
_FIXED = ("world", "space")
Text: TypeAlias = Annotated[str, Field(min_length=1, max_length=400)]
Short: TypeAlias = Annotated[str, Field(min_length=1, max_length=80)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class WhatIf(_Strict):
    """Target of the panel *What if*, an entry of its list *to*, and its distance."""

    to: str | int | float
    distance: Literal["covariance", "euclidean"] = "covariance"


class Setting(_Strict):
    """Settings of a step. Those that it does not name stay as the steps before have set them."""

    episode: int = 0
    position: int = 1
    color: str = ""
    layer: str = ""
    target: str = ""
    filter: dict[str, list[str | int | float | bool]] = {}
    selection: list[Annotated[list[int], Field(min_length=2, max_length=2)]] = []
    training_step: int | None = None
    view: str = ""
    beside: str = ""
    detail: str = ""
    large: str | None = None
    what_if: WhatIf | None = None


class Ask(_Strict):
    """A question that the user answers before the step is shown."""

    question: Text
    options: list[Short] = Field(min_length=2, max_length=4)
    answer: str

    @model_validator(mode="after")
    def _answer_is_an_option(self) -> Ask:
        one_of("answer", self.answer, self.options)
        if len(set(self.options)) < len(self.options):
            raise ValueError("two options are the same")
        return self


class LessonStep(_Strict):
    """A step: set the state, frame a panel, and say what to look at in it."""

    look: Text
    panel: str
    set: Setting = Setting()
    ask: Ask | None = None


class Lesson(_Strict):
    """A lesson: its world, the models that its texts are about, and its steps.

    Attributes
    ----------
    title, world : str
    models : list of str
        Checkpoints by name. The lesson opens on exactly these; if empty, on any models of its world.
    steps : list of LessonStep

    Examples
    --------
    >>> step = {"look": "Both predict 0 and 1 alike.", "panel": "next", "set": {"episode": 3, "position": 5}}
    >>> read_lesson({"title": "Two models", "world": "rrxor", "steps": [step]}).steps[0].set.position
    5
    """

    title: Short
    world: str
    models: list[str] = []
    steps: list[LessonStep] = Field(min_length=1, max_length=40)
    _source: str = PrivateAttr("lesson")

    @property
    def name(self) -> str:
        """The name of the lesson's file, without the ending."""
        return self._source.removesuffix(".json")

    def settings(self, number: int) -> dict[str, Any]:
        """Return all settings at a step, counted from 0: its own, and earlier ones that no later step replaces."""
        settings: dict[str, Any] = {"filter": {}, "selection": (), "training_step": None}
        for step in self.steps[: number + 1]:
            settings |= {name: getattr(step.set, name) for name in step.set.model_fields_set}
        settings["selection"] = tuple((episode, position) for episode, position in settings["selection"])
        return settings

    def arrangement(self, number: int) -> dict[str, Any]:
        """Return the arrangement of the panels at a step, with the framed panel in sight."""
        settings, panel = self.settings(number), self.steps[number].panel
        chosen: dict[str, Any] = {
            name: settings[name] for name in ("view", "beside", "detail", "large") if name in settings
        }
        in_sight = (*_FIXED, chosen.get("beside"), chosen.get("large"))
        return chosen if panel in in_sight else chosen | {"detail": panel}

    def fits(self, state: ViewState, world: str) -> bool:
        """Whether the lesson is about the models of a world of the state."""
        sources = state.sources_of(world)
        return self.is_about(sources[0].world_name, (source.weights for source in sources))

    def is_about(self, world: str, weights: Iterable[str]) -> bool:
        """Whether the lesson is about the models with these weights."""
        return world == self.world and (not self.models or list(weights) == [_weights(name) for name in self.models])

    def other_models(self) -> ValueError:
        """Return the error for models that the lesson is not about."""
        about = " and ".join(self.models) or f"models of the world {self.world!r}"
        return ValueError(f"the lesson is about {about}, and the studio shows other models: open it with these")

    def check(self, state: ViewState, panels: Collection[str]) -> str:
        """Check everything that the lesson names, and return the state's name for the lesson's world.

        Raises
        ------
        ValueError
            For an unknown name; tells the file, the step and the key. The state stays as it is.
        """
        with _at(self._source, "models" if self.models else "world"):
            names = [world for world in (state.world, *state.worlds) if self.fits(state, world)]
            if not names:
                raise self.other_models()
        scene = state.load(names[0], None)
        for number, step in enumerate(self.steps):
            settings, at = self.settings(number), functools.partial(_at, f"{self._source}, step {number + 1}")
            with at("panel"):
                one_of("panel", step.panel, panels)
                if settings.get("large") not in (None, step.panel):
                    raise ValueError(f"{step.panel!r} is out of sight while {settings['large']!r} is large")
            for key in sorted(step.set.model_fields_set | ({"episode", "position"} & set(settings))):
                with at(f"set.{key}"):
                    _check(key, settings, state, names[0], scene, panels)
        return names[0]


def _check(
    key: str, settings: Mapping[str, Any], state: ViewState, world: str, scene: Scene, panels: Collection[str]
) -> None:
    """Raise ValueError if a setting names something unknown."""
    value = settings[key]
    names: dict[str, Callable[[], Any]] = {
        "color": lambda: colors.options(scene).values(),
        "layer": lambda: scene.sites,
        "target": lambda: scene.targets,
        "view": lambda: ("pca", "umap", *scene.placing),
        "beside": lambda: [name for name in panels if name not in _FIXED],
        "detail": lambda: [name for name in panels if name not in _FIXED],
        "large": lambda: panels,
    }
    if key in names and value is not None:
        one_of({"color": "colour", "beside": "panel", "detail": "panel", "large": "panel"}.get(key, key), value,
               names[key]())  # fmt: skip
    elif key == "filter":
        scene.known_filter(value)
    elif key == "training_step" and value is not None:
        one_of("training step", str(value), map(str, common_steps(state.sources_of(world))))
    elif key == "selection" and len(scene.rows(value)) < len(value):
        raise ValueError(f"got {shown(value)}, which has (episode, position) pairs that are not there")
    elif key == "episode" and value not in scene.episodes:
        raise ValueError(f"no episode {value}: there are {len(scene.episodes)}, from {scene.episodes[0]}")
    elif key == "position":
        places = scene.positions(settings["episode"]) if settings.get("episode") in scene.episodes else [value]
        if value not in places:
            raise ValueError(f"no position {value} in this episode: it has {places[0]} to {places[-1]}")
    elif key == "what_if" and value is not None:
        target = settings.get("target", scene.targets[0])
        known = [name for _, name in named_targets(scene, target)]
        if value.to not in known:
            raise unknown(f"target of {target!r}:", value.to, map(str, known))


def read_lesson(source: str | os.PathLike[str] | Mapping[str, Any] | Lesson) -> Lesson:
    """Read a lesson: a shipped one by its name, a JSON file by its path, or a dict.

    Raises
    ------
    UnknownNameError
        For a name that no shipped lesson has.
    ValueError
        For a file that is no lesson; tells the file, the step and the key.
    OSError
        For a file that cannot be read.

    Examples
    --------
    >>> read_lesson({"title": "A", "world": "rrxor", "steps": [{"look": "B", "panel": "next", "colour": "state"}]})
    Traceback (most recent call last):
    ...
    ValueError: lesson, step 1, colour: extra inputs are not permitted, got 'state'
    """
    if isinstance(source, Lesson):
        return source
    name, data = "lesson", source
    if not isinstance(source, Mapping):
        if not isinstance(source, (str, os.PathLike)):
            raise TypeError(f"lesson must be the name of a shipped one, the path of a JSON file, or a dict, "
                            f"got {shown(source)}")  # fmt: skip
        if isinstance(source, str) and not source.endswith(".json"):
            source = _HERE / f"{one_of('lesson', source, shipped_lessons())}.json"
        path = Path(source)
        name = path.name
        try:
            data = io.parse_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{name} is no lesson: {error}") from error
    try:
        lesson = Lesson.model_validate(data)
    except ValidationError as error:
        raise _refused(name, error) from error
    lesson._source = name
    return lesson


def _refused(name: str, error: ValidationError) -> ValueError:
    """Return an error for the first problem of a file, with the file, the step and the key."""
    problem = error.errors()[0]
    place = list(problem["loc"])
    step = ""
    if len(place) > 1 and place[0] == "steps" and isinstance(place[1], int):
        step, place = f", step {place[1] + 1}", place[2:]
    key = ".".join(map(str, place))
    text = str(problem["msg"]).removeprefix("Value error, ")
    value = "" if problem["type"] in ("missing", "value_error") else f", got {shown(problem['input'])}"
    return ValueError(f"{name}{step}{f', {key}' if key else ''}: {text[0].lower()}{text[1:]}{value}")


@contextlib.contextmanager
def _at(place: str, key: str) -> Iterator[None]:
    """Put the place in a file before the message of an error."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ValueError(f"{place}, {key}: {error}") from error


def shipped_lessons() -> list[str]:
    """Return the names of the shipped lessons."""
    return sorted(path.stem for path in _HERE.glob("*.json"))


def lessons_about(state: ViewState) -> list[Lesson]:
    """Return the shipped lessons about the models that a state shows."""
    return [lesson for lesson in map(read_lesson, shipped_lessons()) if lesson.fits(state, state.world)]


@functools.cache
def _weights(name: str) -> str:
    """Return the hash of a checkpoint's weights."""
    weights: str = read_card(find(name), Card).weights_sha256
    return weights
