"""Strings read by models and the ideal observer, and strings that cannot be read."""

from __future__ import annotations

import re

import numpy as np
import pytest

import nextlat_viz as nlv
from nextlat_viz import analysis, worlds
from nextlat_viz.analysis.reading import IDEAL, read_string
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.worlds import Episodes
from nextlat_viz.worlds.strings import legal_part, parse_string

PAIR = ("rrxor/next_token", "rrxor/nextlat")


def test_the_ideal_observers_surprise_is_that_of_the_exact_law() -> None:
    world = worlds.get("rrxor")
    tokens = world.sample(1, 9, seed=3).tokens[0]
    reading = read_string(PAIR, tokens)
    belief, chance = world.stationary, []
    for token in tokens:
        joint = belief @ world.transitions[token]
        chance.append(joint.sum())
        belief = joint / joint.sum()
    np.testing.assert_allclose(reading.surprise[IDEAL], -np.log2(chance), atol=1e-9)
    np.testing.assert_allclose(reading.truth["belief"][-1], belief, atol=1e-12)
    assert list(reading.surprise) == ["position", "token", IDEAL, "next-token", "NextLat"]
    # Both models were trained to the floor, so they are surprised like it.
    assert (np.abs(reading.surprise["NextLat"] - reading.surprise[IDEAL]) < 0.3).all()


@pytest.mark.parametrize("name", ["rrxor", "s3"])
def test_predictions_and_latents_equal_those_of_extraction(name: str) -> None:
    """In a world with targets, the surprise is that of the product after each token."""
    checkpoint = nlv.load(f"{name}/nextlat")
    episodes = checkpoint.world.sample(2, 8, seed=5)
    latents = nlv.extract(checkpoint, episodes, progress=False)
    table = analysis.episode_predictions(latents, 1)
    reading = read_string(checkpoint, episodes.tokens[1])
    bits = -np.log2(table["model"].to_numpy())
    if name == "s3":
        assert reading.predicted == "product"
        np.testing.assert_allclose(reading.surprise[checkpoint.label], bits, atol=1e-4)
        assert (reading.surprise[IDEAL] == 0).all()
    else:
        np.testing.assert_allclose(reading.surprise[checkpoint.label][1:], bits[:-1], atol=1e-4)


def test_a_changed_token_is_compared_with_the_original() -> None:
    original, edited = read_string(PAIR, "1001"), read_string(PAIR, "00010")
    assert edited.changed(original).tolist() == [1]
    assert original.changed(original).size == 0
    more = edited.more_surprise(original)
    for label in (IDEAL, "next-token", "NextLat"):
        expected = edited.surprise[label][:4].sum() - original.surprise[label].sum()
        assert more[label] == pytest.approx(expected)


def test_the_path_equals_that_of_the_episode() -> None:
    checkpoint = nlv.load("mess3/nextlat")
    episodes = checkpoint.world.sample(60, 8, seed=1)
    latents = nlv.extract(checkpoint, episodes, progress=False)
    probe = analysis.probe(latents, n_bootstrap=10)
    expected = analysis.read_trajectory(latents, probe, 7)
    path = read_string(checkpoint, episodes.tokens[7]).path("NextLat", [probe])
    np.testing.assert_allclose(path.coordinates[1:], expected.coordinates, atol=1e-4)
    np.testing.assert_allclose(path.exact_coordinates[1:], expected.exact_coordinates, atol=1e-9)
    assert path.tokens[0] == "start"


def test_an_empty_string_shows_the_prior() -> None:
    reading = read_string(PAIR, "")
    assert reading.surprise.empty
    np.testing.assert_allclose(reading.exact, worlds.get("rrxor").start_probs()[None])
    assert all(law.shape == (1, 2) and law.sum() == pytest.approx(1) for law in reading.laws.values())
    np.testing.assert_allclose(reading.truth["belief"], worlds.get("rrxor").stationary[None])


def test_a_prompt_has_no_surprise() -> None:
    checkpoint = nlv.load("taxi/nextlat")
    tokens = checkpoint.world.sample(1, seed=2).tokens[0, :9]
    table = read_string(checkpoint, tokens).surprise
    assert table.drop(columns=["position", "token"]).isna().all(axis=1).tolist() == [True] * 2 + [False] * 7


@pytest.mark.parametrize(
    "name", ["rrxor", "mess3", "z1r", "s3", "z60", "taxi", "path_star", "story", "othello", "countdown"]
)
def test_an_episode_survives_writing_and_parsing(name: str) -> None:
    world = worlds.get(name)
    episode = world.sample(1, None if world.length else 30, seed=0)
    tokens = episode.tokens[0, : episode.length[0]]
    np.testing.assert_array_equal(parse_string(world, " ".join(world.vocabulary[token] for token in tokens)), tokens)
    assert legal_part(world, tokens) == (tokens.size, "")
    if name == "story":
        # As the world itself writes it.
        np.testing.assert_array_equal(parse_string(world, world.decode(tokens)), tokens)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("01 2", "'2' (character 4) is no symbol of world 'rrxor', whose symbols are 0, 1"),
        ("0é☃", "'é' (character 2) is no symbol"),
        ("01" * 5_000, "the string has 10,000 tokens, and the models read at most 12"),
        ("x" * 10_000, "'x' (character 1) is no symbol"),
        ("10011001", "'1' at position 8 is not legal in world 'rrxor': legal there is 0"),
    ],
)
def test_errors_for_strings_that_cannot_be_read(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        read_string(PAIR, text)


def test_the_first_illegal_token_is_named() -> None:
    world = worlds.get("taxi")
    tokens = world.sample(1, seed=0).tokens[0, :6].copy()
    tokens[4] = world.vocabulary.index("end")
    first, problem = legal_part(world, tokens)
    assert first == 4
    assert problem.startswith("'end' at position 5 is not legal in world 'taxi': legal there are ")
    assert legal_part(world, tokens[[2, 0]])[0] == 0
    with pytest.raises(ValueError, match="outside the vocabulary"):
        read_string("rrxor/nextlat", [0, 7])


def test_labels_and_sites_are_checked() -> None:
    for labels in (["one"], ["same", "same"]):
        with pytest.raises(ValueError, match="labels must be 2 different names, one per model"):
            read_string(PAIR, "0 1", labels=labels)
    with pytest.raises(UnknownNameError, match="unknown site 'hiden'"):
        read_string(PAIR, "0 1", site="hiden")


def test_puzzles_are_refused() -> None:
    with pytest.raises(ValueError, match="answer whole puzzles"):
        read_string("queens/trm", Episodes(np.zeros((1, 5), int)).tokens[0])
