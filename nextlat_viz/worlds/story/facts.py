"""The state of many stories, and the facts that their next words depend on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

# Rows of ``meant``: the referents of "she", "he" and "it"; the last row is scratch.
SHE, HE, IT, NO_PRONOUN = range(4)
_OF_THINGS = ("takeable", "held", "visible", "known", "unfound")
_OF_PEOPLE = ("company", "receivers")
_OF_PLACES = ("elsewhere", "there", "not_there")
_OF_ALL = ("mentioned", "giving", "free", "true", "false", "always", "never")


@dataclass
class Telling:
    """The state of many stories.

    People and things are numbered together, people first. Stories are the last axis, along which numpy is fast.

    Attributes
    ----------
    place : int8 array (people + things, stories)
        Place of each; the number of places means unknown.
    holder : int8 array (things, stories)
        Person who holds it; the number of people means nobody.
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

    @classmethod
    def begin(cls, people: int, places: int, things: int, stories: int) -> Telling:
        """The state of empty stories."""
        return cls(
            place=np.full((people + things, stories), places, np.int8),
            holder=np.full((things, stories), people, np.int8),
            meant=np.full((4, stories), people + things),
            subject=np.zeros(stories, np.int64),
            about=np.zeros(stories, np.int64),
            true=np.zeros(stories, bool),
            node=np.zeros(stories, np.int64),
        )


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


class Facts:
    """A boolean table of one row per fact and one column per story, computed again at every word.

    Facts of each thing: the subject can take it, holds it, sees it; it has been found, or not. Facts of each person: is
    in the same place as the subject, can receive a thing. Facts of each place: the subject is elsewhere; the entity
    asked about is there, or is not. Facts of things and people also exist for any of them, ``*_any``, and for the
    referents of pronouns, ``*_it``, ``*_she``, ``*_he``.
    """

    def __init__(self, people: int, places: int, things: int, hands: int, stories: int) -> None:
        self.people, self.places, self.things, self.hands = people, places, things, hands
        sizes = rows(people, places, things)
        self._table = np.zeros((sum(sizes.values()), stories), bool)
        self._stories = np.arange(stories)
        self._row, start = {}, 0
        for name, size in sizes.items():
            self._row[name] = self._table[start : start + size]
            start += size
        self._row["always"][:] = True
        first = first_rows(people, places, things)

        def block(names: tuple[str, ...], size: int) -> Bool[np.ndarray, "names size stories"]:
            return self._table[first[names[0]] : first[names[0]] + len(names) * size].reshape(len(names), size, -1)

        self._of_things = block(_OF_THINGS, things)
        self._things_any = block(tuple(f"{name}_any" for name in _OF_THINGS), 1)[:, 0]
        self._things_it = block(tuple(f"{name}_it" for name in _OF_THINGS), 1)[:, 0]
        self._of_people = block(_OF_PEOPLE, people)
        self._people_any = block(tuple(f"{name}_any" for name in _OF_PEOPLE), 1)[:, 0]
        self._people_meant = block(tuple(f"{name}_she" for name in _OF_PEOPLE), 2)
        self._about = block(("about_she",), NO_PRONOUN)[0]
        self._each_person = np.arange(people, dtype=np.int8)[:, None]
        self._each_place = np.arange(places, dtype=np.int8)[:, None]
        self._each_pronoun = np.arange(NO_PRONOUN)[:, None]

    def observe(self, now: Telling, asked: Int[np.ndarray, " stories"]) -> Bool[np.ndarray, "facts stories"]:
        """Compute the table; ``asked`` is the pronoun of the entity asked about. The next call overwrites it."""
        row, stories = self._row, len(self._stories)
        people, things = now.place[: self.people], now.place[self.people :]
        subject = now.subject * stories + self._stories
        here, there = now.place.take(subject), now.place.take(now.about * stories + self._stories)
        full = (now.holder == self._each_person[:, None]).sum(1, dtype=np.int8) >= self.hands

        held = np.equal(now.holder, now.subject, out=row["held"])
        visible = np.greater(things == here, held, out=row["visible"])
        takeable = np.logical_and(visible, now.holder == self.people, out=row["takeable"])
        np.greater(takeable, full.take(subject), out=takeable)
        np.less(things, self.places, out=row["known"])
        np.logical_not(row["known"], out=row["unfound"])
        self._of_things.any(1, out=self._things_any)
        mentioned = np.less(now.meant[IT], self.people + self.things, out=row["mentioned"][0])
        it = np.where(mentioned, now.meant[IT] - self.people, 0) * stories + self._stories
        flat = self._of_things.reshape(len(_OF_THINGS), -1)
        np.logical_and(flat.take(it, axis=1), mentioned, out=self._things_it)

        company = np.equal(people, here, out=row["company"])
        np.logical_and(company, self._each_person != now.subject, out=company)
        np.greater(company, full, out=row["receivers"])
        self._of_people.any(1, out=self._people_any)
        # Before a person was mentioned these rows are arbitrary: no choice of the opening depends on them.
        meant = np.minimum(now.meant[:IT], self.people - 1) * stories + self._stories
        self._of_people.reshape(len(_OF_PEOPLE), -1).take(meant, axis=1, out=self._people_meant, mode="clip")
        np.logical_and(row["held_any"], row["receivers_any"], out=row["giving"])

        np.not_equal(self._each_place, here, out=row["elsewhere"])
        np.equal(self._each_place, there, out=row["there"])
        np.logical_not(row["there"], out=row["not_there"])
        np.equal(self._each_pronoun, asked, out=self._about)
        holder = now.holder.take(np.maximum(now.about - self.people, 0) * stories + self._stories)
        np.equal(self._each_person, holder, out=row["holders"])
        np.equal(holder, self.people, out=row["free"][0])
        np.copyto(row["true"][0], now.true)
        np.logical_not(now.true, out=row["false"][0])
        return self._table


def rows(people: int, places: int, things: int) -> dict[str, int]:
    """Number of rows of each fact, in order."""
    return {
        **dict.fromkeys(_OF_THINGS, things),
        **{f"{name}_any": 1 for name in _OF_THINGS},
        **{f"{name}_it": 1 for name in _OF_THINGS},
        **dict.fromkeys(_OF_PEOPLE, people),
        **{f"{name}_any": 1 for name in _OF_PEOPLE},
        **{f"{name}_{pronoun}": 1 for name in _OF_PEOPLE for pronoun in ("she", "he")},
        **dict.fromkeys(_OF_PLACES, places),
        **{f"about_{pronoun}": 1 for pronoun in ("she", "he", "it")},
        **dict.fromkeys(_OF_ALL, 1),
        "holders": people,
    }


def first_rows(people: int, places: int, things: int) -> dict[str, int]:
    """First row of each fact.

    Examples
    --------
    >>> first_rows(2, 3, 4)["held"]
    4
    """
    sizes = rows(people, places, things)
    ends = np.cumsum(list(sizes.values())).tolist()
    return {name: end - size for (name, size), end in zip(sizes.items(), ends, strict=True)}
