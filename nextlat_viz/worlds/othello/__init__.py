"""Random legal games of Othello: the board is the state, the moves are the tokens."""

from nextlat_viz.worlds.othello.world import Othello as Othello
