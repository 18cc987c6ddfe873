"""The world ``story`` as one would write it for one story at a time: the same law, with ``random`` and dicts."""

from __future__ import annotations

import random
from collections.abc import Iterator

PEOPLE = {"anna": "she", "ben": "he", "clara": "she", "david": "he"}
PLACES = ("kitchen", "garden", "hall", "attic", "cellar")
THINGS = ("ball", "key", "book", "lamp")
OBJECT = {"she": "her", "he": "him"}
HANDS, QUESTIONS, LENGTH = 2, 0.25, 128
GRAMMAR = (
    "and down dropped found gave grabbed handed has he her him in is it met no nobody picked put ran saw she the to "
    "took up walked was went where who yes"
)
VOCABULARY = (".", ",", "?", *GRAMMAR.split(), *PEOPLE, *PLACES, *THINGS)
TOKEN = {word: index for index, word in enumerate(VOCABULARY)}
VERBS = {"went": 2, "walked": 2, "ran": 2, "took": 3, "grabbed": 3, "picked": 3, "dropped": 1, "put": 1} | {
    "gave": 5,
    "handed": 5,
    "saw": 1,
    "met": 1,
    "found": 6,
}


class Teller:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.words: list[str] = []
        self.place: dict[str, str] = {}
        self.holder: dict[str, str] = {}
        self.meant: dict[str, str] = {}
        for person in PEOPLE:
            self.place[person] = rng.choice(PLACES)

    def say(self, *words: str) -> None:
        self.words.extend(words)

    def mention(self, name: str) -> str:
        self.meant[PEOPLE.get(name, "it")] = name
        return name

    def thing(self, options: list[str], all_of: int = 1) -> str:
        """Name one of the things, or say "it" where it may mean one of them."""
        if self.meant.get("it") in options and self.rng.random() < 1 / (1 + all_of):
            self.say("it")
            return self.meant["it"]
        name = self.rng.choice(options)
        self.say("the", self.mention(name))
        return name

    def person(self, options: list[str]) -> str:
        pronouns = [word for word in ("she", "he") if self.meant.get(word) in options]
        word = self.rng.choice(options + pronouns)
        if word in pronouns:
            self.say(OBJECT[word])
            return self.meant[word]
        self.say(self.mention(word))
        return word

    def company(self, subject: str) -> list[str]:
        return [other for other in PEOPLE if other != subject and self.place[other] == self.place[subject]]

    def held(self, person: str) -> list[str]:
        return [thing for thing in THINGS if self.holder.get(thing) == person]

    def tell(self) -> None:
        word = self.rng.choice([*PEOPLE, "she", "he"])
        self.say(word)
        subject = self.mention(self.meant.get(word, word))
        self.act(subject)
        while self.rng.random() < 0.25:
            self.say("and")
            self.act(subject)
        self.say(".")

    def act(self, subject: str) -> None:
        here = self.place[subject]
        held = self.held(subject)
        company = self.company(subject)
        around = [t for t in THINGS if self.place.get(t) == here and t not in held]
        takeable = [t for t in around if t not in self.holder] if len(held) < HANDS else []
        receivers = [other for other in company if len(self.held(other)) < HANDS]
        unfound = [t for t in THINGS if t not in self.place]
        verbs = ["went", "walked", "ran"]
        verbs += ["took", "grabbed", "picked"] if takeable else []
        verbs += ["dropped", "put"] if held else []
        verbs += ["gave", "handed"] if held and receivers else []
        verbs += ["saw"] if around else []
        verbs += ["met"] if company else []
        verbs += ["found"] if unfound else []
        verb = self.rng.choices(verbs, [VERBS[v] for v in verbs])[0]
        self.say(verb)
        if verb in {"went", "walked", "ran"}:
            self.place[subject] = self.rng.choice([place for place in PLACES if place != here])
            for thing in held:
                self.place[thing] = self.place[subject]
            self.say("to", "the", self.place[subject])
        elif verb in {"took", "grabbed"}:
            self.holder[self.thing(takeable)] = subject
        elif verb == "dropped":
            del self.holder[self.thing(held)]
        elif verb in {"picked", "put"}:
            options, particle = (takeable, "up") if verb == "picked" else (held, "down")
            if self.meant.get("it") in options and self.rng.random() < 0.5:
                self.say("it", particle)
                thing = self.meant["it"]
            else:
                thing = self.mention(self.rng.choice(options))
                self.say(particle, "the", thing)
            if verb == "picked":
                self.holder[thing] = subject
            else:
                del self.holder[thing]
        elif verb in {"gave", "handed"}:
            thing = self.thing(held)
            self.say("to")
            self.holder[thing] = self.person(receivers)
        elif verb == "saw":
            self.thing(around)
        elif verb == "met":
            self.person(company)
        else:
            thing = self.mention(self.rng.choice(unfound))
            self.place[thing] = here
            self.say("the", thing)

    def anything(self) -> str:
        """Name whom or what a question is about."""
        known = list(self.place.keys() - PEOPLE.keys())
        words, weights = [*PEOPLE, "she", "he"], [1] * (len(PEOPLE) + 2)
        if known:
            words, weights = [*words, "the"], [*weights, len(THINGS)]
        if "it" in self.meant:
            words, weights = [*words, "it"], [*weights, 1]
        word = self.rng.choices(words, weights)[0]
        self.say(word)
        if word == "the":
            word = self.rng.choice(sorted(known))
            self.say(word)
        return self.mention(self.meant.get(word, word))

    def ask(self) -> None:
        known = [thing for thing in THINGS if thing in self.place]
        question = self.rng.choice(["where", "is", "who"] if known else ["where", "is"])
        self.say(question)
        if question == "where":
            self.say("is")
            about = self.anything()
            self.say("?", PEOPLE.get(about, "it"), "is", "in", "the", self.place[about], ".")
        elif question == "is":
            about = self.anything()
            true = self.rng.random() < 0.5
            others = [place for place in PLACES if place != self.place[about]]
            self.say("in", "the", self.place[about] if true else self.rng.choice(others), "?", "yes" if true else "no")
            self.say(".")
        else:
            self.say("has")
            holder = self.holder.get(self.thing(known, len(THINGS)), "nobody")
            self.say("?", holder, "has", "it", ".")
            if holder != "nobody":
                self.mention(holder)

    def story(self, length: int) -> list[str]:
        for index, person in enumerate(PEOPLE):
            self.say(*([person, "was"] if index == 0 else [",", person]), "in", "the", self.place[person])
            self.mention(person)
        self.say(".")
        while len(self.words) < length:
            # While no thing can be asked about, the other sentences share the weight of those questions.
            known = len(self.place) > len(PEOPLE)
            if self.rng.random() < (QUESTIONS if known else 2 * QUESTIONS / (3 - QUESTIONS)):
                self.ask()
            else:
                self.tell()
        return self.words[:length]


def episodes(n: int, seed: int) -> Iterator[list[int]]:
    """Stories of 128 tokens; the opening is any, of either split."""
    rng = random.Random(seed)
    for _ in range(n):
        yield [TOKEN[word] for word in Teller(rng).story(LENGTH)]
