from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nextlat_viz.worlds import Episodes, World, text_facts
from nextlat_viz.worlds.text.facts import _decoded, names_in


class Pieces(World):
    """Tokens are pieces of text, spelled out."""

    name = "pieces"

    def __init__(self, pieces: list[str]) -> None:
        self.vocabulary = tuple(dict.fromkeys(pieces))

    def sample(self, *_: Any, **__: Any) -> Episodes:
        raise NotImplementedError

    def legal_next(self, tokens: Any) -> Any:
        raise NotImplementedError

    def decode(self, tokens: Any) -> str:
        # Drops the first space of a text, as tokenizers of sentences do.
        return "".join(self.vocabulary[token] for token in np.asarray(tokens)).removeprefix(" ")


def facts_of(*rows: list[str], states: dict[str, Any] | None = None, **options: Any) -> dict[str, np.ndarray]:
    world = Pieces([piece for row in rows for piece in row])
    longest = max(map(len, rows))
    tokens = np.zeros((len(rows), longest), np.int64)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = [world.vocabulary.index(piece) for piece in row]
    return text_facts(world, Episodes(tokens, states or {}, length=np.array([len(row) for row in rows])), **options)


STORY = ["Tim", "my", " said", ",", ' "', "Hi", "!", '"', " He", " saw", " S", "ue", ".", ' "', "A", "\n", "B"]


def test_facts_after_each_token() -> None:
    facts = facts_of(STORY, STORY[:3], names=["Timmy", "Sue"])
    quotation = [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0]
    assert facts["quotation_open"][0].tolist() == [bool(value) for value in quotation]
    expected = [7, 6, 5, 4, 3, 2, 1, 0, 4, 3, 2, 1, 0, 2, 1, 0, np.nan]
    np.testing.assert_array_equal(facts["to_sentence_end"][0], expected)
    assert facts["last_name"][0].tolist() == ["nobody"] + ["Timmy"] * 10 + ["Sue"] * 6
    assert facts["names_read"][0].tolist() == [0] + [1] * 10 + [2] * 6
    # Facts of a text that was cut off are unknown, and padding has none.
    assert np.isnan(facts["to_sentence_end"][1]).all()
    assert facts["last_name"][1].tolist() == ["nobody", "Timmy", "Timmy"] + ["nobody"] * 14


def test_only_the_distance_looks_ahead() -> None:
    facts = facts_of(STORY, names=["Timmy", "Sue"])
    for length in range(1, len(STORY)):
        before = facts_of(STORY[:length], names=["Timmy", "Sue"])
        for name in ("quotation_open", "last_name", "names_read"):
            assert before[name][0].tolist() == facts[name][0, :length].tolist()


def test_facts_start_again_with_each_document() -> None:
    row = [' "', "Hi", " Sue", "<|endoftext|>", "He", " ran", "."]
    packed = facts_of(row, states={"document": np.array([[0, 0, 0, 0, 1, 1, 1]])}, names=["Sue"])
    assert packed["quotation_open"][0].tolist() == [True] * 4 + [False] * 3
    assert packed["last_name"][0].tolist() == ["nobody"] * 2 + ["Sue"] * 2 + ["nobody"] * 3
    np.testing.assert_array_equal(packed["to_sentence_end"][0], [np.nan] * 4 + [2, 1, 0])


@pytest.mark.parametrize(
    ("text", "distances"),
    [
        ("Can I? she asked. No.", [3, 2, 1, 0, 0]),
        ("He ran.<|endoftext|>", [1, 0]),
        ("“Go!” He went...", [0, 1, 0]),
    ],
)
def test_distance_to_the_end_of_the_sentence(text: str, distances: list[int]) -> None:
    assert facts_of([f" {word}" for word in text.split(" ")])["to_sentence_end"][0].tolist() == distances


def test_names_are_words_that_are_always_capitalised() -> None:
    stories = [
        "One day Tim met Mom. They saw Sue. Suddenly, Tim and Sue ran.",
        "His mom was glad, and Sue too. One dog, Max, ran. Suddenly they sang with their mom.",
    ]
    assert names_in(stories) == ["Sue", "Tim"]
    facts = facts_of([" He", " met", " Sue", "."], [" then", " Sue", " ran"])
    assert facts["last_name"][:, 2].tolist() == ["Sue", "Sue"]


def test_an_empty_batch_has_facts() -> None:
    facts = facts_of(["a"], [])
    assert facts["quotation_open"].shape == (2, 1)


class Bytes(Pieces):
    """Tokens are bytes: a character may take several of them. Counts the tokens it decodes."""

    def __init__(self) -> None:
        self.vocabulary = tuple(map(str, range(256)))
        self.decoded = 0

    def decode(self, tokens: Any) -> str:
        self.decoded += len(tokens)
        return bytes(np.asarray(tokens).tolist()).decode("utf-8", errors="replace").removeprefix(" ")


@pytest.mark.parametrize("seed", range(4))
def test_texts_of_tokens_equal_those_of_decoded_prefixes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    text = " " + "".join(rng.choice(list("a éü“”猫🐭\n"), 60))
    # Some bytes are wrong, as a model may generate them.
    tokens = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
    tokens = np.where(rng.random(tokens.size) < 0.1 * (seed % 2), rng.integers(256, size=tokens.size), tokens)
    world = Bytes()
    _, ends = _decoded(world, Episodes(tokens[None]), 0)
    prefixes = [len(world.decode(tokens[:end])) for end in range(1, tokens.size + 1)]
    assert ends.tolist() == np.maximum.accumulate(prefixes).clip(max=prefixes[-1]).tolist()


def test_a_sequence_is_decoded_in_linear_time() -> None:
    world = Bytes()
    _decoded(world, Episodes(np.full((1, 4000), 97)), 0)
    assert world.decoded < 100 * 4000
