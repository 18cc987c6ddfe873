"""Generate many stories at once, token by token: their state, the law of the next word, and its effect on the state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from nextlat_viz.worlds.kernel import invert
from nextlat_viz.worlds.story.grammar import PEOPLE, PLACES, PRONOUNS, THINGS, Tables, rules

_Rows = Int[np.ndarray, " some"]
# Effects of words, by index: none, set the subject of the sentence, set what it is about, or change the truth.
_EFFECTS = ["", "subject", "about", "go", "take", "drop", "give", "find", "ask_place"]
_SUBJECT, _ABOUT = 1, 2
# Rows of ``meant``: the referents of "she", "he" and "it"; the last row is scratch.
SHE, HE, IT, NO_PRONOUN = range(4)
_OF_THINGS = ("takeable", "held", "visible", "known", "unfound")
_OF_PEOPLE = ("company", "receivers")


@dataclass
class Telling:
    """The state of many stories.

    People and things are numbered together, people first. Stories are the last axis, along which numpy is fast.

    Attributes
    ----------
    place : int8 array (people + things, stories)
        Place of each; the number of places means unknown.
    holder : int8 array (things, stories)
        Person who holds it; the number of people where nobody does.
    meant : int64 array (4, stories)
        Referents of "she", "he" and "it"; the number of people and things means none yet. The last row is scratch.
    subject, about : int64 arrays (stories,)
        Subject of the sentence, and the entity it gives or asks about.
    true : bool array (stories,)
        Whether the answer to "is ... in the ... ?" is yes.
    node : int64 array (stories,)
        Node of the grammar.
    """

    place: Int[np.ndarray, "entities stories"]
    holder: Int[np.ndarray, "things stories"]
    meant: Int[np.ndarray, "4 stories"]
    subject: Int[np.ndarray, " stories"]
    about: Int[np.ndarray, " stories"]
    true: Bool[np.ndarray, " stories"]
    node: Int[np.ndarray, " stories"]


class History:
    """The truth after each token of many stories; positions are the middle axis."""

    def __init__(self, now: Telling, length: int) -> None:
        stories = len(now.node)
        self.place = np.empty((len(now.place), length, stories), np.int8)
        self.holder = np.empty((len(now.holder), length, stories), np.int8)
        self.meant = np.empty((NO_PRONOUN, length, stories), np.int8)

    def keep(self, t: int, now: Telling) -> None:
        """Store the truth after token ``t``."""
        self.place[:, t], self.holder[:, t], self.meant[:, t] = now.place, now.holder, now.meant[:NO_PRONOUN]


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

    def begin(self, stories: int) -> Telling:
        """The state of empty stories."""
        entities = self.people + self.things
        return Telling(
            place=np.full((entities, stories), self.places, np.int8),
            holder=np.full((self.things, stories), self.people, np.int8),
            meant=np.full((4, stories), entities),
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
        return invert(self.law(now).cumsum(0).T, uniform)

    def matching(
        self, now: Telling, law: Float[np.ndarray, "choices stories"], token: Int[np.ndarray, " stories"]
    ) -> tuple[Int[np.ndarray, " stories"], Bool[np.ndarray, " stories"]]:
        """The possible choice with the given token, and whether there is one."""
        says = (self.tables.says.take(now.node, axis=1) == token) & (law > 0)
        return says.argmax(0), says.any(0)

    def by_token(self, now: Telling, law: Float[np.ndarray, "choices stories"]) -> Float[np.ndarray, "stories tokens"]:
        """The law as the distribution of the next token."""
        says, total = self.tables.says.take(now.node, axis=1), law.sum(0)
        # After an illegal word there may be no possible choice.
        share = law / np.where(total > 0, total, 1.0)
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
        for index, effect in enumerate(_EFFECTS[_ABOUT + 1 :], start=_ABOUT + 1):
            rows = (does == index).nonzero()[0]
            if rows.size:
                self._change(now, effect, rows, entity[rows], self._place[token[rows]])
        return token

    def _facts(self, now: Telling) -> dict[str, Bool[np.ndarray, "rows stories"]]:
        return facts(now, self.places, self.hands, self._pronoun_of.take(now.about))

    def _change(self, now: Telling, effect: str, rows: _Rows, entity: _Rows, place: _Rows) -> None:
        """Change the truth in some of the stories."""
        subject, about = now.subject[rows], now.about[rows]
        match effect:
            case "go":
                now.place[subject, rows] = place
                carried, carrier = (now.holder[:, rows] == subject).nonzero()
                now.place[self.people + carried, rows[carrier]] = place[carrier]
            case "take":
                now.holder[entity - self.people, rows] = subject
            case "drop":
                now.holder[entity - self.people, rows] = self.people
            case "give":
                now.holder[about - self.people, rows] = entity
            case "find":
                now.place[entity, rows] = now.place[subject, rows]
            case "ask_place":
                now.true[rows] = now.place[about, rows] == place


def facts(
    now: Telling, places: int, hands: int, asked: Int[np.ndarray, " stories"]
) -> dict[str, Bool[np.ndarray, "rows stories"]]:
    """The facts that the next words depend on, by name; ``asked`` is the pronoun of the entity asked about.

    Facts of each thing: the subject can take it, holds it, sees it; it has been found, or not. Facts of each person: is
    in the same place as the subject, can receive a thing; has the thing asked about. Facts of each place: the subject
    is elsewhere; the entity asked about is there, or is not. Facts of things and people also exist for any of them,
    ``*_any``, and for the referents of pronouns, ``*_it``, ``*_she``, ``*_he``. All other facts have one row.
    """
    stories, things = np.arange(len(now.node)), len(now.holder)
    people = len(now.place) - things
    each_person = np.arange(people, dtype=np.int8)[:, None]
    each_place = np.arange(places, dtype=np.int8)[:, None]
    here, there = now.place[now.subject, stories], now.place[now.about, stories]
    full = (now.holder == each_person[:, None]).sum(1, dtype=np.int8) >= hands

    held = now.holder == now.subject
    visible = (now.place[people:] == here) & ~held
    known = now.place[people:] < places
    takeable = visible & (now.holder == people) & ~full[now.subject, stories]
    of_things = np.stack([takeable, held, visible, known, ~known])
    company = (now.place[:people] == here) & (each_person != now.subject)
    of_people = np.stack([company, company & ~full])
    any_of_things, any_of_people = (np.logical_or.reduce(some, axis=1) for some in (of_things, of_people))
    mentioned = now.meant[IT] < people + things
    it = np.where(mentioned, now.meant[IT] - people, 0)
    # Before a person was mentioned these rows are arbitrary: no choice of the opening depends on them.
    she, he = np.minimum(now.meant[:IT], people - 1)
    holder = now.holder[np.maximum(now.about - people, 0), stories]
    always = np.ones(len(stories), bool)
    rows = {
        **dict(zip(_OF_THINGS, of_things, strict=True)),
        **{f"{name}_any": row for name, row in zip(_OF_THINGS, any_of_things, strict=True)},
        **{f"{name}_it": row for name, row in zip(_OF_THINGS, of_things[:, it, stories] & mentioned, strict=True)},
        **dict(zip(_OF_PEOPLE, of_people, strict=True)),
        **{f"{name}_any": row for name, row in zip(_OF_PEOPLE, any_of_people, strict=True)},
        **{f"{name}_she": row for name, row in zip(_OF_PEOPLE, of_people[:, she, stories], strict=True)},
        **{f"{name}_he": row for name, row in zip(_OF_PEOPLE, of_people[:, he, stories], strict=True)},
        "holders": each_person == holder,
        "elsewhere": each_place != here,
        "there": each_place == there,
        "not_there": each_place != there,
        "about_she": asked == SHE,
        "about_he": asked == HE,
        "about_it": asked == IT,
        "mentioned": mentioned,
        "giving": any_of_things[_OF_THINGS.index("held")] & any_of_people[_OF_PEOPLE.index("receivers")],
        "free": holder == people,
        "true": now.true,
        "false": ~now.true,
        "always": always,
        "never": ~always,
    }
    return {name: values.reshape(-1, len(stories)) for name, values in rows.items()}


def _indices_in(vocabulary: tuple[str, ...], names: tuple[str, ...]) -> Int[np.ndarray, " tokens"]:
    """Index of each word in the names, -1 for other words."""
    return np.array([names.index(word) if word in names else -1 for word in vocabulary])
