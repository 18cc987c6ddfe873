"""The grammar of stories: words, nodes, and the choices at each node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

# Women and men alternate, so that stories use both "she" and "he".
PEOPLE = ("anna", "ben", "clara", "david", "emma", "felix")
PLACES = ("kitchen", "garden", "hall", "attic", "cellar", "library", "workshop", "stable")
THINGS = ("ball", "key", "book", "lamp", "apple", "map", "cup", "rope")
PRONOUNS = {"she": 0, "her": 0, "he": 1, "him": 1, "it": 2}
_PUNCTUATION = (".", ",", "?")


class Choice(NamedTuple):
    """One choice at a node.

    It ``says`` a word, or PERSON, THING or PLACE, which stand for one choice per name. It is possible ``when`` that
    fact of ``narrator.facts`` is true, leads to the node ``then``, and ``does`` an effect of ``Narrator.advance``.
    Possible choices have probabilities in proportion to their weights.
    """

    says: str
    when: str
    then: str
    does: str = ""
    weight: float = 1.0


Rules = dict[str, list[Choice]]


def rules(people: int, places: int, things: int, questions: float) -> Rules:
    """The grammar: the choices at each node."""
    grammar: Rules = {}
    _opening(grammar, people)
    names = ["she", "he"]
    subjects = (1 - questions) / (people + len(names))
    grammar["start"] = [
        Choice("PERSON", "always", "verb", "subject", subjects),
        *(Choice(name, "always", "verb", "subject", subjects) for name in names),
        Choice("where", "always", "where", weight=questions / 3),
        Choice("is", "always", "whether", weight=questions / 3),
        Choice("who", "known_any", "who", weight=questions / 3),
    ]
    grammar["verb"] = [
        *(Choice(verb, "always", "went", weight=2.0) for verb in ("went", "walked", "ran")),
        *(Choice(verb, "takeable_any", "took", weight=3.0) for verb in ("took", "grabbed")),
        Choice("picked", "takeable_any", "picked", weight=3.0),
        Choice("dropped", "held_any", "dropped"),
        Choice("put", "held_any", "put"),
        *(Choice(verb, "giving", "gave", weight=5.0) for verb in ("gave", "handed")),
        Choice("saw", "visible_any", "saw"),
        Choice("met", "company_any", "met"),
        Choice("found", "unfound_any", "found", weight=6.0),
    ]
    grammar["end"] = [Choice(".", "always", "start", weight=3.0), Choice("and", "always", "verb")]
    _statements(grammar)
    _questions(grammar, places, things)
    return grammar


def _opening(grammar: Rules, people: int) -> None:
    """The place of every person: "anna was in the kitchen , ben in the garden ."."""
    for index, name in enumerate(PEOPLE[:people]):
        words = [name, "was", "in", "the"] if index == 0 else [",", name, "in", "the"]
        _say(grammar, f"open {index}", words, f"opening place {index}", subject=name)
        after = f"open {index + 1}" if index + 1 < people else "stop"
        grammar[f"opening place {index}"] = [Choice("PLACE", "always", after, "go")]
    grammar["stop"] = [Choice(".", "always", "start")]


def _statements(grammar: Rules) -> None:
    _say(grammar, "went", ["to", "the"], "goal")
    grammar["goal"] = [Choice("PLACE", "elsewhere", "end", "go")]
    for verb, particle, fact, effect in (
        ("took", "", "takeable", "take"),
        ("picked", "up", "takeable", "take"),
        ("dropped", "", "held", "drop"),
        ("put", "down", "held", "drop"),
        ("gave", "", "held", "about"),
        ("saw", "", "visible", ""),
    ):
        after = "give" if verb == "gave" else "end"
        named, pronoun = f"{verb} the", f"{verb} it"
        if particle:
            grammar[verb] = [
                Choice(particle, "always", f"{verb} {particle}"),
                Choice("it", f"{fact}_it", pronoun, effect),
            ]
            _say(grammar, f"{verb} {particle}", ["the"], named)
            _say(grammar, pronoun, [particle], after)
        else:
            grammar[verb] = [Choice("the", "always", named), Choice("it", f"{fact}_it", after, effect)]
        grammar[named] = [Choice("THING", fact, after, effect)]
    _say(grammar, "give", ["to"], "receiver")
    for node, fact, effect in (("receiver", "receivers", "give"), ("met", "company", "")):
        grammar[node] = [
            Choice("PERSON", fact, "end", effect),
            Choice("her", f"{fact}_she", "end", effect),
            Choice("him", f"{fact}_he", "end", effect),
        ]
    _say(grammar, "found", ["the"], "found the")
    grammar["found the"] = [Choice("THING", "unfound", "end", "find")]


def _questions(grammar: Rules, places: int, things: int) -> None:
    _say(grammar, "where", ["is"], "where is")
    for node, after in (("where is", "where ?"), ("whether", "whether in")):
        grammar[node] = [
            *(Choice(says, "always", after, "about") for says in ("PERSON", "she", "he")),
            Choice("the", "known_any", f"{node} the", weight=float(things)),
            Choice("it", "mentioned", after, "about"),
        ]
        grammar[f"{node} the"] = [Choice("THING", "known", after, "about")]
    _say(grammar, "where ?", ["?"], "where answer")
    grammar["where answer"] = [Choice(word, f"about_{word}", "where tells") for word in ("she", "he", "it")]
    _say(grammar, "where tells", ["is", "in", "the"], "where place")
    grammar["where place"] = [Choice("PLACE", "there", "stop")]
    _say(grammar, "whether in", ["in", "the"], "whether place")
    # The true place has the same weight as all others together, so "yes" and "no" are equally likely.
    grammar["whether place"] = [
        Choice("PLACE", "there", "whether ?", "ask_place", places - 1.0),
        Choice("PLACE", "not_there", "whether ?", "ask_place"),
    ]
    _say(grammar, "whether ?", ["?"], "whether answer")
    grammar["whether answer"] = [Choice("yes", "true", "stop"), Choice("no", "false", "stop")]
    _say(grammar, "who", ["has"], "who has")
    grammar["who has"] = [
        Choice("the", "always", "who has the", weight=float(things)),
        Choice("it", "mentioned", "who ?", "about"),
    ]
    grammar["who has the"] = [Choice("THING", "known", "who ?", "about")]
    _say(grammar, "who ?", ["?"], "who answer")
    grammar["who answer"] = [Choice("PERSON", "holders", "who tells"), Choice("nobody", "free", "who tells")]
    _say(grammar, "who tells", ["has", "it"], "stop")


def _say(grammar: Rules, start: str, words: list[str], end: str, subject: str = "") -> None:
    """Add a sequence of fixed words from one node to another."""
    nodes = [start, *(f"{start} + {count}" for count in range(1, len(words))), end]
    for node, word, after in zip(nodes, words, nodes[1:], strict=False):
        grammar[node] = [Choice(word, "always", after, "subject" if word == subject else "")]


class Tables:
    """The grammar as arrays: one column per node, one row per choice, padded with impossible choices.

    ``says``, ``when``, ``then`` and ``does`` are indices of tokens, facts, nodes and effects.
    """

    says: Int[np.ndarray, "choices nodes"]
    when: Int[np.ndarray, "choices nodes"]
    then: Int[np.ndarray, "choices nodes"]
    does: Int[np.ndarray, "choices nodes"]
    weight: Float[np.ndarray, "choices nodes"]

    def __init__(self, grammar: Rules, names: dict[str, tuple[str, ...]], facts: dict[str, int], effects: list[str]):
        by_node = [list(_spread(choices, names, facts)) for choices in grammar.values()]
        words = {choice.says for choices in by_node for choice, _ in choices}
        named = {name for group in names.values() for name in group}
        grammatical = sorted(words - named - set(_PUNCTUATION))
        self.vocabulary = (*_PUNCTUATION, *grammatical, *names["PERSON"], *names["PLACE"], *names["THING"])
        token = {word: index for index, word in enumerate(self.vocabulary)}
        node = {name: index for index, name in enumerate(grammar)}
        shape = (max(map(len, by_node)), len(by_node))
        self.says, self.then, self.does = np.zeros((3, *shape), np.int64)
        self.when, self.weight = np.full(shape, facts["never"]), np.zeros(shape)
        for column, choices in enumerate(by_node):
            for row, (choice, fact) in enumerate(choices):
                self.says[row, column] = token[choice.says]
                self.when[row, column] = fact
                self.then[row, column] = node[choice.then]
                self.does[row, column] = effects.index(choice.does)
                self.weight[row, column] = choice.weight


def _spread(
    choices: list[Choice], names: dict[str, tuple[str, ...]], facts: dict[str, int]
) -> Iterator[tuple[Choice, int]]:
    """Yield each choice with the row of its fact; PERSON, THING and PLACE become one choice for each name."""
    for choice in choices:
        # "always" is a single row, not one for each name.
        step = 0 if choice.when == "always" else 1
        for offset, name in enumerate(names.get(choice.says, (choice.says,))):
            yield choice._replace(says=name), facts[choice.when] + step * offset
