"""Random legal games of Othello: the board is the state, the moves are the tokens."""
