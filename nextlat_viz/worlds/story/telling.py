"""The state of many stories: the truth, and the node of the grammar."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

# Rows of ``meant``: the referents of "she", "he" and "it"; the last row is scratch.
SHE, HE, IT, NO_PRONOUN = range(4)


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
    """The truth after each token of many stories.

    Attributes
    ----------
    place, holder, meant : int8 arrays (entities or things or pronouns, positions, stories)
    """

    def __init__(self, now: Telling, length: int) -> None:
        stories = len(now.node)
        self.place = np.empty((len(now.place), length, stories), np.int8)
        self.holder = np.empty((len(now.holder), length, stories), np.int8)
        self.meant = np.empty((NO_PRONOUN, length, stories), np.int8)

    def keep(self, t: int, now: Telling) -> None:
        """Store the truth after token ``t``."""
        self.place[:, t], self.holder[:, t], self.meant[:, t] = now.place, now.holder, now.meant[:NO_PRONOUN]
