"""Worlds: token sequences with a known true state.

To add a world, write a function that returns a ``World`` (a ``HiddenMarkovWorld`` needs only its matrices) and register
it with ``worlds.register("mine", mine)``. A package can list such functions in the entry points group
``nextlat_viz.worlds``; they are loaded on first use.
"""

from collections.abc import Callable

from nextlat_viz.worlds.base import Episodes as Episodes
from nextlat_viz.worlds.base import World as World
from nextlat_viz.worlds.beliefs import BeliefTree as BeliefTree
from nextlat_viz.worlds.countdown import Countdown as countdown
from nextlat_viz.worlds.groups import a4, a4xz5, a5, s3, s4, s5, z60
from nextlat_viz.worlds.hmm.processes import bloch_walk, even, golden_mean, hmm, mess3, rrxor, sns, z1r
from nextlat_viz.worlds.hmm.world import HiddenMarkovWorld as HiddenMarkovWorld
from nextlat_viz.worlds.othello import Othello as othello
from nextlat_viz.worlds.path_star import PathStar as path_star
from nextlat_viz.worlds.queens import Queens as queens
from nextlat_viz.worlds.registry import from_spec as from_spec
from nextlat_viz.worlds.registry import get as get
from nextlat_viz.worlds.registry import names as names
from nextlat_viz.worlds.registry import register as register
from nextlat_viz.worlds.registry import title as title
from nextlat_viz.worlds.story import Story as story
from nextlat_viz.worlds.taxi.world import taxi as _taxi
from nextlat_viz.worlds.text import text
from nextlat_viz.worlds.text.facts import text_facts as text_facts

_BUILT_IN: dict[str, Callable[..., World]] = {
    "rrxor": rrxor,
    "mess3": mess3,
    "z1r": z1r,
    "even": even,
    "golden_mean": golden_mean,
    "sns": sns,
    "bloch_walk": bloch_walk,
    "hmm": hmm,
    "path_star": path_star,
    "countdown": countdown,
    "story": story,
    "taxi": _taxi,
    "s3": s3,
    "a4": a4,
    "s4": s4,
    "a5": a5,
    "s5": s5,
    "a4xz5": a4xz5,
    "z60": z60,
    "othello": othello,
    "queens": queens,
    "text": text,
}
for _name, _factory in _BUILT_IN.items():
    register(_name, _factory)
