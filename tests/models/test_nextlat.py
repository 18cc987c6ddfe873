"""NextLat against an independent literal reading of its equations: plain loops over rows, positions and steps."""

import math

import pytest
import torch

from nextlat_viz.models import Batch, NextLat, NextToken, Transformer
from nextlat_viz.worlds import Episodes

from .literal import BATCHES, CONFIG, agree, drawn, make_batch


def make_objective(horizon=2, lambda_h=1.5, lambda_kl=0.7, **options):
    return drawn(lambda: NextLat(Transformer(CONFIG), horizon, lambda_h, lambda_kl, psi_width=10, **options))


def literal_losses(objective, batch):
    """Compute equations 5, 6, 8 and 9 term by term; gradients flow exactly where the paper says."""
    backbone, psi = objective.backbone, objective.psi
    hidden = backbone(batch.inputs, batch.documents)
    head = backbone.head.weight
    frozen = head.detach() if objective.freeze_head else head
    next_token, next_h, kl = [], [], []
    rows, length = batch.inputs.shape
    for b in range(rows):
        for t in range(length):
            if batch.target_mask[b, t]:
                next_token.append(-(head @ hidden[b, t]).log_softmax(0)[batch.targets[b, t]])
            predicted = hidden[b, t]
            for i in range(1, objective.horizon + 1):
                if t + i >= length:
                    break
                pair = torch.cat([predicted, backbone.embed.weight[batch.inputs[b, t + i]]])
                normed = (pair - pair.mean()) / torch.sqrt(pair.var(correction=0) + psi.norm.eps)
                x = normed * psi.norm.weight + psi.norm.bias
                for layer in psi.layers:
                    x = layer.weight @ x + layer.bias if isinstance(layer, torch.nn.Linear) else gelu(x)
                predicted = predicted + x
                same = batch.documents is None or batch.documents[b, t] == batch.documents[b, t + i]
                if not (batch.valid[b, t + i] and same):
                    continue
                target = hidden[b, t + i].detach() if objective.stop_target else hidden[b, t + i]
                difference = (target - predicted).abs()
                next_h.append(torch.where(difference < 1, difference**2 / 2, difference - 0.5).mean())
                if batch.target_mask[b, t + i]:
                    p = (frozen @ target).softmax(0)
                    q = (frozen @ predicted).softmax(0)
                    if objective.token_term == "ce":
                        kl.append(-q.log()[batch.targets[b, t + i]])
                    else:
                        kl.append((p * (p.log() - q.log())).sum())
    mean = {"next_token": next_token, "next_h": next_h, objective.token_term: kl}
    losses = {name: torch.stack(terms).mean() for name, terms in mean.items()}
    losses["loss"] = (
        losses["next_token"]
        + objective.lambda_h * losses["next_h"]
        + objective.lambda_kl * losses[objective.token_term]
    )
    return losses


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


@pytest.mark.parametrize("horizon", [1, 2, 5])
@pytest.mark.parametrize("case", BATCHES)
def test_values_and_gradients_agree_with_the_equations(horizon, case):
    batch = make_batch(**BATCHES[case])
    agree(lambda: make_objective(horizon), literal_losses, batch, ("loss", "next_token", "next_h", "kl"))


@pytest.mark.parametrize(
    "ablation", [{"token_term": "ce"}, {"stop_target": False}, {"freeze_head": False}, {"psi_layers": 2}]
)
def test_ablations_agree_with_the_equations(ablation):
    names = ("loss", "next_h", ablation.get("token_term", "kl"))
    agree(lambda: make_objective(2, **ablation), literal_losses, make_batch(prompt=2), names)


@pytest.mark.parametrize("name", ["next_h", "kl"])
def test_latent_losses_never_reach_the_head(name):
    objective = make_objective()
    objective(make_batch())[name].backward()
    head = objective.backbone.head.weight.grad
    assert head is None or not head.any()
    assert all(parameter.grad.any() for parameter in objective.psi.parameters())
    assert objective.backbone.blocks[0].attention.qkv.weight.grad.any()
    assert objective.backbone.embed.weight.grad.any()


@pytest.mark.parametrize("name", ["next_h", "kl"])
def test_latent_losses_never_reach_their_target(name):
    """With the starting state detached, gradients can reach the trunk only through embeddings."""
    objective = make_objective(horizon=2)
    batch = make_batch()
    states = objective.backbone.states(batch.inputs)
    hidden, embeddings = states["hidden"], states["embed"].detach()
    start = hidden.detach().requires_grad_()

    class Recorder(torch.autograd.Function):
        """Passes the target's values on and fails if a gradient comes back."""

        @staticmethod
        def forward(_, x):
            return x.clone()

        @staticmethod
        def backward(_, gradient):
            assert not gradient.any(), "a gradient reached the target"
            return gradient

    rolled = objective.psi.rollout(start, embeddings, 2)
    guarded = Recorder.apply(hidden)
    objective.backbone.states = lambda *_: {"hidden": guarded, "embed": embeddings}
    objective.psi.rollout = lambda *_: rolled
    objective(batch)[name].backward()
    assert start.grad.any()
    assert all(parameter.grad is None for parameter in objective.backbone.parameters())


def test_next_token_loss_equals_the_baselines():
    objective = make_objective()
    baseline = NextToken(objective.backbone)
    batch = make_batch(prompt=2)
    torch.testing.assert_close(objective(batch)["next_token"], baseline(batch)["loss"])


def test_perfect_dynamics_have_no_loss():
    """A psi that gives the true next state has no latent loss: here the trunk's state never changes."""
    objective = make_objective(horizon=3)
    objective.backbone.norm.weight.data.zero_()
    objective.psi.layers[-1].weight.data.zero_()
    objective.psi.layers[-1].bias.data.zero_()
    losses = objective(make_batch())
    assert losses["next_h"] == losses["kl"] == 0


@pytest.mark.parametrize("horizon", [0, 8])
def test_horizon_must_fit_the_context(horizon):
    with pytest.raises(ValueError, match=f"horizon={horizon}.*context of 8"):
        make_objective(horizon)


def test_batch_from_episodes_shifts_by_one(simple_episodes):
    batch = Batch.from_episodes(simple_episodes)
    assert batch.inputs.tolist() == [[1, 2, 3], [3, 2, 0]]
    assert batch.targets.tolist() == [[2, 3, 0], [2, 0, 0]]
    assert batch.target_mask.tolist() == [[False, True, True], [True, False, False]]
    assert batch.valid.tolist() == [[True, True, True], [True, True, False]]


@pytest.fixture
def simple_episodes():
    return Episodes(
        tokens=torch.tensor([[1, 2, 3, 0], [3, 2, 0, 0]]).numpy(),
        states={},
        loss_mask=torch.tensor([[True, False, True, True], [True, True, False, False]]).numpy(),
        length=torch.tensor([4, 2]).numpy(),
        targets=None,
    )


@pytest.mark.parametrize(
    ("weights", "terms"),
    [
        ({"lambda_kl": 0.0}, {"next_token", "next_h"}),
        ({"lambda_h": 0.0}, {"next_token", "kl"}),
        ({"lambda_h": 0.0, "lambda_kl": 0.0}, {"next_token"}),
    ],
)
def test_a_loss_of_weight_zero_is_not_computed(monkeypatch, weights, terms):
    objective, batch = make_objective(**weights), make_batch()
    steps, states = [], []
    sums, state_loss = objective._sums, objective.state_loss
    monkeypatch.setattr(objective, "_sums", lambda *a: steps.extend(a[-1]) or sums(*a))
    monkeypatch.setattr(objective, "state_loss", lambda *a: states.append(1) or state_loss(*a))
    losses = objective(batch)
    assert (bool(steps), bool(states)) == ("kl" in terms, "next_h" in terms)
    assert set(losses) == terms | {"loss"}
    assert set(objective.weights) == set(objective.counts(batch)) == terms
    literal = literal_losses(objective, batch)
    for name in losses:
        torch.testing.assert_close(losses[name], literal[name])
