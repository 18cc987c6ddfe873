"""Hidden Markov worlds: exact beliefs and floors, and the processes of the literature."""

from nextlat_viz.worlds.hmm.world import HiddenMarkovWorld as HiddenMarkovWorld
