from __future__ import annotations

import numpy as np
import pytest
from jaxtyping import Float, Int

from nextlat_viz import worlds
from nextlat_viz.analysis import path_accuracy
from nextlat_viz.decoding import UniformLegal
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.latents import HELDOUT_SEED
from nextlat_viz.training import load
from tests.analysis.models import Scripted, fresh

WORLD = worlds.get("path_star", arms=3, nodes_per_arm=4, train_size=500, test_size=300)
N = 300


def problems() -> np.ndarray:
    return WORLD.sample(N, seed=HELDOUT_SEED, split="test").tokens.copy()


def scores(predictor, decodings=("greedy",)) -> dict:
    result = path_accuracy(predictor, decodings, n=N, progress=False)
    return {(row["part"], row["decoding"]): row for row in result.table.to_dict("records")}


class Unsure(Scripted):
    """Take the right arm with probability 0.6, else another; be certain everywhere else."""

    def next_token_probs(self, tokens: Int[np.ndarray, "n t"]) -> Float[np.ndarray, "n t v"]:
        probs = super().next_token_probs(tokens)
        if tokens.shape[1] > self.prompt:
            arms = self.world.arms_of(tokens[:, : self.prompt])
            for row, right in enumerate(probs[:, self.prompt].argmax(axis=1)):
                other = next(arm[1] for arm in arms[row] if arm[1] != right)
                probs[row, self.prompt] = 0
                probs[row, self.prompt, [right, other]] = 0.6, 0.4
        return probs


def test_right_wrong_and_unfinished_answers_are_counted() -> None:
    made = problems()
    end = len(WORLD.vocabulary) - 1
    arms = WORLD.arms_of(made)
    answer = slice(WORLD.prompt, WORLD.prompt + 4)
    right = made[:, answer].copy()
    wrong_arm = next(arm for arm in arms[0] if arm[-1] != right[0, -1])
    made[0, answer] = wrong_arm
    made[1, WORLD.prompt] = right[1, 1]
    made[2, WORLD.prompt + 3] = right[2, 0]
    made[3, -1] = right[3, 0]
    made[4, WORLD.prompt + 2] = end
    result = scores(Scripted(WORLD, made, WORLD.prompt))
    path, branch = result["path", "greedy"], result["branch", "greedy"]
    assert path["value"] == pytest.approx(1 - 4 / N)
    assert branch["value"] == pytest.approx(1 - 1 / N)
    assert (path["wrong_start"], path["not_ended"], path["trials"]) == (1, 1, N)


def test_guessing_the_arm_scores_chance() -> None:
    made = problems()
    arms = WORLD.arms_of(made)
    chosen = np.random.default_rng(0).integers(3, size=N)
    made[:, WORLD.prompt : -1] = arms[np.arange(N), chosen]
    predictor = Scripted(WORLD, made, WORLD.prompt)
    result = scores(predictor)
    same = np.mean(arms[np.arange(N), chosen, -1] == problems()[:, WORLD.prompt - 2])
    assert result["path", "greedy"]["value"] == result["branch", "greedy"]["value"] == pytest.approx(same)
    assert path_accuracy(predictor, n=9, progress=False).references == {"chance": pytest.approx(1 / 3)}
    assert same == pytest.approx(1 / 3, abs=0.1)


def test_greedy_and_sampled_decoding_differ() -> None:
    result = scores(Unsure(WORLD, problems(), WORLD.prompt), ("greedy", "sampled"))
    assert result["path", "greedy"]["value"] == 1
    assert result["branch", "sampled"]["value"] == pytest.approx(0.6, abs=4 * np.sqrt(0.24 / N))
    again = scores(Unsure(WORLD, problems(), WORLD.prompt), "sampled")
    assert again["path", "sampled"] == result["path", "sampled"]


def test_an_untrained_model_finds_no_path() -> None:
    model = fresh(WORLD, "next_token", context=WORLD.length, layers=1)
    result = path_accuracy(model, n=50, progress=False)
    assert (result.table.query("part == 'path'")["value"] == 0).all()
    assert (result.table["wrong_start"] > 25).all()
    assert result.summary()["solved"].tolist() == [0] * 4


def test_uniform_legal_answers_are_the_path() -> None:
    assert path_accuracy(UniformLegal(WORLD), n=20, progress=False).summary()["solved"].tolist() == [1] * 4


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="greedy"):
        path_accuracy(UniformLegal(WORLD), "gredy")
    with pytest.raises(ValueError, match=r"path accuracy is measured on PathStar.*'path_star'"):
        path_accuracy(load("rrxor/nextlat"))
    with pytest.raises(ValueError, match="n=0"):
        path_accuracy(UniformLegal(WORLD), n=0)
