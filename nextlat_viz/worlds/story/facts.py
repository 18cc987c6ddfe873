"""The state of many stories, and the facts that their next words depend on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

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


def facts(
    now: Telling, places: int, hands: int, asked: Int[np.ndarray, " stories"]
) -> dict[str, Bool[np.ndarray, "rows stories"]]:
    """What the next words depend on, by name; ``asked`` is the pronoun of the entity asked about.

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
    any_of_things, any_of_people = of_things.any(1), of_people.any(1)
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
