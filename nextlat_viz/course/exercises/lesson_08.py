"""Lesson 8, next-latent prediction: the two losses on psi's guesses, checked by value and gradient."""

from __future__ import annotations

from typing import Any

import lazy_loader

from nextlat_viz.course.exercise import Exercise, RightOption

torch = lazy_loader.load("torch")


def latent_losses(hidden, guess, head):
    """Return the two losses (next_h, kl) of psi's guesses, with their stop-gradients."""
    target, head = hidden[1:].detach(), head.detach()
    next_h = torch.nn.functional.smooth_l1_loss(guess, target)
    log_p, log_q = (target @ head.T).log_softmax(-1), (guess @ head.T).log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    return next_h, kl


def _cases(rng):
    # Small errors, where SmoothL1 is a square; then large ones, where it is not.
    for positions, width, tokens, size in [(3, 2, 2, 0.3), (5, 4, 3, 1.0), (6, 3, 5, 4.0)]:
        hidden = rng.normal(size=(positions, width))
        yield hidden, hidden[1:] + size * rng.normal(size=(positions - 1, width)), rng.normal(size=(tokens, width))


def _with_gradients(function, hidden, guess, head):
    """Call a function on tensors, and return both losses with their gradients at all three arguments."""
    tensors = {"hidden": hidden, "guess": guess, "head": head}
    leaves = {name: torch.tensor(values, requires_grad=True) for name, values in tensors.items()}
    losses = function(*(leaf.clone() for leaf in leaves.values()))
    if not isinstance(losses, tuple) or len(losses) != 2 or not all(isinstance(loss, torch.Tensor) for loss in losses):
        raise TypeError(f"expected two tensors, return next_h, kl, and got {type(losses).__name__}")
    outcome: dict[str, Any] = {}
    for name, loss in zip(("next_h", "kl"), losses, strict=True):
        if loss.shape != ():
            raise ValueError(f"{name} has shape {tuple(loss.shape)}, expected a single number: take the mean")
        outcome[name] = float(loss)
        gradients: Any = [None] * len(leaves)
        if loss.requires_grad:
            gradients = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True, allow_unused=True)
        for (argument, leaf), gradient in zip(leaves.items(), gradients, strict=True):
            zero = torch.zeros_like(leaf) if gradient is None else gradient
            outcome[f"gradient of {name} at {argument}"] = zero.numpy()
    return outcome


def _describe(hidden, guess, head):
    return (
        f"{len(hidden)} hidden states of {hidden.shape[1]} numbers, psi's guesses of all but the first, a head of "
        f"{len(head)} tokens"
    )


def _next_h(target, guess, **options):
    return torch.nn.functional.smooth_l1_loss(guess, target, **options)


def _kl(target, guess, head, head_of_guess=None):
    """Mean of KL(head(target) || head(guess)) over positions, with nothing stopped."""
    log_p = (target @ head.T).log_softmax(-1)
    log_q = (guess @ (head if head_of_guess is None else head_of_guess).T).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()


exercise = Exercise(
    latent_losses,
    _cases,
    describe=_describe,
    call=_with_gradients,
    mistakes=(
        (
            lambda hidden, guess, head: (_next_h(hidden[1:], guess), _kl(hidden[1:], guess, head.detach())),
            "The values are right, and a gradient reaches the targets. The states would be moved towards the "
            "guesses, and all states at one point have the smallest loss of all. Stop it: hidden[1:].detach().",
        ),
        (
            lambda hidden, guess, head: (_next_h(hidden[1:].detach(), guess), _kl(hidden[1:], guess, head.detach())),
            "The target of next_h is stopped, that of kl is not: both compare with hidden[1:].detach().",
        ),
        (
            lambda hidden, guess, head: (_next_h(hidden[1:].detach(), guess), _kl(hidden[1:].detach(), guess, head)),
            "The values are right, and kl trains the head. The head should learn from the true tokens alone: "
            "head.detach().",
        ),
        (
            lambda hidden, guess, head: (
                _next_h(hidden[1:].detach(), guess),
                _kl(hidden[1:].detach(), guess, head.detach(), head),
            ),
            "The head is frozen where it reads the targets and trained where it reads the guesses: freeze both.",
        ),
        (
            lambda hidden, guess, head: (_next_h(hidden[1:], guess), _kl(hidden[1:], guess, head)),
            "The values are right, and no gradient is stopped: neither at the targets nor at the head.",
        ),
        (
            lambda hidden, guess, head: latent_losses(hidden, guess.detach(), head),
            "The guesses are detached, so psi learns nothing. The stop-gradient belongs on the target.",
        ),
        (
            lambda hidden, guess, head: latent_losses(torch.cat([hidden[:1], hidden[:-1]]), guess, head),
            "guess[0] is psi's guess of hidden[1], not of hidden[0]: compare with hidden[1:].",
        ),
        (
            lambda hidden, guess, head: (
                _next_h(hidden[1:].detach(), guess),
                _kl(guess, hidden[1:].detach(), head.detach()),
            ),
            "The divergence is the wrong way round: KL(p || q) weighs with p, the prediction from the true state.",
        ),
        (
            lambda hidden, guess, head: (
                _next_h(hidden[1:].detach(), guess, reduction="sum"),
                _kl(hidden[1:].detach(), guess, head.detach()) * len(guess),
            ),
            "These are sums. Both losses are means over positions, next_h over dimensions too.",
        ),
        (
            lambda hidden, guess, head: (
                ((guess - hidden[1:].detach()) ** 2).mean(),
                latent_losses(hidden, guess, head)[1],
            ),
            "next_h is the mean square. SmoothL1 is half the square up to 1, and then a straight line.",
        ),
        (
            lambda hidden, guess, head: (
                latent_losses(hidden, guess, head)[0],
                latent_losses(hidden, guess, head)[1] / len(head),
            ),
            "kl is divided by the number of tokens: KL is a sum over tokens, and a mean over positions.",
        ),
    ),
    hints=(
        "The target is what the transformer computed, hidden[1:], as a constant: detach() makes a tensor one.",
        "torch.nn.functional.smooth_l1_loss(guess, target) is next_h.",
        "For kl let the head read both: (target @ head.T).log_softmax(-1) is log p, with guess it is log q. "
        "KL = sum over tokens of p (log p - log q). Take its mean over positions, with the head detached.",
    ),
)

prediction = RightOption(
    "belief_appears",
    "In NextLat's alone",
    "Without the secret, psi cannot guess the state that follows the coins. So the latent losses ask for it at "
    "every token, and the next-token loss only where it is due.",
)
