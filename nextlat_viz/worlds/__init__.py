"""Worlds: token sequences with a known true state.

To add a world, write a function that returns a ``World`` (a ``HiddenMarkovWorld`` needs only its matrices) and register
it with ``worlds.register("mine", mine)``. A package can list such functions in the entry points group
``nextlat_viz.worlds``; they are loaded on first use.
"""

from nextlat_viz.worlds.base import Episodes as Episodes
from nextlat_viz.worlds.base import World as World
from nextlat_viz.worlds.beliefs import BeliefTree as BeliefTree
from nextlat_viz.worlds.countdown.world import Countdown as countdown
from nextlat_viz.worlds.groups import a4, a4xz5, a5, s3, s4, s5, z60
from nextlat_viz.worlds.hmm import HiddenMarkovWorld as HiddenMarkovWorld
from nextlat_viz.worlds.hmm import bloch_walk, even, golden_mean, hmm, mess3, rrxor, sns, z1r
from nextlat_viz.worlds.othello.world import Othello as othello
from nextlat_viz.worlds.path_star import PathStar as path_star
from nextlat_viz.worlds.queens import Queens as queens
from nextlat_viz.worlds.registry import from_spec as from_spec
from nextlat_viz.worlds.registry import get as get
from nextlat_viz.worlds.registry import names as names
from nextlat_viz.worlds.registry import register as register
from nextlat_viz.worlds.registry import title as title
from nextlat_viz.worlds.story.world import Story as story
from nextlat_viz.worlds.taxi.world import taxi as _taxi
from nextlat_viz.worlds.text.facts import text_facts as text_facts
from nextlat_viz.worlds.text.world import text

for _factory in (rrxor, mess3, z1r, even, golden_mean, sns, bloch_walk, hmm, s3, a4, s4, a5, s5, a4xz5, z60, text):
    register(_factory.__name__, _factory)
for _world in (countdown, othello, path_star, queens, story):
    register(_world.name, _world)
register("taxi", _taxi)
