from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nextlat_viz import worlds
from nextlat_viz.analysis import losses
from nextlat_viz.analysis.dynamics import lengthened, psi_rollout, rollout_divergence, transition_consistency
from nextlat_viz.analysis.losses import layer_contributions, length_generalisation
from nextlat_viz.analysis.measure import clustered
from nextlat_viz.decoding import UniformLegal
from nextlat_viz.latents.extraction import HELDOUT_SEED
from nextlat_viz.training import Checkpoint, load

from .models import changed, fresh, last_token_only


@pytest.fixture(scope="module")
def nextlat() -> Checkpoint:
    return load("rrxor/nextlat")


@pytest.fixture(scope="module")
def baseline() -> Checkpoint:
    return load("rrxor/next_token")


def value(measure, **where) -> float:
    table = measure.table
    for column, expected in where.items():
        table = table[table[column] == expected]
    (result,) = table["value"]
    return float(result)


def test_exact_dynamics_have_no_error() -> None:
    checkpoint = last_token_only()
    assert transition_consistency(checkpoint, n=8).table["value"].iloc[0] == pytest.approx(0, abs=1e-9)
    result = rollout_divergence(checkpoint, steps=4, n=8, progress=False)
    np.testing.assert_allclose(result.table["value"], 0, atol=1e-6)


def test_dynamics_that_change_nothing_score_one(nextlat: Checkpoint) -> None:
    still = changed(nextlat, lambda hidden, embedding: hidden)
    result = transition_consistency(still, n=16)
    assert result.table["value"].iloc[0] == pytest.approx(1) == result.references["no change"]
    relative = rollout_divergence(still, steps=5, n=16, progress=False).table.query("quantity == 'relative'")
    np.testing.assert_allclose(relative["value"], 1)


def test_rollout_divergence_equals_its_definition(nextlat: Checkpoint) -> None:
    n, steps, model = 6, 3, nextlat.model
    tokens = nextlat.world.sample(n, 13, seed=HELDOUT_SEED).tokens[:, :-1]
    squares, still, distances, divergences = (np.zeros(steps) for _ in range(4))
    with torch.no_grad():
        read = model.backbone.started(torch.as_tensor(tokens))
        hidden, embed = model.backbone(read), model.backbone.embed(read)
        for row in range(n):
            # From the start token, which is position 0, to the last token.
            for t in range(13):
                rolled = hidden[row, t]
                for k in range(1, min(steps, 12 - t) + 1):
                    rolled, true = model.psi(rolled, embed[row, t + k]), hidden[row, t + k]
                    squares[k - 1] += float((rolled - true).square().sum())
                    still[k - 1] += float((hidden[row, t] - true).square().sum())
                    distances[k - 1] += float((rolled - true).norm())
                    p, q = (model.backbone.logits(h).log_softmax(-1) for h in (true, rolled))
                    divergences[k - 1] += float(F.kl_div(q, p, log_target=True, reduction="sum"))
    pairs = n * (13 - np.arange(1, steps + 1))
    result = rollout_divergence(nextlat, steps=steps, n=n, progress=False)
    for k in range(steps):
        assert value(result, k=k + 1, quantity="relative") == pytest.approx(squares[k] / still[k], rel=1e-4)
        assert value(result, k=k + 1, quantity="distance") == pytest.approx(distances[k] / pairs[k], rel=1e-4)
        assert value(result, k=k + 1, quantity="kl") == pytest.approx(divergences[k] / pairs[k], rel=1e-2, abs=1e-6)
    assert transition_consistency(nextlat, n=n).table["value"].iloc[0] == pytest.approx(squares[0] / still[0], rel=1e-4)
    assert set(result.table["horizon"]) == {nextlat.card.config.horizon}


def test_prompts_count_for_states_but_not_for_predictions() -> None:
    """Path-Star scores only its answer, but psi's errors on the prompt count."""
    world = worlds.get("path_star", arms=2, nodes_per_arm=2, node_ids=8, train_size=50, test_size=20)
    checkpoint, n = fresh(world, context=world.length), 5
    episodes = world.sample(n, seed=HELDOUT_SEED, split="test")
    model = checkpoint.model
    tokens = model.backbone.started(torch.as_tensor(episodes.tokens[:, :-1]))
    divergences, missed, moved = [], 0.0, 0.0
    with torch.no_grad():
        states = model.backbone.states(tokens)
        for row in range(n):
            for t in range(1, tokens.shape[1]):
                before, true = states["hidden"][row, t - 1], states["hidden"][row, t]
                guess = model.psi(before, states["embed"][row, t])
                missed += float((guess - true).square().sum())
                moved += float((true - before).square().sum())
                if episodes.loss_mask[row, t]:
                    p, q = (model.logits(h).softmax(-1).double() for h in (true, guess))
                    divergences.append(float((p * (p / q).log()).sum()))
    assert len(divergences) == n * 3
    result = rollout_divergence(checkpoint, steps=1, n=n, progress=False)
    assert value(result, quantity="kl") == pytest.approx(np.mean(divergences), rel=1e-3)
    assert value(result, quantity="relative") == pytest.approx(missed / moved, rel=1e-5)


def test_padding_does_not_count() -> None:
    """Taxi rides have different lengths; positions after the end have no state."""
    world = worlds.get("taxi")
    result = rollout_divergence(fresh(world, context=world.length), steps=2, n=6, progress=False)
    episodes = world.sample(6, seed=HELDOUT_SEED, split="test")
    model = fresh(world, context=world.length).model
    distances = []
    with torch.no_grad():
        for tokens, length in zip(episodes.tokens, episodes.length, strict=True):
            read = model.backbone.started(torch.as_tensor(tokens[None, : min(length, world.length - 1)]))
            states = model.backbone.states(read)
            rolled = model.psi.rollout(states["hidden"], states["embed"], 2)[1]
            distances += (rolled - states["hidden"][:, 2:]).norm(dim=-1)[0].tolist()
    assert value(result, k=2, quantity="distance") == pytest.approx(np.mean(distances), rel=1e-4)


def test_psi_rollout_starts_from_any_true_state(nextlat: Checkpoint) -> None:
    tokens = nextlat.world.sample(3, 20, seed=1).tokens
    rolled = psi_rollout(nextlat, tokens, start=4)
    model = nextlat.model
    with torch.no_grad():
        states = model.backbone(model.backbone.started(torch.as_tensor(tokens[:, :4])))[:, 1:]
        np.testing.assert_allclose(rolled[:, :4], states, atol=1e-5)
        state = states[:, -1]
        for t in range(4, 20):
            state = model.psi(state, model.backbone.embed(torch.as_tensor(tokens[:, t])))
            np.testing.assert_allclose(rolled[:, t], state, atol=1e-4)
    for start in (-1, 13):
        with pytest.raises(ValueError, match=f"start={start} must be between 0 and 12"):
            psi_rollout(nextlat, tokens, start=start)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        psi_rollout(nextlat, tokens + 1)
    with pytest.raises(ValueError, match="integers"):
        psi_rollout(nextlat, tokens[0])


def test_a_lengthened_transformer_is_unchanged_within_its_context(nextlat: Checkpoint) -> None:
    backbone = nextlat.model.backbone
    longer = lengthened(backbone, 20)
    tokens = torch.as_tensor(nextlat.world.sample(3, 20, seed=2).tokens)
    with torch.no_grad():
        torch.testing.assert_close(longer(tokens)[:, :12], backbone(tokens[:, :12]))
    assert (backbone.config.context, longer.config.context) == (12, 20)
    assert lengthened(backbone, 12) is backbone


def test_loss_by_position(nextlat: Checkpoint, baseline: Checkpoint) -> None:
    result = length_generalisation([nextlat, baseline], length=16, n=64, progress=False)
    table = result.table
    assert set(table.query("objective == 'next_token'")["reader"]) == {"transformer", "true world"}
    assert table.groupby("reader")["position"].nunique().to_dict() == dict.fromkeys(
        ("psi", "transformer", "true world"), 17
    )
    assert table["trained"].eq(table["position"] <= 12).all()
    episodes = nextlat.world.sample(64, 17, seed=HELDOUT_SEED)
    law = nextlat.world.next_token_probs(episodes.tokens)[:, :16]
    first = np.broadcast_to(nextlat.world.start_probs(), (64, 1, law.shape[-1]))
    law = np.concatenate([first, law], axis=1)
    exact = -np.log(np.take_along_axis(law, episodes.tokens[:, :, None], axis=2)).mean(axis=(0, 2))
    floor = table.query("reader == 'true world' and objective == 'nextlat'")
    np.testing.assert_allclose(floor["value"], exact)
    np.testing.assert_allclose(floor["kl"], 0, atol=1e-12)
    # The first state is the transformer's own for both; and no reader is better than the law.
    first = table.query("objective == 'nextlat' and position == 0").set_index("reader")["value"]
    assert first["psi"] == pytest.approx(first["transformer"])
    assert (table["kl"] > -1e-12).all()


def test_length_generalisation_of_targets() -> None:
    world = worlds.get("a5")
    result = length_generalisation(fresh(world), length=20, n=8, progress=False).table
    assert result["position"].max() == 20
    truth = result[result["reader"] == "true world"]
    # Nothing is scored at position 0, where no label has been asked for.
    assert truth["position"].tolist() == list(range(21))
    np.testing.assert_array_equal(truth["value"].iloc[1:], 0)
    np.testing.assert_allclose(result["kl"], result["value"])


def test_unscored_positions_are_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    world = worlds.get("path_star", arms=2, nodes_per_arm=3, node_ids=8, train_size=50, test_size=20)
    checkpoint = fresh(world, "next_token", context=world.length)
    result = length_generalisation(checkpoint, n=8, progress=False).table.query("reader == 'transformer'")
    assert result["position"].tolist() == list(range(world.length))
    scored = result["position"] >= world.prompt
    assert result["trials"].tolist() == np.where(scored, 8, 0).tolist()
    assert result["value"].notna().eq(scored).all()
    monkeypatch.setattr(type(world), "next_token_probs", lambda self, tokens: None)
    unknown = length_generalisation(checkpoint, n=8, progress=False).table
    assert set(unknown["reader"]) == {"transformer"}
    assert unknown["kl"].isna().all()
    with pytest.raises(ValueError, match=f"length=40 must be at most {world.length - 1}"):
        length_generalisation(checkpoint, length=40)


def test_packed_documents_are_refused(nextlat: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    episodes = nextlat.world.sample(4, 13, seed=0)
    packed = replace(episodes, states={"document": np.zeros_like(episodes.tokens)})
    monkeypatch.setattr(losses, "heldout_episodes", lambda *args, **options: packed)
    with pytest.raises(ValueError, match="has several documents"):
        length_generalisation(nextlat, length=12)


def test_exact_dynamics_track_states_at_any_length() -> None:
    result = length_generalisation(last_token_only(), length=40, n=8, progress=False).table
    losses = result.pivot_table(index="position", columns="reader", values="value")
    np.testing.assert_allclose(losses["psi"], losses["transformer"], rtol=1e-5)


def test_layer_contributions_of_blocks_that_write_nothing() -> None:
    checkpoint = last_token_only()
    result = layer_contributions(checkpoint, n=8, progress=False)
    sites = checkpoint.model.backbone.sites[:-1]
    losses = [value(result, site=site, quantity="loss") for site in sites]
    assert losses == pytest.approx([losses[0]] * len(sites))
    assert value(result, site="block1", quantity="norm") == 0
    assert value(result, site="block1", quantity="cosine") == 0


def test_layer_contributions_of_a_block_that_doubles_and_of_a_trained_model(nextlat: Checkpoint) -> None:
    result = layer_contributions(nextlat, n=32, progress=False)
    episodes = nextlat.world.sample(32, 13, seed=HELDOUT_SEED)
    tokens = torch.as_tensor(episodes.tokens)
    with torch.no_grad():
        states = nextlat.model.backbone.states(nextlat.model.backbone.started(tokens[:, :-1]))
        logits = nextlat.model.logits(states["hidden"])
        own = F.cross_entropy(logits.flatten(0, 1), tokens.flatten())
        update = states["block2"] - states["block1"]
        norm = (update.norm(dim=-1) / states["block1"].norm(dim=-1)).mean()
        cosine = ((update * states["block1"]).sum(-1) / update.norm(dim=-1) / states["block1"].norm(dim=-1)).mean()
    assert value(result, site="block3", quantity="loss") == pytest.approx(float(own), rel=1e-5)
    assert value(result, site="block2", quantity="norm") == pytest.approx(float(norm), rel=1e-5)
    assert value(result, site="block2", quantity="cosine") == pytest.approx(float(cosine), rel=1e-4)


def test_means_over_episodes_and_their_errors() -> None:
    rng = np.random.default_rng(0)
    sums = rng.normal(3, 1, size=500)
    plain = clustered(sums, np.ones(500))
    assert plain["value"] == pytest.approx(sums.mean())
    assert plain["error"] == pytest.approx(sums.std(ddof=1) / np.sqrt(500))
    # Episodes without a count are left out; an error in an episode that never moves stays in.
    assert clustered(np.array([1.0, 0, 3, 0]), np.array([1.0, 0, 1, 0]))["trials"] == 2
    assert clustered(np.array([1.0, 1.0]), np.array([4.0, 0]))["value"] == 0.5
    assert np.isnan(clustered(np.zeros(3), np.zeros(3))["value"])
    with pytest.raises(ValueError, match="never change"):
        clustered(np.ones(2), np.zeros(2))
    with pytest.raises(ValueError, match="1 of 2 episodes or puzzles give NaN"):
        clustered(np.array([np.nan, 1]), np.ones(2))


def test_the_error_equals_the_spread_of_repeated_draws() -> None:
    """A ratio of sums with correlated numerator and denominator, drawn 1,000 times."""
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 9, size=(1000, 60)).astype(float)
    sums = counts * 2 + rng.normal(size=counts.shape)
    result = [clustered(s, c) for s, c in zip(sums, counts, strict=True)]
    varies = np.std([item["value"] for item in result])
    assert np.mean([item["error"] for item in result]) == pytest.approx(varies, rel=0.1)


def test_bad_input_is_refused(nextlat: Checkpoint, baseline: Checkpoint) -> None:
    with pytest.raises(ValueError, match=r"trained by next_token, which has no latent dynamics psi.*nextlat"):
        transition_consistency([nextlat, baseline])
    with pytest.raises(ValueError, match="no hidden states"):
        rollout_divergence(UniformLegal(worlds.get("rrxor")))
    with pytest.raises(ValueError, match="steps=12 must be between 1 and 11"):
        rollout_divergence(nextlat, steps=12)
    with pytest.raises(ValueError, match="n=1 must be at least 2"):
        transition_consistency(nextlat, n=1)
    broken = changed(nextlat, lambda hidden, embedding: hidden * torch.nan)
    with pytest.raises(ValueError, match="NaN or infinity"):
        transition_consistency(broken, n=4)
