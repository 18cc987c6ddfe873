"""Where many stories stand: what is true in each, and the place in the grammar."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

# Rows of ``meant``: whom "she", "he" and "it" mean; the last is scratch, for what no pronoun means.
SHE, HE, IT, NO_PRONOUN = range(4)


@dataclass
class Telling:
    """Where each of many stories stands.

    People and things are numbered together, people first; stories are the last axis, along which numpy is fast.

    Attributes
    ----------
    place : int8 array (people + things, stories)
        Where each is; the number of places means not told yet.
    holder : int8 array (things, stories)
        Who has it; the number of people means nobody.
    meant : int64 array (4, stories)
        Whom "she", "he" and "it" mean; the number of people and things means none yet. The last row is scratch.
    subject, about : int64 arrays (stories,)
        Whose sentence it is, and whom or what it gives or asks about.
    true : bool array (stories,)
        Whether the answer to "is ... in the ... ?" is yes.
    node : int64 array (stories,)
        Place in the grammar.
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
        """Stories of which nothing has been told."""
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
    """What was true after each token of many stories.

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
        """Note what is true after token ``t``."""
        self.place[:, t], self.holder[:, t], self.meant[:, t] = now.place, now.holder, now.meant[:NO_PRONOUN]
