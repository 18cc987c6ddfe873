"""Stories: every word is true, and words follow the stated law."""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.plain import story as plain
from nextlat_viz import worlds
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.worlds.story.world import Story

from .test_draw import texts

shapes = st.tuples(st.integers(2, 6), st.integers(2, 8), st.integers(1, 8), st.integers(1, 3))
seeds = st.integers(0, 2**32)


class Reader:
    """Reads a story word by word with patterns over the clause so far; fails at a false statement."""

    def __init__(self, world: Story) -> None:
        self.world = world
        self.clause: list[str] = []
        self.where: dict[str, str] = {}
        self.holder: dict[str, str] = {}
        self.meant: dict[str, str] = {}
        self.subject = self.about = ""

    def read(self, word: str) -> None:
        if word in {"and", ".", ","}:
            self.clause = []
            return
        # A verb after "and" has the same subject as before.
        self.clause += [self.subject, word] if not self.clause and word not in self.starts else [word]
        if word in self.world.people:
            self.meant["she" if self.world.people.index(word) % 2 == 0 else "he"] = word
        if word in self.world.things:
            self.meant["it"] = word
        text = " ".join(self.clause)
        for pattern, effect in self.patterns.items():
            if match := re.fullmatch(pattern, text):
                getattr(self, effect)(*match.groups())

    @property
    def starts(self) -> set[str]:
        return {*self.world.people, "she", "he", "where", "who", "is"}

    patterns: ClassVar = {
        r"(?!where|who|is)(\w+)": "speaks",
        r"\w+ (?:went|walked|ran) to the (\w+)": "goes",
        r"(\w+)(?: was)? in the (\w+)": "starts_out",
        r"\w+ (?:took|grabbed|picked up|picked) (?:the )?(?!up|the)(\w+)": "takes",
        r"\w+ (?:dropped|put down|put) (?:the )?(?!down|the)(\w+)": "drops",
        r"\w+ (?:gave|handed) (?:the )?(?!the)(\w+)": "asked",
        r"\w+ (?:gave|handed) (?:the \w+|it) to (\w+)": "gives",
        r"\w+ (?:saw|met) (?:the )?(?!the)(\w+)": "meets",
        r"\w+ found the (\w+)": "finds",
        r"(?:where is|who has|is) (?:the )?(?!the)(\w+)": "asked",
        r"where is (?:the )?\w+ \? (\w+)": "is_meant",
        r"where is (?:the )?\w+ \? \w+ is in the (\w+)": "is_there",
        r"who has (?:the )?\w+ \? (\w+)": "has",
        r"is (?:the )?\w+ in the (\w+) \? (\w+)": "judged",
    }

    def means(self, word: str) -> str:
        word = self.meant.get({"her": "she", "him": "he"}.get(word, word), word)
        assert word in {*self.world.people, *self.world.things}
        return word

    def carried(self, person: str) -> list[str]:
        return [thing for thing, holder in self.holder.items() if holder == person]

    def starts_out(self, person: str, place: str) -> None:
        assert person not in self.where
        self.where[person] = place

    def speaks(self, word: str) -> None:
        self.subject = self.means(word)

    def goes(self, place: str) -> None:
        assert place != self.where[self.subject]
        for moved in (self.subject, *self.carried(self.subject)):
            self.where[moved] = place

    def takes(self, word: str) -> None:
        thing = self.means(word)
        assert thing not in self.holder
        assert self.where[thing] == self.where[self.subject]
        assert len(self.carried(self.subject)) < self.world.narrator.hands
        self.holder[thing] = self.subject

    def drops(self, word: str) -> None:
        assert self.holder.pop(self.means(word)) == self.subject

    def gives(self, word: str) -> None:
        person = self.means(word)
        assert person != self.subject
        assert self.where[person] == self.where[self.subject]
        assert len(self.carried(person)) < self.world.narrator.hands
        assert self.holder[self.about] == self.subject
        self.holder[self.about] = person

    def meets(self, word: str) -> None:
        other = self.means(word)
        assert other != self.subject
        assert self.where[other] == self.where[self.subject]
        assert self.holder.get(other) != self.subject

    def finds(self, thing: str) -> None:
        assert thing not in self.where
        self.where[thing] = self.where[self.subject]

    def asked(self, word: str) -> None:
        self.about = self.means(word)
        assert self.about in self.where

    def is_meant(self, word: str) -> None:
        assert self.meant[word] == self.about

    def is_there(self, place: str) -> None:
        assert self.where[self.about] == place

    def has(self, word: str) -> None:
        assert self.holder.get(self.about, "nobody") == word

    def judged(self, place: str, answer: str) -> None:
        assert (self.where[self.about] == place) == (answer == "yes")

    def state(self) -> dict[str, str]:
        who, what = self.world.people, self.world.things
        return (
            {f"where_{name}": self.where.get(name, "unknown") for name in (*who, *what)}
            | {f"holder_{name}": self.holder.get(name, "nobody") for name in what}
            | {name: self.meant.get(name, "nobody") for name in ("she", "he")}
            | {"it": self.meant.get("it", "nothing")}
        )


def say(world: Story, text: str) -> np.ndarray:
    return np.array([[world.vocabulary.index(word) for word in text.split()]])


@settings(max_examples=8)
@given(shapes, seeds, st.sampled_from(["train", "test"]))
def test_every_word_agrees_with_a_second_reader(shape: tuple[int, int, int, int], seed: int, split: str) -> None:
    world = Story(*shape)
    episodes = world.sample(3, 150, seed, split=split)
    values = world.state_values
    assert episodes.states.keys() == values.keys()
    for row, tokens in enumerate(episodes.tokens):
        reader = Reader(world)
        for t, token in enumerate(tokens):
            reader.read(world.vocabulary[token])
            facts = {name: values[name][states[row, t]] for name, states in episodes.states.items()}
            assert facts == reader.state(), world.decode(tokens[: t + 1])


@settings(max_examples=4)
@given(shapes, seeds, st.floats(0, 1))
def test_sampled_states_equal_replayed_ones(shape: tuple[int, int, int, int], seed: int, questions: float) -> None:
    world = Story(*shape, questions=questions)
    episodes = world.sample(3, 70, seed)
    assert world.legal(episodes.tokens).all()
    assert world.sample(3, 70, seed).sha256 == episodes.sha256
    assert world.sample(3, 70, seed + 1).sha256 != episodes.sha256
    np.testing.assert_array_equal(world.sample(3, 70, seed, states=False).tokens, episodes.tokens)
    assert not world.sample(3, 70, seed, states=False).states
    for cut in (1, 20, 43):
        for name, values in world.replay(episodes.tokens[:, :cut]).items():
            np.testing.assert_array_equal(values, episodes.states[name][:, :cut], err_msg=name)
    law = world.next_token_probs(episodes.tokens)
    np.testing.assert_allclose(law.sum(-1), 1, atol=1e-12)
    np.testing.assert_array_equal(law > 0, world.legal_next(episodes.tokens))


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("writer", ["world", "plain"])
def test_token_frequencies_fit_the_law(writer: str) -> None:
    """The plain generator, written apart from the world, follows the same law."""
    world = Story()
    assert world.vocabulary == plain.VOCABULARY
    tokens = world.sample(1000, 128, 3).tokens if writer == "world" else np.array(list(plain.episodes(1000, 3)))
    law = world.next_token_probs(tokens)[:, world.opening_length - 1 : -1].reshape(-1, len(world.vocabulary))
    after = tokens[:, world.opening_length :].ravel()
    surprise = -np.log(law[np.arange(len(after)), after])
    excess = surprise + (law * np.log(np.where(law > 0, law, 1))).sum(-1)
    assert abs(excess.mean()) < 4 * excess.std() / np.sqrt(len(excess))
    kinds, which, counts = np.unique(law.round(9), axis=0, return_inverse=True, return_counts=True)
    often = np.flatnonzero(counts > 300)
    assert len(often) > 40
    for kind in often:
        shares = np.bincount(after[which.ravel() == kind], minlength=len(world.vocabulary)) / counts[kind]
        spread = np.sqrt(kinds[kind] * (1 - kinds[kind]) / counts[kind])
        assert (np.abs(shares - kinds[kind]) <= 5 * spread + 1e-9).all()


def test_the_law_of_a_sentence() -> None:
    world = Story(people=2, places=3, things=1)
    text = "anna was in the kitchen , ben in the kitchen ."
    law = dict(zip(world.vocabulary, world.next_token_probs(say(world, text))[0, -1], strict=True))
    # No thing has been mentioned, so no question asks who has one.
    shares = {"anna": 3 / 16, "ben": 3 / 16, "she": 3 / 16, "he": 3 / 16, "where": 1 / 12, "is": 1 / 12}
    whole = sum(shares.values())
    assert {word: p for word, p in law.items() if p} == pytest.approx({w: p / whole for w, p in shares.items()})
    answers = world.next_token_probs(say(world, f"{text} is ben in the"))[0, -1]
    assert [answers[world.vocabulary.index(place)] for place in world.places] == pytest.approx([1 / 2, 1 / 4, 1 / 4])


@pytest.mark.parametrize("split", ["train", "test"])
def test_openings_are_held_out(split: str) -> None:
    world = Story(people=3, places=3)
    episodes = world.sample(400, 40, 0, split=split)
    openings = {tuple(row) for row in episodes.tokens[:, : world.opening_length].tolist()}
    assert len(openings) == (3 if split == "test" else 24)
    other = world.sample(400, 40, 1, split="train" if split == "test" else "test")
    assert openings.isdisjoint(map(tuple, other.tokens[:, : world.opening_length].tolist()))
    assert not episodes.loss_mask[:, : world.opening_length].any()
    assert episodes.loss_mask[:, world.opening_length :].all()


OPENING = "anna was in the kitchen , ben in the hall ."


@pytest.mark.parametrize(
    "said",
    [
        "ben",
        "anna was in the kitchen , anna",
        f"{OPENING} .",
        f"{OPENING} anna took",
        f"{OPENING} anna met",
        f"{OPENING} anna went to the kitchen",
        f"{OPENING} anna found the ball . ben took",
        f"{OPENING} anna found the ball and took it and took",
        f"{OPENING} anna found the ball and took it . anna gave",
        f"{OPENING} anna found the ball and picked it up and saw",
        f"{OPENING} where is the",
        f"{OPENING} where is ben ? she",
        f"{OPENING} where is ben ? he is in the garden",
        f"{OPENING} is ben in the garden ? yes",
        f"{OPENING} anna found the ball . who has it ? anna",
    ],
)
def test_impossible_sentences_are_refused(said: str) -> None:
    world = Story(people=2, places=3, things=1)
    tokens = say(world, f"{said} in the")
    wrong = len(said.split())
    legal = world.legal(tokens)[0]
    assert legal[: wrong - 1].all()
    assert not legal[wrong - 1 :].any()
    assert not world.legal_next(tokens)[0, wrong - 1 :].any()
    with pytest.raises(ValueError, match=rf"episode 0 cannot happen in world 'story'.* at position {wrong} cannot"):
        world.replay(tokens)
    with pytest.raises(ValueError, match=rf"at position {wrong} cannot follow"):
        world.next_token_probs(tokens)


@settings(max_examples=6)
@given(shapes, seeds)
def test_nothing_is_legal_after_a_wrong_word(shape: tuple[int, int, int, int], seed: int) -> None:
    world = Story(*shape)
    rng = np.random.default_rng(seed)
    tokens = world.sample(12, 60, seed, states=False).tokens
    before = world.legal_next(tokens)
    at = rng.integers(1, 60, 12)
    tokens[np.arange(12), at] = rng.integers(len(world.vocabulary), size=12)
    tokens[:6] = rng.integers(len(world.vocabulary), size=(6, 60))
    legal, after = world.legal(tokens), world.legal_next(tokens)
    assert (np.diff(legal.astype(int), axis=1) <= 0).all()
    for row in range(6, 12):
        assert legal[row, : at[row]].all()
        assert legal[row, at[row]] == before[row, at[row] - 1, tokens[row, at[row]]]
        assert after[row, at[row] :].any(-1).tolist() == legal[row, at[row] :].tolist()
    wrong = tokens[~legal.all(1)]
    with pytest.raises(ValueError, match="cannot follow"):
        world.replay(wrong)


def test_the_spec_builds_the_same_world() -> None:
    world = worlds.get("story", people=3, places=4, things=2, hands=1, questions=0.5)
    again = worlds.from_spec(json.loads(json.dumps(world.spec)))
    assert (again.spec, again.vocabulary, again.state_values) == (world.spec, world.vocabulary, world.state_values)
    assert again.sample(3, 50, 1).sha256 == world.sample(3, 50, 1).sha256


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"people": 1}, "people must be an integer from 2 to 6, got 1"),
        ({"people": 7}, "people must be an integer from 2 to 6, got 7"),
        ({"places": True}, "places must be an integer from 2 to 8, got True"),
        ({"things": 0}, "things must be an integer from 1 to 8, got 0"),
        ({"hands": 0}, "hands must be an integer of at least 1, got 0"),
        ({"questions": 1.5}, r"questions must be in \[0, 1\], got 1.5"),
        ({"questions": float("nan")}, r"questions must be in \[0, 1\], got nan"),
    ],
)
def test_bad_parameters_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        worlds.get("story", **params)


def test_bad_arguments_are_refused() -> None:
    world = Story()
    with pytest.raises(ValueError, match="length is needed"):
        world.sample(3)
    with pytest.raises(ValueError, match="n must be an integer of at least 1, got 0"):
        world.sample(0, 50)
    with pytest.raises(UnknownNameError, match="unknown split of world 'story': 'tset'"):
        world.sample(1, 50, split="tset")
    with pytest.raises(ValueError, match="token 99 of episode 0 at position 1 is outside the vocabulary"):
        world.replay(np.array([[99]]))
    assert world.sample(2, 7).tokens.shape == (2, 7)


def test_a_story_is_readable_english() -> None:
    world = Story()
    text = "anna was in the hall , ben in the hall , clara in the hall , david in the hall . where is it ? no"
    assert world.decode(say(world, text)[0]) == (
        "Anna was in the hall, Ben in the hall, Clara in the hall, David in the hall. Where is it? No"
    )


def test_the_map_shows_who_is_where() -> None:
    world = Story()
    episode = world.sample(1, 120, seed=4)
    figure = world.draw("map", episode=episode, position=90)
    shown = [note.text for note in figure.layout.annotations]
    assert {f"<b>{place}</b>" for place in world.places} | {"Anna", "Ben", "Clara", "David"} <= set(shown)
    mentioned = [name for name in world.things if episode.states[f"where_{name}"][0, 89] < len(world.places)]
    assert mentioned
    assert sorted(mentioned) == sorted(set(shown) & set(world.things))
    for position in range(1, 121, 9):
        assert world.draw("map", episode=episode, position=position).layout.title.text.startswith("story after")
    bare = world.draw(width=900, height=500)
    assert (bare.layout.width, bare.layout.height) == (900, 500)
    assert any("Anna, Ben, Clara and David" in text for text in texts(bare.to_dict()))


def test_the_ring_leaves_the_name_of_a_room_free_where_the_picture_is_low() -> None:
    """In a panel the picture is about half as high, and neither names nor the ring are smaller."""
    world = Story()
    episode = world.sample(1, 120, seed=4)
    rings = 0
    for position in range(60, 121, 5):
        figure = world.draw("map", episode=episode, position=position)
        *_, ring = figure.data
        if ring.marker.symbol == "circle-open":
            rings += 1
            names = [note for note in figure.layout.annotations if note.text.startswith("<b>") and note.y < ring.y[0]]
            above = max(note.y for note in names)
            beside = min(
                note.xshift for note in figure.layout.annotations if note.y == ring.y[0] and note.x == ring.x[0]
            )
            assert beside >= ring.marker.size / 2 + 1.5
            assert (ring.y[0] - above) * 0.48 >= ring.marker.size / 2 + 1.5 + 6
    assert rings > 3


def test_bad_pictures_are_refused() -> None:
    world = Story()
    with pytest.raises(UnknownNameError, match=r"unknown kind of picture 'mapp'\. Did you mean 'map'\?"):
        world.draw("mapp")
    with pytest.raises(UnknownNameError, match="unknown option of picture 'map': 'heigth'"):
        world.draw("map", heigth=3)
    with pytest.raises(ValueError, match="position must be an integer from 0 to 30, got 31"):
        world.draw("map", episode=world.sample(1, 30), position=31)
    with pytest.raises(ValueError, match="episode must hold one episode, got 2"):
        world.draw("map", episode=world.sample(2, 30))
