from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from nextlat_viz import worlds
from nextlat_viz.analysis import ProbeResult, probe
from nextlat_viz.analysis.interventions.inject import SURE, Injector, belief_target, inject
from nextlat_viz.analysis.prediction import kl
from nextlat_viz.errors import LatentsError, UnknownNameError
from nextlat_viz.latents import extract
from nextlat_viz.training.checkpoint import Checkpoint, load

TARGET = [0.1, 0.8, 0.1]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load("mess3/nextlat")


@pytest.fixture(scope="module")
def latents(checkpoint: Checkpoint) -> AnnData:
    return extract(checkpoint, checkpoint.world.sample(80, 10, seed=1), progress=False)


@pytest.fixture(scope="module")
def belief(latents: AnnData) -> ProbeResult:
    return probe(latents, "belief", n_bootstrap=10)


@pytest.fixture(scope="module")
def state(latents: AnnData) -> ProbeResult:
    return probe(latents, "state", n_bootstrap=10)


@pytest.mark.parametrize("metric", ["covariance", "euclidean"])
def test_the_probe_reads_the_target(checkpoint: Checkpoint, latents: AnnData, belief: ProbeResult, metric: str) -> None:
    result = inject(checkpoint, latents, belief, 25, TARGET, metric=metric)  # type: ignore[arg-type]
    np.testing.assert_allclose(result.read_after, TARGET, atol=1e-6)
    np.testing.assert_allclose(result.read_before, belief.predict(latents)[25])
    np.testing.assert_allclose(result.hidden_before, latents.X[25])
    np.testing.assert_allclose(result.hidden_after - result.edit, result.hidden_before, atol=1e-12)
    assert result.size == pytest.approx(float(np.linalg.norm(result.edit)))
    with torch.no_grad():
        logits = checkpoint.model.logits(torch.as_tensor(result.hidden_after, dtype=torch.float32))
    np.testing.assert_allclose(result.probs_after, logits.softmax(-1), atol=1e-6)
    np.testing.assert_allclose(result.probs_before, latents.obsm["next_token_probs"][25], atol=1e-5)


def test_the_edit_has_the_smallest_norm(checkpoint: Checkpoint, latents: AnnData, belief: ProbeResult) -> None:
    # Two of three probabilities suffice: the third follows.
    read = belief.coef[:2]
    for metric, spread in (("euclidean", np.eye(64)), ("covariance", np.cov(latents.X.astype(float), rowvar=False))):
        result = inject(checkpoint, latents, belief, 25, TARGET, metric=metric)  # type: ignore[arg-type]
        missing = np.array(TARGET[:2]) - result.read_before[:2]
        expected = spread @ read.T @ np.linalg.solve(read @ spread @ read.T, missing)
        np.testing.assert_allclose(result.edit, expected, atol=1e-4 * result.size)


def test_no_other_edit_with_that_reading_is_smaller(
    checkpoint: Checkpoint, latents: AnnData, belief: ProbeResult
) -> None:
    result = inject(checkpoint, latents, belief, 25, TARGET, metric="euclidean")
    blind = np.linalg.svd(belief.coef)[2][3:]
    for other in np.random.default_rng(0).normal(size=(50, len(blind))) @ blind * 0.01:
        np.testing.assert_allclose(belief.read((result.hidden_after + other)[None])[0], TARGET, atol=1e-6)
        assert np.linalg.norm(result.edit + other) >= result.size


def test_exact_predictions_at_the_target(checkpoint: Checkpoint, latents: AnnData, belief: ProbeResult) -> None:
    result = inject(checkpoint, latents, belief, 25, TARGET, steps=3)
    world = worlds.get("mess3")
    current = np.array(TARGET)
    exact = [current @ world.transitions.sum(2).T]
    for token in latents.obs["token"].iloc[26:29].map(world.vocabulary.index):
        current = current @ world.transitions[token]
        current /= current.sum()
        exact.append(current @ world.transitions.sum(2).T)
    assert result.exact is not None
    np.testing.assert_allclose(result.exact, exact[0])
    np.testing.assert_allclose(result.exact_rollout, exact[1:])
    frame = result.to_frame()
    assert frame["before"][0] == result.kl_before == pytest.approx(float(kl(exact[0], result.probs_before)))
    assert result.rollout_after is not None
    assert frame["after"][2] == pytest.approx(float(kl(exact[2], result.rollout_after[1])))
    assert frame["token"].tolist() == [None, *result.tokens]


def test_the_models_prediction_follows_the_edit(checkpoint: Checkpoint, latents: AnnData, belief: ProbeResult) -> None:
    result = inject(checkpoint, latents, belief, 25, TARGET, steps=2)
    assert result.kl_before is not None
    assert result.kl_after is not None
    assert result.kl_control is not None
    assert result.kl_after < 0.1 * min(result.kl_before, result.kl_control)
    # The smallest Euclidean edit goes where latents do not differ: the probe moves, but not the model.
    small = inject(checkpoint, latents, belief, 25, TARGET, metric="euclidean")
    assert small.size < 0.1 * result.size
    assert small.kl_after == pytest.approx(small.kl_before, rel=0.1)


def test_random_edits_have_the_same_size(checkpoint: Checkpoint, latents: AnnData, belief: ProbeResult) -> None:
    first, same, other = (inject(checkpoint, latents, belief, 25, TARGET, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.probs_control, same.probs_control)
    assert not np.array_equal(first.probs_control, other.probs_control)
    assert first.probs_control.shape == (32, 3)
    np.testing.assert_allclose(first.edit, other.edit)


def test_the_rollout_starts_from_the_edited_state(
    checkpoint: Checkpoint, latents: AnnData, belief: ProbeResult
) -> None:
    result = inject(checkpoint, latents, belief, 25, TARGET, tokens=[2, 0])
    model = checkpoint.model
    with torch.no_grad():
        for start, rolled in (
            (result.hidden_before, result.rollout_before),
            (result.hidden_after, result.rollout_after),
        ):
            assert rolled is not None
            current = torch.as_tensor(start, dtype=torch.float32)
            for i, token in enumerate([2, 0]):
                current = model.psi(current, model.backbone.embed(torch.tensor(token)))  # type: ignore[operator]
                np.testing.assert_allclose(rolled[i], model.logits(current).softmax(-1), atol=1e-5)
    assert result.tokens == ("c", "a")
    assert len(inject(checkpoint, latents, belief, 28, TARGET, steps=5).tokens) == 1


def test_no_edit_if_the_probe_already_reads_the_target(
    checkpoint: Checkpoint, latents: AnnData, belief: ProbeResult
) -> None:
    result = inject(checkpoint, latents, belief, 25, belief.predict(latents)[25])
    assert result.size == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(result.probs_after, result.probs_before, atol=1e-6)


@pytest.mark.parametrize("metric", ["covariance", "euclidean"])
def test_a_class_is_targeted_by_name(checkpoint: Checkpoint, latents: AnnData, state: ProbeResult, metric: str) -> None:
    result = inject(checkpoint, latents, state, 25, "B", metric=metric)  # type: ignore[arg-type]
    at = state.names.index("B")
    assert result.read_after[at] >= SURE - 1e-6
    assert result.target.tolist() == np.eye(3)[at].tolist()
    world = worlds.get("mess3")
    np.testing.assert_allclose(result.exact, world.predict(np.eye(3)[1]))


def test_the_edit_to_a_class_has_the_smallest_norm(
    checkpoint: Checkpoint, latents: AnnData, state: ProbeResult
) -> None:
    result = inject(checkpoint, latents, state, 25, "B", metric="euclidean")
    at = state.names.index("B")
    gaps = np.delete(state.coef[at] - state.coef, at, axis=0)
    logits = state.coef @ result.hidden_before + state.intercept
    need = np.log(SURE / (1 - SURE) * 2) - np.delete(logits[at] - logits, at)
    slow = minimize(
        lambda edit: edit @ edit, np.zeros(64), jac=lambda edit: 2 * edit, method="SLSQP", options={"ftol": 1e-12},
        constraints={"type": "ineq", "fun": lambda edit: gaps @ edit - need, "jac": lambda _: gaps},
    )  # fmt: skip
    assert result.size == pytest.approx(float(np.linalg.norm(slow.x)), rel=1e-3)


@given(st.integers(0, 799), st.integers(0, 2), st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_any_state_can_be_edited_to_any_class(row: int, to: int, seed: int) -> None:
    checkpoint = load_once("mess3/nextlat")
    target = np.random.default_rng(seed).dirichlet(np.ones(3))
    latents, belief, state = read_once()
    np.testing.assert_allclose(inject(checkpoint, latents, belief, row, target).read_after, target, atol=1e-5)
    assert inject(checkpoint, latents, state, row, "ABC"[to]).read_after[state.names.index("ABC"[to])] > SURE - 1e-5


_KEPT: dict[str, Checkpoint] = {}
_READ: list[tuple[AnnData, ProbeResult, ProbeResult]] = []


def load_once(name: str) -> Checkpoint:
    return _KEPT.setdefault(name, load(name))


def read_once() -> tuple[AnnData, ProbeResult, ProbeResult]:
    if not _READ:
        checkpoint = load_once("mess3/nextlat")
        latents = extract(checkpoint, checkpoint.world.sample(80, 10, seed=1), progress=False)
        _READ.append((latents, probe(latents, n_bootstrap=10), probe(latents, "state", n_bootstrap=10)))
    return _READ[0]


def test_a_model_without_psi_has_no_rollout() -> None:
    checkpoint = load("mess3/next_token")
    latents = extract(checkpoint, checkpoint.world.sample(80, 10, seed=1), progress=False)
    result = inject(checkpoint, latents, probe(latents, n_bootstrap=10), 25, TARGET, steps=3)
    assert result.rollout_before is result.rollout_after is result.exact_rollout is None
    assert result.exact is not None
    assert len(result.to_frame()) == 1
    assert "random edits" in result._repr_html_()


def test_exact_predictions_end_at_an_impossible_token() -> None:
    checkpoint = load("rrxor/nextlat")
    latents = extract(checkpoint, checkpoint.world.sample(80, 10, seed=1), progress=False)
    fitted = probe(latents, min_position=3, n_bootstrap=10)
    # State T emits only 1.
    result = inject(checkpoint, latents, fitted, 25, belief_target(checkpoint.world, "XOR 1"), tokens=[1, 0, 1, 0, 0])
    assert result.exact_rollout is not None
    known = np.isfinite(result.exact_rollout).all(axis=1)
    assert known[0]
    impossible = inject(checkpoint, latents, fitted, 25, belief_target(checkpoint.world, "XOR 1"), tokens=[0, 1])
    assert impossible.exact_rollout is not None
    assert np.isnan(impossible.exact_rollout).all()
    assert impossible.to_frame()["after"].isna().tolist() == [False, True, True]


def test_no_exact_prediction_outside_the_simplex(checkpoint: Checkpoint, latents: AnnData, belief: ProbeResult) -> None:
    result = inject(checkpoint, latents, belief, 25, [-0.2, 1.4, -0.2], steps=1)
    assert result.exact is result.kl_after is result.kl_control is None
    assert result.rollout_after is not None
    assert "exact" not in result._repr_html_()


def test_other_columns_have_no_exact_prediction(checkpoint: Checkpoint, latents: AnnData) -> None:
    result = inject(checkpoint, latents, probe(latents, "token", n_bootstrap=10), 25, "c")
    assert result.exact is None
    np.testing.assert_allclose(result.target, [0, 0, 1])


def test_an_injector_makes_the_same_injections(checkpoint: Checkpoint, latents: AnnData, belief: ProbeResult) -> None:
    injector = Injector(checkpoint, latents, belief, seed=3)
    for row in (25, 26):
        several = injector.inject(row, TARGET, steps=2)
        single = inject(checkpoint, latents, belief, row, TARGET, steps=2, seed=3)
        assert (several.position, several.tokens) == (single.position, single.tokens)
        for name in ("edit", "probs_after", "probs_control", "rollout_after"):
            np.testing.assert_array_equal(getattr(several, name), getattr(single, name))
        assert several.relative_size == single.relative_size


def test_bad_targets_are_refused(
    checkpoint: Checkpoint, latents: AnnData, belief: ProbeResult, state: ProbeResult
) -> None:
    def refused(error: type[Exception], match: str, fitted: ProbeResult, target: object, **options: object) -> None:
        with pytest.raises(error, match=match):
            inject(checkpoint, latents, fitted, 25, target, **options)  # type: ignore[arg-type]

    refused(ValueError, r"no edit makes the probe read it, the nearest misses by 0.33", belief, [1.0, 1.0, 0.0])
    refused(ValueError, "target must be 3 finite numbers, one for each of A, B, C", belief, [0.5, 0.5])
    refused(ValueError, "target must be 3 finite numbers", belief, [np.nan, 0.5, 0.5])
    refused(ValueError, "this probe reads numbers, give 3", belief, "B")
    refused(ValueError, "must be the name of a class", state, [0.0, 1.0, 0.0])
    refused(UnknownNameError, "unknown class of 'state' 'D'", state, "D")
    refused(ValueError, "tokens must be ids from 0 to 2", belief, TARGET, tokens=[3])
    refused(ValueError, "not both", belief, TARGET, tokens=[1], steps=2)
    refused(ValueError, "steps=-1", belief, TARGET, steps=-1)
    same = replace(state, coef=np.zeros_like(state.coef))
    refused(ValueError, "cannot be told apart", same, "B")
    with pytest.raises(UnknownNameError, match="unknown metric 'euclid'"):
        # Without the type check of the tests.
        inspect.unwrap(Injector.__init__)(object.__new__(Injector), checkpoint, latents, belief, metric="euclid")


def test_probes_and_latents_of_other_models_are_refused(
    checkpoint: Checkpoint, latents: AnnData, belief: ProbeResult
) -> None:
    with pytest.raises(LatentsError, match="reads site 'block0'"):
        inject(checkpoint, latents, probe(latents, site="block0", n_bootstrap=10), 25, TARGET)
    with pytest.raises(LatentsError, match="row=800"):
        inject(checkpoint, latents, belief, 800, TARGET)
    with pytest.raises(LatentsError, match="a probe holds for one model"):
        inject(checkpoint, latents, replace(belief, weights_sha256="0" * 64), 25, TARGET)
    with pytest.raises(LatentsError, match="predicts other next tokens"):
        inject(checkpoint.untrained().model, latents, belief, 25, TARGET)


def test_belief_target_takes_names() -> None:
    rrxor = worlds.get("rrxor")
    assert belief_target(rrxor, "XOR 1").tolist() == [0, 0, 0, 1, 0]
    assert belief_target(rrxor, [0.5, 0.5, 0, 0, 0]).tolist() == [0.5, 0.5, 0, 0, 0]
    with pytest.raises(UnknownNameError, match="unknown state 'X'"):
        belief_target(rrxor, "X")
    with pytest.raises(ValueError, match="sum to 1"):
        belief_target(rrxor, [1, 1, 0, 0, 0])
    with pytest.raises(ValueError, match="'a5' has no beliefs to inject"):
        belief_target(worlds.get("a5"), "B")
