"""The world of stories: sampling, replay, and the exact law of the next word."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.worlds import checks
from nextlat_viz.worlds.base import Episodes, Tokens, World, scrambled
from nextlat_viz.worlds.story.grammar import PEOPLE, PLACES, THINGS
from nextlat_viz.worlds.story.narrator import Narrator
from nextlat_viz.worlds.story.telling import History, Telling

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_MARKS = {".", ",", "?"}
_HELD_OUT = 0.1


class Story(World):
    """Stories whose every sentence is true when it is told; ``story`` says how they go.

    Parameters
    ----------
    narrator : Narrator
        The process that tells them.
    """

    pictures = ("map",)
    splits = ("train", "test")

    def __init__(self, narrator: Narrator) -> None:
        self.narrator = narrator
        self.name = "story"
        self.spec = {
            "name": "story",
            "people": narrator.people,
            "places": narrator.places,
            "things": narrator.things,
            "hands": narrator.hands,
            "questions": narrator.questions,
        }
        self.vocabulary = narrator.tables.vocabulary
        self.opening_length = 5 * narrator.people + 1

    @property
    def people(self) -> tuple[str, ...]:
        """Names of the people, women and men in turn."""
        return self.narrator.names["PERSON"]

    @property
    def places(self) -> tuple[str, ...]:
        """Names of the places."""
        return self.narrator.names["PLACE"]

    @property
    def things(self) -> tuple[str, ...]:
        """Names of the things."""
        return self.narrator.names["THING"]

    @property
    def state_values(self) -> dict[str, tuple[str, ...]]:
        """What the values of the states are called.

        Examples
        --------
        >>> story(places=2, things=1).state_values["where_ball"]
        ('kitchen', 'garden', 'unknown')
        """
        who, what = (*self.people, "nobody"), (*self.people, *self.things)
        return (
            {f"where_{name}": (*self.places, "unknown") for name in what}
            | {f"holder_{name}": who for name in self.things}
            | {"she": who, "he": who, "it": (*self.things, "nothing")}
        )

    def sample(
        self, n: int, length: int | None = None, seed: int = 0, *, split: str = "train", states: bool = True
    ) -> Episodes:
        """Draw stories, each cut after ``length`` tokens.

        Parameters
        ----------
        n : int
        length : int
            The opening alone takes ``opening_length`` tokens; none of it counts as something to predict.
        seed : int
        split : str
            ``"test"`` holds the tenth of all openings (who starts where) that ``"train"`` never shows.
        states : bool

        Returns
        -------
        Episodes
            With a state ``where_*`` for each person and thing, ``holder_*`` for each thing, and ``she``, ``he`` and
            ``it``, whom or what the word would mean next: all integers (n, length), named in ``state_values``.

        Examples
        --------
        >>> world = story()
        >>> print(world.decode(world.sample(1, 64, seed=5).tokens[0]))
        Anna was in the attic, Ben in the kitchen, Clara in the attic, David in the garden. He found the ball.
        David went to the attic. David found the lamp. David saw the lamp. Is Anna in the attic? Yes.
        He went to the kitchen. Where is Ben? He is in the
        """
        n, length = checks.positive("n", n), checks.episode_length(self, length)
        starts = self._openings[checks.split(self, split)]
        rng = np.random.default_rng(checks.seed(seed))
        # In the opening only the places are chosen: every fifth word.
        opening = np.zeros((self.opening_length, n), np.int64)
        opening[4::5] = starts[rng.integers(len(starts), size=n)].T
        uniform = rng.random((max(length - self.opening_length, 0), n))
        now, facts = self.narrator.begin(n)
        tokens = np.empty((length, n), np.int64)
        history = History(now, length) if states else None
        for t in range(length):
            told = t - self.opening_length
            choice = opening[t] if told < 0 else self.narrator.choose(now, facts, uniform[told])
            tokens[t] = self.narrator.advance(now, choice)
            if history:
                history.keep(t, now)
        mask = np.tile(np.arange(length) >= self.opening_length, (n, 1))
        return Episodes(np.ascontiguousarray(tokens.T), self._states(history) if history else {}, mask)

    def replay(self, tokens: Tokens) -> dict[str, np.ndarray]:
        """The true state after each token, as in ``sample``.

        Raises
        ------
        ValueError
            If a token is outside the vocabulary, or cannot follow those before it; the place is named.

        Examples
        --------
        >>> world = story(people=2, places=2, things=1)
        >>> said = "anna was in the kitchen , ben in the garden . anna found the ball . she picked it up".split()
        >>> states = world.replay([[world.vocabulary.index(word) for word in said]])
        >>> [world.state_values[name][states[name][0, -1]] for name in ("where_ball", "holder_ball", "it")]
        ['kitchen', 'anna', 'ball']
        """
        tokens = checks.tokens(tokens, self.name, self.vocabulary)
        history = History(self.narrator.begin(len(tokens))[0], tokens.shape[1])
        for t, now, _, possible in self._read(tokens):
            self._expect(tokens, t, possible)
            history.keep(t, now)
        return self._states(history)

    def next_token_probs(self, tokens: Tokens) -> Float[np.ndarray, "episodes positions tokens"]:
        """Exact distribution of the next token after each token; raises as ``replay`` does.

        Within the opening it is the law before any opening is held out: every place is as likely.

        Examples
        --------
        >>> world = story(people=2, places=2, things=1)
        >>> said = "anna was in the kitchen , ben in the garden . anna found the ball . where is it ? it is in the"
        >>> law = world.next_token_probs([[world.vocabulary.index(word) for word in said.split()]])[0, -1]
        >>> float(law[world.vocabulary.index("kitchen")])
        1.0
        """
        tokens = checks.tokens(tokens, self.name, self.vocabulary)
        law = np.zeros((*tokens.shape, len(self.vocabulary)))
        for t, now, weights, possible in self._read(tokens):
            self._expect(tokens, t, possible)
            law[:, t] = self.narrator.by_token(now, weights)
        return law

    def legal_next(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions tokens"]:
        """Tokens of probability above zero, in the opening too, which must name every person in order."""
        tokens = checks.tokens(tokens, self.name, self.vocabulary)
        legal = np.zeros((*tokens.shape, len(self.vocabulary)), bool)
        alive = np.ones(len(tokens), bool)
        for t, now, weights, possible in self._read(tokens):
            alive &= possible
            legal[:, t] = (self.narrator.by_token(now, weights) > 0) & alive[:, None]
        return legal

    def legal_first(self) -> Bool[np.ndarray, " tokens"]:
        """The name of the first person: so every opening begins."""
        return np.array([word == self.people[0] for word in self.vocabulary])

    def decode(self, tokens: ArrayLike) -> str:
        """The story as it would be printed.

        Examples
        --------
        >>> world = story()
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

    def draw(
        self, kind: str = "map", *, episode: Episodes | None = None, position: int | None = None, **options: Any
    ) -> Figure:
        """A plotly picture: ``"map"``, the places with the people and things in them.

        With an ``episode`` as it stands after ``position`` tokens, with what was told last; without one the places
        alone. Options: ``width``, ``height``.

        Raises
        ------
        UnknownNameError
            If there is no such kind or option.
        ValueError
            If ``episode`` holds more or fewer than one, or the position is outside it.
        """
        from nextlat_viz.worlds.story.draw import draw

        return draw(self, kind, episode, position, **options)

    @cached_property
    def _openings(self) -> dict[str, Int[np.ndarray, "openings people"]]:
        return openings(self.narrator.people, self.narrator.places)

    def _read(
        self, tokens: Int[np.ndarray, "episodes positions"]
    ) -> Iterator[tuple[int, Telling, np.ndarray, np.ndarray]]:
        """Position, where the stories stand after it, weights of what may follow, and whether the token could be."""
        now, facts = self.narrator.begin(len(tokens))
        law = self.narrator.law(now, facts)
        for t in range(tokens.shape[1]):
            choice, possible = self.narrator.matching(now, law, tokens[:, t])
            self.narrator.advance(now, choice)
            law = self.narrator.law(now, facts)
            yield t, now, law, possible

    def _expect(self, tokens: np.ndarray, t: int, possible: Bool[np.ndarray, " episodes"]) -> None:
        if not possible.all():
            episode = int(np.argmin(possible))
            before = self.decode(tokens[episode, max(0, t - 12) : t]) or "nothing"
            raise ValueError(
                f"episode {episode} cannot happen in world {self.name!r}: token "
                f"{self.vocabulary[tokens[episode, t]]!r} at position {t + 1} cannot follow {before!r}"
            )

    def _states(self, history: History) -> dict[str, np.ndarray]:
        what = (*self.people, *self.things)
        she, he, it = history.meant.astype(np.int64).transpose(0, 2, 1)
        nobody = self.narrator.people
        return (
            {f"where_{name}": history.place[i].T.astype(np.int64) for i, name in enumerate(what)}
            | {f"holder_{name}": history.holder[i].T.astype(np.int64) for i, name in enumerate(self.things)}
            | {"she": np.minimum(she, nobody), "he": np.minimum(he, nobody), "it": it - nobody}
        )


def story(people: int = 4, places: int = 5, things: int = 4, hands: int = 2, questions: float = 0.25) -> Story:
    """Small stories in which every sentence is true, and some ask what only the attentive reader knows.

    A story opens by saying who is where. From then on each sentence either tells of somebody who goes somewhere,
    finds, takes, drops, gives or sees something, or meets somebody, or asks: where is it, who has it, is it in that
    place? Only what can happen is told: one takes what lies in the same place while a hand is free, gives to somebody
    in the same place with a free hand, and meets who is there. Things are nowhere until somebody finds them.
    "She", "he" and "it" mean the woman, man or thing mentioned last.

    The law: the story is a Markov process whose state is what is true (who is where, who holds what, what each
    pronoun means) and the place in a grammar. At each place of the grammar there are choices with fixed weights
    (``nextlat_viz.worlds.story.grammar.rules``), and each that is possible is made in proportion to its weight. All of
    that follows from the tokens, so the law of the next token is exact. What is true changes with the word that
    settles it: after "Anna went to the kitchen", "Ben gave the key to Clara", "she picked it".

    Content, for ``splits``, is the opening: a tenth of all ways to be in places, chosen by a fixed hash, is only ever
    in ``"test"``. The opening is the prompt, so the law of every scored token is exact on either side.

    Parameters
    ----------
    people : int
        2 to 6, women and men in turn.
    places : int
        2 to 8.
    things : int
        1 to 8.
    hands : int
        Things a person can hold at a time, at least 1.
    questions : float
        Share of sentences that ask, in [0, 1].

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> world = story(people=2, places=3, things=2)
    >>> print(world.decode(world.sample(1, 47, seed=3).tokens[0]))
    Anna was in the kitchen, Ben in the hall. Ben found the ball. She went to the garden. She found the key.
    He grabbed the ball and walked to the garden. Where is the ball? It is in the garden
    """
    for argument, value, low, names in (
        ("people", people, 2, PEOPLE),
        ("places", places, 2, PLACES),
        ("things", things, 1, THINGS),
    ):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= len(names):
            raise ValueError(f"{argument} must be an integer from {low} to {len(names)}, got {value!r}")
    if isinstance(questions, bool) or not 0 <= questions <= 1:
        raise ValueError(f"questions must be a share in [0, 1], got {questions!r}")
    hands = checks.positive("hands", hands)
    return Story(Narrator(int(people), int(places), int(things), hands, float(questions)))


def openings(people: int, places: int) -> dict[str, Int[np.ndarray, "openings people"]]:
    """Every way for people to be in places, by split: a tenth of them, chosen by a fixed hash, is ``"test"``.

    Examples
    --------
    >>> parts = openings(people=2, places=3)
    >>> len(parts["train"]), parts["test"].tolist()
    (8, [[0, 1]])
    """
    index = np.arange(places**people)
    found = index[:, None] // places ** np.arange(people) % places
    order = np.argsort(scrambled(index), kind="stable")
    test = max(1, round(_HELD_OUT * len(index)))
    return {"train": found[order[test:]], "test": found[order[:test]]}
