"""Generate many stories at once, token by token: the law of the next word, and its effect on the state."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from nextlat_viz.worlds.story.facts import IT, NO_PRONOUN, Telling, facts
from nextlat_viz.worlds.story.grammar import PEOPLE, PLACES, PRONOUNS, THINGS, Tables, rules

_Rows = Int[np.ndarray, " some"]
# Effects of words, by index: none, set the subject of the sentence, set what it is about, or change the truth.
_EFFECTS = ["", "subject", "about", "go", "take", "drop", "give", "find", "ask_place"]
_SUBJECT, _ABOUT = 1, 2


class Narrator:
    """The process that generates stories.

    Each of the possible choices at a node of the grammar has a probability in proportion to its weight. ``hands`` is
    the number of things a person can hold, ``questions`` the fraction of sentences that are questions.
    """

    def __init__(self, people: int, places: int, things: int, hands: int, questions: float) -> None:
        self.people, self.places, self.things = people, places, things
        self.hands, self.questions = hands, questions
        self.names = {"PERSON": PEOPLE[:people], "PLACE": PLACES[:places], "THING": THINGS[:things]}
        grammar = rules(people, places, things, questions)
        self._pronoun_of = np.array([index % 2 for index in range(people)] + [IT] * things + [NO_PRONOUN])
        first_row, row = {}, 0
        for name, values in self._facts(self.begin(1)).items():
            first_row[name] = row
            row += len(values)
        self.tables = Tables(grammar, self.names, first_row, _EFFECTS)
        vocabulary = self.tables.vocabulary
        self._entity = _indices_in(vocabulary, (*self.names["PERSON"], *self.names["THING"]))
        self._place = _indices_in(vocabulary, self.names["PLACE"])
        self._pronoun = np.array([PRONOUNS.get(word, NO_PRONOUN) for word in vocabulary])
        changes = (self._go, self._take, self._drop, self._give, self._find, self._ask_place)
        self._changes = dict(enumerate(changes, start=_ABOUT + 1))

    def begin(self, stories: int) -> Telling:
        """The state of empty stories."""
        nobody = self.people + self.things
        return Telling(
            place=np.full((nobody, stories), self.places, np.int8),
            holder=np.full((self.things, stories), self.people, np.int8),
            meant=np.full((4, stories), nobody),
            subject=np.zeros(stories, np.int64),
            about=np.zeros(stories, np.int64),
            true=np.zeros(stories, bool),
            node=np.zeros(stories, np.int64),
        )

    def law(self, now: Telling) -> Float[np.ndarray, "choices stories"]:
        """Weight of each choice, 0 if it is not possible; normalised over choices, this is the law."""
        table = np.concatenate(list(self._facts(now).values()))
        rows = self.tables.when.take(now.node, axis=1)
        rows *= len(now.node)
        rows += np.arange(len(now.node))
        law = self.tables.weight.take(now.node, axis=1)
        law *= table.take(rows)
        return law

    def choose(self, now: Telling, uniform: Float[np.ndarray, " stories"]) -> Int[np.ndarray, " stories"]:
        """Draw one choice for each story by inversion of ``uniform`` in [0, 1)."""
        cumulative = self.law(now).cumsum(0)
        whole = cumulative[-1]
        aim = np.minimum(uniform * whole, np.nextafter(whole, 0.0))
        return (cumulative <= aim).sum(0)

    def matching(
        self, now: Telling, law: Float[np.ndarray, "choices stories"], token: Int[np.ndarray, " stories"]
    ) -> tuple[Int[np.ndarray, " stories"], Bool[np.ndarray, " stories"]]:
        """The possible choice with the given token, and whether there is one."""
        says = (self.tables.says.take(now.node, axis=1) == token) & (law > 0)
        return says.argmax(0), says.any(0)

    def by_token(self, now: Telling, law: Float[np.ndarray, "choices stories"]) -> Float[np.ndarray, "stories tokens"]:
        """The law as the distribution of the next token."""
        says, whole = self.tables.says.take(now.node, axis=1), law.sum(0)
        # After an illegal word there may be no possible choice.
        share = law / np.where(whole > 0, whole, 1.0)
        law_by_token = np.zeros((len(now.node), len(self.tables.vocabulary)))
        stories = np.arange(len(law_by_token))
        for choice in range(len(says)):
            law_by_token[stories, says[choice]] += share[choice]
        return law_by_token

    def advance(self, now: Telling, choice: Int[np.ndarray, " stories"]) -> Int[np.ndarray, " stories"]:
        """Apply the choice of each story to the state, in place, and return the tokens."""
        at = choice * self.tables.says.shape[1] + now.node
        token, does = self.tables.says.take(at), self.tables.does.take(at)
        now.node = self.tables.then.take(at)
        stories = np.arange(len(token))
        named = self._entity.take(token)
        entity = np.where(named >= 0, named, now.meant[self._pronoun.take(token), stories])
        now.meant[self._pronoun_of.take(entity), stories] = entity
        np.copyto(now.subject, entity, where=does == _SUBJECT)
        np.copyto(now.about, entity, where=does == _ABOUT)
        for effect, change in self._changes.items():
            rows = (does == effect).nonzero()[0]
            if rows.size:
                change(now, rows, entity[rows], self._place[token[rows]])
        return token

    def _facts(self, now: Telling) -> dict[str, Bool[np.ndarray, "rows stories"]]:
        return facts(now, self.places, self.hands, self._pronoun_of.take(now.about))

    def _go(self, now: Telling, rows: _Rows, entity: _Rows, place: _Rows) -> None:
        subject = now.subject[rows]
        now.place[subject, rows] = place
        carried, carrier = (now.holder[:, rows] == subject).nonzero()
        now.place[self.people + carried, rows[carrier]] = place[carrier]

    def _take(self, now: Telling, rows: _Rows, entity: _Rows, place: _Rows) -> None:
        now.holder[entity - self.people, rows] = now.subject[rows]

    def _drop(self, now: Telling, rows: _Rows, entity: _Rows, place: _Rows) -> None:
        now.holder[entity - self.people, rows] = self.people

    def _give(self, now: Telling, rows: _Rows, entity: _Rows, place: _Rows) -> None:
        now.holder[now.about[rows] - self.people, rows] = entity

    def _find(self, now: Telling, rows: _Rows, entity: _Rows, place: _Rows) -> None:
        now.place[entity, rows] = now.place[now.subject[rows], rows]

    def _ask_place(self, now: Telling, rows: _Rows, entity: _Rows, place: _Rows) -> None:
        now.true[rows] = now.place[now.about[rows], rows] == place


def _indices_in(vocabulary: tuple[str, ...], names: tuple[str, ...]) -> Int[np.ndarray, " tokens"]:
    """Index of each word in the names, -1 for other words."""
    return np.array([names.index(word) if word in names else -1 for word in vocabulary])
