from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from nextlat_viz import latents as nl
from nextlat_viz import worlds
from nextlat_viz.analysis import probe
from nextlat_viz.errors import LatentsError, UnknownNameError
from nextlat_viz.worlds import Episodes


class Layer(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(dim, 3 * dim), nn.Linear(3 * dim, dim)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return x + self.down(self.up(x).relu()), None


class Reader(nn.Module):
    """A user's causal model: a running mean of embeddings, then two layers that return tuples."""

    def __init__(self, vocabulary: int = 12, dim: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(vocabulary, dim)
        self.layers = nn.ModuleList(Layer(dim) for _ in range(2))
        self.norm, self.unused = nn.LayerNorm(dim), nn.Linear(2, 2)
        self.pool = nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        x = x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]
        for layer in self.layers:
            x, _ = layer(x)
        x = self.norm(x)
        self.pool(x.mean(1))
        return x.mul_(2)  # writes into what the norm returned


TOKENS = np.random.default_rng(0).integers(0, 12, (9, 6))
LENGTHS = np.array([6, 3, 1, 5, 6, 2, 4, 6, 6])
REAL = np.arange(6) < LENGTHS[:, None]


def test_sites_hold_what_submodules_returned() -> None:
    model = Reader().train()
    latents = nl.extract(model, TOKENS, sites=["embed", "layers.*", "norm"], batch_size=4)
    assert nl.sites(latents) == ["embed", "layers.0", "layers.1", "hidden"]
    with torch.no_grad():
        np.testing.assert_allclose(latents.X * 2, model(torch.from_numpy(TOKENS)).flatten(0, 1).numpy(), atol=1e-6)
    np.testing.assert_array_equal(nl.site(latents, "norm"), latents.X)
    np.testing.assert_array_equal(nl.site(latents, "embed"), model.embed.weight.detach().numpy()[TOKENS].reshape(54, 8))
    np.testing.assert_array_equal(nl.tokens_of(latents), TOKENS)
    assert model.training
    assert not model.norm._forward_hooks
    assert nl.meta(latents)["label"] == "Reader"


def test_hidden_may_be_any_site_and_sites_of_any_width() -> None:
    latents = nl.extract(Reader(), TOKENS, sites=["layers.1.up", "norm"], hidden="layers.0")
    assert nl.sites(latents) == ["layers.1.up", "norm", "hidden"]
    assert nl.site(latents, "layers.1.up").shape == (54, 24)
    both = nl.concatenate([latents, nl.extract(Reader(), TOKENS, ["layers.1.up", "norm"], hidden="norm", name="B")])
    assert nl.site(both, "layers.1.up").shape == (108, 24)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_has_no_row(side: str) -> None:
    whole = nl.extract(Reader(), TOKENS, sites="norm")[REAL.ravel()]
    truth = {"square": TOKENS**2}
    shift = lambda array: np.array([np.roll(row, 6 - n) for row, n in zip(array, LENGTHS, strict=True)])  # noqa: E731
    tokens = np.where(REAL, TOKENS, 11)
    if side == "left":
        tokens, mask, truth = shift(tokens), shift(REAL), {"square": shift(TOKENS**2)}
    else:
        mask = REAL.astype(int)
    result = nl.extract(Reader(), tokens, sites="norm", mask=mask, truth=truth)
    np.testing.assert_allclose(result.X, whole.X, atol=1e-6)
    assert list(result.obs_names) == list(whole.obs_names)
    np.testing.assert_array_equal(nl.column(result, "square"), (TOKENS**2)[REAL])
    by_length = nl.extract(Reader(), TOKENS, sites="norm", lengths=LENGTHS)
    np.testing.assert_array_equal(by_length.X, result.X)


def test_call_runs_models_with_other_arguments() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Reader()

        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            return self.inner(batch["ids"])

    counts = []

    def call(model: nn.Module, tokens: Tensor, real: Tensor) -> Any:
        counts.append(real.sum().item())
        return model({"ids": tokens})

    latents = nl.extract(Two(), TOKENS, sites="inner.norm", lengths=LENGTHS, call=call)
    assert latents.n_obs == sum(counts) == LENGTHS.sum()


@pytest.mark.parametrize("positions", [[2, -1], slice(2, 5), slice(None, None, 2), [5]])
def test_positions_select_rows_and_keep_all_tokens(positions: Any) -> None:
    whole = nl.extract(Reader(), TOKENS, sites="norm", lengths=LENGTHS)
    part = nl.extract(Reader(), TOKENS, sites="norm", lengths=LENGTHS, positions=positions)
    position, length = nl.column(whole, "position"), LENGTHS[nl.column(whole, "episode")]
    if isinstance(positions, slice):
        keep = np.isin(
            position, range(1, 7)[slice((positions.start or 1) - 1, (positions.stop or 7) - 1, positions.step)]
        )
    else:
        keep = np.isin(position, positions) | ((-1 in positions) & (position == length))
    np.testing.assert_array_equal(part.X, whole.X[keep])
    assert list(part.obs_names) == list(whole.obs_names[keep])
    present = np.unique(nl.column(part, "episode"))
    np.testing.assert_array_equal(nl.tokens_of(part), np.where(REAL, TOKENS, -1)[present])
    both = nl.concatenate(
        [part, nl.extract(Reader(dim=8), TOKENS, "norm", lengths=LENGTHS, positions=positions, name="B")]
    )
    np.testing.assert_array_equal(nl.tokens_of(both), nl.tokens_of(part))


def test_truth_is_joined_by_episode_and_position() -> None:
    episode, position = np.nonzero(REAL)
    truth = pd.DataFrame({"episode": episode, "position": position + 1})
    truth["odd"] = np.where(TOKENS[REAL] % 2, "odd", "even")
    truth["depth"] = TOKENS[REAL].cumsum()
    truth["known"] = np.where(TOKENS[REAL] > 5, 1.0, np.nan)
    shuffled = truth.sample(frac=1, random_state=0)
    latents = nl.extract(Reader(), TOKENS, sites="norm", lengths=LENGTHS, truth=shuffled)
    for name in ("odd", "depth"):
        assert nl.column(latents, name).tolist() == truth[name].tolist()
    assert np.isnan(nl.column(latents, "known")).sum() == (TOKENS[REAL] <= 5).sum()
    with pytest.raises(LatentsError, match=r"truth lacks 3 of 39 rows, such as episode 0, position 1"):
        nl.extract(Reader(), TOKENS, sites="norm", lengths=LENGTHS, truth=truth[3:])
    nl.extract(Reader(), TOKENS, sites="norm", lengths=LENGTHS, truth=truth[3:], positions=[4])
    with pytest.raises(LatentsError, match="several rows for 1 "):
        nl.extract(Reader(), TOKENS, sites="norm", lengths=LENGTHS, truth=pd.concat([truth, truth[:1]]))
    with pytest.raises(LatentsError, match="'position' of whole numbers"):
        nl.extract(Reader(), TOKENS, sites="norm", truth=truth.drop(columns="position"))
    with pytest.raises(LatentsError, match=r"must have the shape of the tokens, \(9, 6\)"):
        nl.extract(Reader(), TOKENS, sites="norm", truth={"x": np.zeros((9, 5))})
    with pytest.raises(LatentsError, match="'token', which the table has already"):
        nl.extract(Reader(), TOKENS, sites="norm", truth={"token": TOKENS})


def test_a_known_world_brings_its_beliefs() -> None:
    world = worlds.get("mess3")
    episodes = world.sample(40, 6, seed=0)
    latents = nl.extract(Reader(), episodes, sites="norm", world=world)
    np.testing.assert_array_equal(nl.column(latents, "belief"), world.belief(episodes.tokens).reshape(240, -1))
    assert nl.world_of(latents).name == "mess3"
    assert probe(latents, "belief", n_bootstrap=5).score > 0


def test_without_a_world() -> None:
    latents = nl.extract(Reader(), TOKENS, sites="norm", vocabulary=list("abcdefghijkl"))
    assert nl.column(latents, "token")[0] == "abcdefghijkl"[TOKENS[0, 0]]
    assert nl.summary(latents)["world"].tolist() == ["no world"]
    assert "world" not in latents.uns["nextlat_viz"]
    with pytest.raises(LatentsError, match="no known world"):
        nl.world_of(latents)


def test_a_large_vocabulary_names_only_the_tokens_read() -> None:
    tokens = TOKENS * 1000 + 7
    latents = nl.extract(Reader(13_000), tokens, sites="norm")
    np.testing.assert_array_equal(nl.column(latents, "token_id").reshape(9, 6), tokens)
    assert nl.meta(latents)["vocabulary"] == [str(token) for token in np.unique(tokens)]
    np.testing.assert_array_equal(nl.tokens_of(latents), TOKENS)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sites": ["layer.0"]}, UnknownNameError, r"unknown site 'layer\.0'\. Did you mean 'layers\.0'"),
        ({"sites": "layers.*.upp"}, UnknownNameError, r"unknown site 'layers\.\*\.upp'"),
        ({}, LatentsError, r"name submodules, such as sites=\['embed'\]"),
        ({"sites": []}, LatentsError, "sites is empty"),
        ({"sites": "unused"}, LatentsError, "'unused' did not run"),
        ({"sites": "pool"}, LatentsError, r"'pool' gives a tensor of shape \(9, 8\), not \(9, 6, width\)"),
        ({"sites": "norm", "positions": [0]}, LatentsError, r"positions holds 0, and .* has no start token"),
        ({"sites": "norm", "positions": slice(-2, None)}, LatentsError, "a slice starts at 0 or later"),
        ({"sites": "norm", "positions": [9]}, LatentsError, "keeps no row"),
        ({"sites": "norm", "mask": REAL[:, :5]}, LatentsError, r"mask must have the shape of the tokens, \(9, 6\)"),
        ({"sites": "norm", "mask": np.eye(9, 6) == 0}, LatentsError, "mask has holes in"),
        (
            {"sites": "norm", "vocabulary": ["a"]},
            LatentsError,
            "vocabulary has 1 names, .* need at least 12",
        ),
        ({"sites": "norm", "dtype": "int8"}, (LatentsError, TypeError), "dtype"),
    ],
)
def test_errors_say_what_to_do(options: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        nl.extract(Reader(), TOKENS, **options)


def test_mistakes_with_checkpoints_and_positions_are_refused(checkpoint: Any) -> None:
    with pytest.raises(TypeError, match="must be Episodes or integers"):
        nl.extract(Reader(), TOKENS * 0.5, sites="norm")
    with pytest.raises(LatentsError, match="lengths and mask are for arrays"):
        nl.extract(Reader(), Episodes(TOKENS), sites="norm", lengths=LENGTHS)
    with pytest.raises(LatentsError, match="token -1 of episode 0, position 1"):
        nl.extract(Reader(), TOKENS * 0 - 1, sites="norm")
    with pytest.raises(LatentsError, match="call cannot be given for a Checkpoint"):
        nl.extract(checkpoint, call=lambda model, tokens, real: None)
    twice = Reader()
    twice.layers[1] = twice.layers[0]
    with pytest.raises(LatentsError, match="runs several times in one forward pass"):
        nl.extract(twice, TOKENS, sites="layers.0")


def test_the_order_and_the_gaps_of_own_columns_are_kept() -> None:
    episode, position = np.divmod(np.arange(54), 6)
    truth = pd.DataFrame({"episode": episode, "position": position + 1})
    order = ["small", "medium", "large"]
    truth["size"] = pd.Categorical(["small", "medium", None] * 18, categories=order, ordered=True)
    truth["known"] = pd.array([True, None, False] * 18, dtype="boolean")
    truth["whole"] = pd.array([True, False, False] * 18, dtype="boolean")
    obs = nl.extract(Reader(), TOKENS, sites="norm", truth=truth).obs
    assert list(obs["size"].cat.categories) == order
    assert obs["size"][:3].astype(object).tolist()[:2] == ["small", "medium"]
    assert obs["known"].cat.codes[:3].tolist() == [1, -1, 0]
    assert list(obs["known"].cat.categories) == ["False", "True"]
    assert obs["size"].isna().tolist() == [False, False, True] * 18
    assert obs["whole"].dtype == bool


def test_a_users_column_model_is_not_overwritten() -> None:
    latents = nl.extract(Reader(), TOKENS, sites="norm", truth={"model": TOKENS})
    with pytest.raises(LatentsError, match=r"obs\['model'\] is a column of your own.*rename it"):
        nl.concatenate([latents])


class Recurrent(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.embed, self.inner = nn.Embedding(12, 4), nn.LSTM(4, 4, batch_first=batch_first)

    def forward(self, tokens: Tensor) -> Tensor:
        read = self.embed(tokens)
        return self.inner(read if self.inner.batch_first else read.transpose(0, 1))[0]


@pytest.mark.parametrize("episodes", [6, 5])
def test_states_by_position_before_episode_are_refused(episodes: int) -> None:
    with pytest.raises(LatentsError, match="positions before episodes: build the model with batch_first=True"):
        nl.extract(Recurrent(batch_first=False), TOKENS[:episodes], sites="inner")
    assert nl.extract(Recurrent(batch_first=True), TOKENS[:episodes], sites="inner").n_obs == 6 * episodes


def test_complex_states_are_refused() -> None:
    class Phase(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.complex(x, x)

    with pytest.raises(LatentsError, match="'1' gives complex numbers, and a table holds real ones"):
        nl.extract(nn.Sequential(nn.Embedding(12, 4), Phase()), TOKENS, sites="1")


def test_mistakes_in_tokens_and_sites_are_named() -> None:
    with pytest.raises(LatentsError, match="lists of different lengths: pad them"):
        nl.extract(Reader(), [[1, 2], [3]], sites="norm")
    with pytest.raises(LatentsError, match=r"token -100 of episode 0, position 1.* Padding is left out with lengths="):
        nl.extract(Reader(), TOKENS * 0 - 100, sites="norm")
    with pytest.raises(LatentsError, match="ids up to 99 at 6 positions: its embeddings have 12 rows"):
        nl.extract(Reader(), TOKENS * 0 + 99, sites="norm")
    assert nl.sites(nl.extract(Reader(), TOKENS, sites=pd.Series(["embed", "norm"]))) == ["embed", "hidden"]
