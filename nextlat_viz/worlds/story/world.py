"""The story world: sampling, states and the exact law of the next word."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.worlds import checks
from nextlat_viz.worlds.base import Episodes, Tokens, World, scrambled
from nextlat_viz.worlds.story.grammar import PEOPLE, PLACES, THINGS
from nextlat_viz.worlds.story.narrator import NO_PRONOUN, History, Narrator, Telling

_MARKS = {".", ",", "?"}
_HELD_OUT = 0.1


class Story(World):
    """Short stories in which every sentence is true, with questions about the state.

    A story opens with the place of every person. In each further sentence somebody goes somewhere, finds, takes, drops,
    gives or sees a thing, or meets somebody; or the sentence is a question and its answer: where is it, who has it, is
    it in that place? Only possible events occur: people take things in the same place while a hand is free, give
    them to people in the same place with a free hand, and meet people in the same place. Things have no place until
    somebody finds them. "She", "he" and "it" mean the woman, man or thing mentioned last.

    The law: a story is a Markov process whose state is the truth (who is where, who holds what, what each pronoun
    means) and a node of a grammar. Each node has choices with fixed weights (``worlds.story.grammar.rules``); one of
    the possible choices is made, in proportion to their weights. The tokens determine the state, so the law of the next
    token is exact. The truth changes at the word that settles an event, such as the last word of "Anna went to the
    kitchen", "Ben gave the key to Clara" or "she picked it".

    The *content* of a story is its opening: a tenth of all openings, chosen by a fixed hash, occurs in ``"test"`` only.
    The opening is the prompt, so the law of every scored token is exact in both splits.

    Picture: ``"map"``, the places with the people and things in them after ``position`` tokens, and the current
    sentence; the places alone if no episode is given.

    Parameters
    ----------
    people : int
        2 to 6, women and men alternating.
    places : int
        2 to 8.
    things : int
        1 to 8.
    hands : int
        Number of things a person can hold, at least 1.
    questions : float
        Fraction of sentences that are questions, in [0, 1].

    Attributes
    ----------
    people, places, things : tuples of str
        Names of them.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> world = Story(people=2, places=3, things=2)
    >>> print(world.decode(world.sample(1, 47, seed=3).tokens[0]))
    Anna was in the kitchen, Ben in the hall. Ben found the ball. She went to the garden. She found the key.
    He grabbed the ball and walked to the garden. Where is the ball? It is in the garden
    """

    name = "story"
    pictures = ("map",)
    splits = ("train", "test")

    def __init__(
        self, people: int = 4, places: int = 5, things: int = 4, hands: int = 2, questions: float = 0.25
    ) -> None:
        self.narrator = narrator = Narrator(
            checks.integer("people", people, 2, len(PEOPLE)),
            checks.integer("places", places, 2, len(PLACES)),
            checks.integer("things", things, 1, len(THINGS)),
            checks.integer("hands", hands),
            checks.number("questions", questions),
        )
        sizes = ("people", "places", "things", "hands", "questions")
        self.spec = {"name": self.name, **{size: getattr(narrator, size) for size in sizes}}
        self.people, self.places, self.things = narrator.names.values()
        self.vocabulary = narrator.tables.vocabulary
        self.opening_length = 5 * narrator.people + 1

    @property
    def state_values(self) -> dict[str, tuple[str, ...]]:
        """Names of the values of the states.

        Examples
        --------
        >>> Story(places=2, things=1).state_values["where_ball"]
        ('kitchen', 'garden', 'unknown')
        """
        holders, entities = (*self.people, "nobody"), (*self.people, *self.things)
        return (
            {f"where_{name}": (*self.places, "unknown") for name in entities}
            | {f"holder_{name}": holders for name in self.things}
            | {"she": holders, "he": holders, "it": (*self.things, "nothing")}
        )

    def sample(
        self, n: int, length: int | None = None, seed: int = 0, *, split: str = "train", states: bool = True
    ) -> Episodes:
        """Draw stories of ``length`` tokens; the end may be in the middle of a sentence.

        The first ``opening_length`` tokens are not scored.

        Returns
        -------
        Episodes
            With a state ``where_*`` for each person and thing, ``holder_*`` for each thing, and ``she``, ``he`` and
            ``it``, the referent of each pronoun: integers (n, length), named in ``state_values``.

        Examples
        --------
        >>> world = Story()
        >>> print(world.decode(world.sample(1, 64, seed=5).tokens[0]))
        Anna was in the attic, Ben in the kitchen, Clara in the attic, David in the garden. He found the ball.
        David went to the attic. David found the lamp. David saw the lamp. Is Anna in the attic? Yes.
        He went to the kitchen. Where is Ben? He is in the
        """
        n, length, rng = checks.sampling(self, n, length, seed, split)
        starts = self._openings[split]
        # In the opening only the places, every fifth word, are chosen.
        opening = np.zeros((self.opening_length, n), np.int64)
        opening[4::5] = starts[rng.integers(len(starts), size=n)].T
        uniform = rng.random((max(length - self.opening_length, 0), n))
        now = self.narrator.begin(n)
        tokens = np.empty((length, n), np.int64)
        history = History(now, length) if states else None
        for t in range(length):
            after = t - self.opening_length
            choice = opening[t] if after < 0 else self.narrator.choose(now, uniform[after])
            tokens[t] = self.narrator.advance(now, choice)
            if history:
                history.keep(t, now)
        mask = np.tile(np.arange(length) >= self.opening_length, (n, 1))
        return Episodes(np.ascontiguousarray(tokens.T), self._states(history) if history else {}, mask)

    def replay(self, tokens: Tokens) -> dict[str, np.ndarray]:
        """Compute the states after each token, as in ``sample``.

        Examples
        --------
        >>> world = Story(people=2, places=2, things=1)
        >>> text = "anna was in the kitchen , ben in the garden . anna found the ball . she picked it up"
        >>> states = world.replay([[world.vocabulary.index(word) for word in text.split()]])
        >>> [world.state_values[name][states[name][0, -1]] for name in ("where_ball", "holder_ball", "it")]
        ['kitchen', 'anna', 'ball']
        """
        tokens = checks.tokens(self, tokens)
        history = History(self.narrator.begin(len(tokens)), tokens.shape[1])
        for t, now, _, possible in self._read(tokens):
            self._require_possible(tokens, t, possible)
            history.keep(t, now)
        return self._states(history)

    def future(self, tokens: Tokens) -> Int[np.ndarray, "episodes positions facts"]:
        """The truth, the referents of the pronouns, and the unfinished sentence."""
        tokens = checks.tokens(self, tokens)
        ends = np.array([word == "." for word in self.vocabulary])
        facts = []
        for t, now, _, possible in self._read(tokens):
            self._require_possible(tokens, t, possible)
            # The subject of a finished sentence has no effect on the next.
            sentence = np.stack([now.subject, now.about, now.true]) * ~ends[tokens[:, t]]
            facts.append(np.concatenate([now.place, now.holder, now.meant[:NO_PRONOUN], sentence, now.node[None]]))
        return np.stack(facts).transpose(2, 0, 1) if facts else np.zeros((*tokens.shape, 0), np.int64)

    def next_token_probs(self, tokens: Tokens) -> Float[np.ndarray, "episodes positions tokens"]:
        """Exact distribution of the next token after each token; raises the errors of ``replay``.

        In the opening it is the law of both splits together: all places are equally likely.

        Examples
        --------
        >>> world = Story(people=2, places=2, things=1)
        >>> text = "anna was in the kitchen , ben in the garden . anna found the ball . where is it ? it is in the"
        >>> law = world.next_token_probs([[world.vocabulary.index(word) for word in text.split()]])[0, -1]
        >>> float(law[world.vocabulary.index("kitchen")])
        1.0
        """
        tokens = checks.tokens(self, tokens)
        law = np.zeros((*tokens.shape, len(self.vocabulary)))
        for t, now, weights, possible in self._read(tokens):
            self._require_possible(tokens, t, possible)
            law[:, t] = self.narrator.by_token(now, weights)
        return law

    def legal_next(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions tokens"]:
        """Tokens of positive probability. The opening must name every person in order."""
        tokens = checks.tokens(self, tokens)
        legal = np.zeros((*tokens.shape, len(self.vocabulary)), bool)
        alive = np.ones(len(tokens), bool)
        for t, now, weights, possible in self._read(tokens):
            alive &= possible
            legal[:, t] = (self.narrator.by_token(now, weights) > 0) & alive[:, None]
        return legal

    def start_probs(self) -> Float[np.ndarray, " tokens"]:
        """Probability 1 for the name of the first person, with which every opening begins. It is not scored."""
        return np.array([float(word == self.people[0]) for word in self.vocabulary])

    def decode(self, tokens: ArrayLike) -> str:
        """Write the story with capitals and punctuation.

        Examples
        --------
        >>> world = Story()
        >>> world.decode([world.vocabulary.index(word) for word in "where is anna ? she is in the hall .".split()])
        'Where is Anna? She is in the hall.'
        """
        text, opens = "", True
        for token in np.asarray(tokens).tolist():
            word = self.vocabulary[token]
            if word in _MARKS:
                text += word
            else:
                text += (" " if text else "") + (word.capitalize() if opens or word in self.people else word)
            opens = word in {".", "?"}
        return text

    @cached_property
    def _openings(self) -> dict[str, Int[np.ndarray, "openings people"]]:
        return openings(self.narrator.people, self.narrator.places)

    def _read(
        self, tokens: Int[np.ndarray, "episodes positions"]
    ) -> Iterator[tuple[int, Telling, np.ndarray, np.ndarray]]:
        """Yield position, state after it, weights of the next choices, and whether the token is legal."""
        now = self.narrator.begin(len(tokens))
        law = self.narrator.law(now)
        for t in range(tokens.shape[1]):
            choice, possible = self.narrator.matching(now, law, tokens[:, t])
            self.narrator.advance(now, choice)
            law = self.narrator.law(now)
            yield t, now, law, possible

    def _require_possible(self, tokens: np.ndarray, t: int, possible: Bool[np.ndarray, " episodes"]) -> None:
        def reason(episode: int, place: int) -> str:
            return f" cannot follow {self.decode(tokens[episode, max(0, place - 12) : place]) or 'nothing'!r}"

        legal = np.ones(tokens.shape, bool)
        legal[:, t] = possible
        checks.require_legal(self, tokens, legal, reason)

    def _states(self, history: History) -> dict[str, np.ndarray]:
        entities = (*self.people, *self.things)
        she, he, it = history.meant.astype(np.int64).transpose(0, 2, 1)
        nobody = self.narrator.people
        return (
            {f"where_{name}": history.place[i].T.astype(np.int64) for i, name in enumerate(entities)}
            | {f"holder_{name}": history.holder[i].T.astype(np.int64) for i, name in enumerate(self.things)}
            | {"she": np.minimum(she, nobody), "he": np.minimum(he, nobody), "it": it - nobody}
        )


def openings(people: int, places: int) -> dict[str, Int[np.ndarray, "openings people"]]:
    """List all openings, the place of each person, by split: a tenth, chosen by a fixed hash, is ``"test"``.

    Examples
    --------
    >>> parts = openings(people=2, places=3)
    >>> len(parts["train"]), parts["test"].tolist()
    (8, [[0, 1]])
    """
    index = np.arange(places**people)
    choices = index[:, None] // places ** np.arange(people) % places
    order = np.argsort(scrambled(index), kind="stable")
    test = max(1, round(_HELD_OUT * len(index)))
    return {"train": choices[order[test:]], "test": choices[order[:test]]}
