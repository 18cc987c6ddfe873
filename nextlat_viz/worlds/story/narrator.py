"""Many stories at once, token by token: what is true, what can be said, and what saying it changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.worlds.story.grammar import PEOPLE, PLACES, PRONOUNS, THINGS, Tables, rules

_EFFECTS = ["", "subject", "about", "go", "take", "drop", "give", "find", "judge"]
_SHE, _HE, _IT, _NO_PRONOUN = range(4)


@dataclass
class Telling:
    """Where each of many stories stands: what is true, and the place in the grammar.

    People and things are numbered together, people first; stories are the last axis, along which numpy is fast.

    Attributes
    ----------
    place : int8 array (people + things, stories)
        Where each is; the number of places means not told yet.
    holder : int8 array (things, stories)
        Who has it; the number of people means nobody.
    meant : int8 array (4, stories)
        Whom "she", "he" and "it" mean; the number of people and things means none yet. The last row is scratch.
    subject, about : int8 arrays (stories,)
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

    def at(self, rows: Int[np.ndarray, " some"]) -> Telling:
        """A copy of some of the stories."""
        return Telling(*(np.take(values, rows, axis=-1) for values in vars(self).values()))


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
        self.meant = np.empty((3, length, stories), np.int8)

    def keep(self, t: int, now: Telling) -> None:
        self.place[:, t], self.holder[:, t], self.meant[:, t] = now.place, now.holder, now.meant[:3]


class Narrator:
    """The process that tells stories.

    Its law: among the choices that are possible at a node of the grammar, each is made in proportion to its weight.

    Parameters
    ----------
    people, places, things : int
    hands : int
        Things a person can hold.
    questions : float
        Share of sentences that ask.
    """

    def __init__(self, people: int, places: int, things: int, hands: int, questions: float) -> None:
        self.people, self.places, self.things, self.hands = people, places, things, hands
        self.entities = people + things
        sizes = {
            **dict.fromkeys(("never", "always", "mentioned", "giving", "true", "false", "free"), 1),
            **dict.fromkeys(("takeable_any", "held_any", "visible_any", "company_any", "unfound_any", "known_any"), 1),
            **dict.fromkeys(("takeable_it", "held_it", "visible_it"), 1),
            **dict.fromkeys(("company_she", "company_he", "receivers_she", "receivers_he"), 1),
            **dict.fromkeys(("about_she", "about_he", "about_it"), 1),
            **dict.fromkeys(("company", "receivers", "holders"), people),
            **dict.fromkeys(("takeable", "held", "visible", "known", "unfound"), things),
            **dict.fromkeys(("elsewhere", "there", "not_there"), places),
        }
        ends = np.cumsum(list(sizes.values())).tolist()
        self._facts = {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}
        self.names = {"PERSON": PEOPLE[:people], "PLACE": PLACES[:places], "THING": THINGS[:things]}
        first = {name: rows.start for name, rows in self._facts.items()}
        self.tables = Tables(rules(people, places, things, questions), self.names, first, _EFFECTS)
        vocabulary = self.tables.vocabulary
        people_and_things = (*self.names["PERSON"], *self.names["THING"])
        self._entity = np.array([people_and_things.index(w) if w in people_and_things else -1 for w in vocabulary])
        self._entity = self._entity.astype(np.int8)
        self._place = np.array(
            [self.names["PLACE"].index(w) if w in self.names["PLACE"] else -1 for w in vocabulary], np.int8
        )
        self._pronoun = np.array([PRONOUNS.get(word, _NO_PRONOUN) for word in vocabulary])
        self._pronoun_of = np.array([i % 2 for i in range(people)] + [_IT] * things + [_NO_PRONOUN])
        self._each_person = np.arange(people, dtype=np.int8)[:, None]
        self._each_place = np.arange(places, dtype=np.int8)[:, None]

    def begin(self, stories: int) -> Telling:
        """Stories of which nothing has been told."""
        return Telling(
            place=np.full((self.entities, stories), self.places, np.int8),
            holder=np.full((self.things, stories), self.people, np.int8),
            meant=np.full((4, stories), self.entities, np.int8),
            subject=np.zeros(stories, np.int8),
            about=np.zeros(stories, np.int8),
            true=np.zeros(stories, bool),
            node=np.zeros(stories, np.int64),
        )

    def facts(self, now: Telling) -> Bool[np.ndarray, "facts stories"]:
        """Everything that a choice may depend on."""
        stories = np.arange(len(now.node))
        found = np.zeros((self._facts["not_there"].stop, len(stories)), bool)

        def put(name: str, values: ArrayLike) -> np.ndarray:
            found[self._facts[name]] = values
            return np.asarray(values)

        people, things = now.place[: self.people], now.place[self.people :]
        here = now.place[now.subject, stories]
        there = now.place[now.about, stories]
        held = put("held", now.holder == now.subject)
        at_hand = (things == here) & ~held
        full = np.zeros(people.shape, bool)
        for person in range(self.people):
            full[person] = (now.holder == person).sum(0, dtype=np.int8) >= self.hands
        takeable = put("takeable", at_hand & (now.holder == self.people) & ~full[now.subject, stories])
        visible = put("visible", at_hand)
        company = put("company", (people == here) & (self._each_person != now.subject))
        receivers = put("receivers", company & ~full)
        known = put("known", things < self.places)
        unfound = put("unfound", ~known)
        for name, block in (("takeable", takeable), ("held", held), ("visible", visible), ("unfound", unfound)):
            put(f"{name}_any", block.any(0))
        put("known_any", known.any(0))
        put("company_any", company.any(0))
        put("giving", held.any(0) & receivers.any(0))
        mentioned = put("mentioned", now.meant[_IT] < self.entities)
        it = np.where(mentioned, now.meant[_IT] - self.people, 0)
        for name, block in (("takeable", takeable), ("held", held), ("visible", visible)):
            put(f"{name}_it", block[it, stories] & mentioned)
        for name, pronoun in (("she", _SHE), ("he", _HE)):
            # Before the opening has named one, nobody's turn to speak has come either.
            person = np.minimum(now.meant[pronoun], self.people - 1)
            put(f"company_{name}", company[person, stories])
            put(f"receivers_{name}", receivers[person, stories])
        put("elsewhere", self._each_place != here)
        put("not_there", ~put("there", self._each_place == there))
        asked = self._pronoun_of[now.about]
        for name, pronoun in (("she", _SHE), ("he", _HE), ("it", _IT)):
            put(f"about_{name}", asked == pronoun)
        holder = now.holder[np.maximum(now.about - self.people, 0), stories]
        put("holders", self._each_person == holder)
        put("free", holder == self.people)
        put("false", ~put("true", now.true))
        found[self._facts["always"]] = True
        return found

    def law(self, now: Telling) -> Float[np.ndarray, "choices stories"]:
        """Weight of each choice, 0 where it is not possible; divided by its sum over choices, the law."""
        stories = len(now.node)
        rows = np.take(self.tables.when, now.node, axis=1)
        rows *= stories
        rows += np.arange(stories)
        law = np.take(self.tables.weight, now.node, axis=1)
        law *= np.take(self.facts(now).ravel(), rows)
        return law

    def choose(self, now: Telling, uniform: Float[np.ndarray, " stories"]) -> Int[np.ndarray, " stories"]:
        """One choice for each story from its law, by the inverse of the cumulative law at ``uniform`` in [0, 1)."""
        choice = np.zeros(len(now.node), np.int64)
        # At half of all words there is nothing to choose.
        busy = np.flatnonzero(self.tables.branches[now.node])
        cumulative = self.law(now.at(busy)).cumsum(0)
        whole = cumulative[-1]
        aim = np.minimum(uniform[busy] * whole, np.nextafter(whole, 0.0))
        choice[busy] = (cumulative <= aim).sum(0)
        return choice

    def advance(self, now: Telling, choice: Int[np.ndarray, " stories"]) -> Int[np.ndarray, " stories"]:
        """Say the word chosen in each story, in place; the tokens."""
        token = self.tables.says[choice, now.node]
        does = self.tables.does[choice, now.node]
        now.node = self.tables.then[choice, now.node]
        stories = np.arange(len(token))
        named = self._entity[token]
        entity = np.where(named >= 0, named, now.meant[self._pronoun[token], stories])
        now.meant[self._pronoun_of[entity], stories] = entity
        for effect, name in enumerate(_EFFECTS):
            if name and (rows := np.flatnonzero(does == effect)).size:
                self._change(name, now, rows, entity[rows], self._place[token[rows]])
        return token

    def _change(
        self,
        effect: str,
        now: Telling,
        rows: Int[np.ndarray, " some"],
        entity: Int[np.ndarray, " some"],
        place: Int[np.ndarray, " some"],
    ) -> None:
        """What the word does to the stories at ``rows``."""
        subject, about = now.subject[rows], now.about[rows]
        if effect == "subject":
            now.subject[rows] = entity
        elif effect == "about":
            now.about[rows] = entity
        elif effect == "go":
            now.place[subject, rows] = place
            for thing in range(self.things):
                carried = now.holder[thing, rows] == subject
                now.place[self.people + thing, rows[carried]] = place[carried]
        elif effect == "take":
            now.holder[entity - self.people, rows] = subject
        elif effect == "drop":
            now.holder[entity - self.people, rows] = self.people
        elif effect == "give":
            now.holder[about - self.people, rows] = entity
        elif effect == "find":
            now.place[entity, rows] = now.place[subject, rows]
        elif effect == "judge":
            now.true[rows] = now.place[about, rows] == place
