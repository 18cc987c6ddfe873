"""Time a training step: every objective compared with next-token prediction, and ours with x-transformers' equals.

All in the same run, in turn, on one core, as ratios:

    python benchmarks/train_step.py [repeats]

A step is loss, gradient and AdamW on 16 rows of 64 tokens, for a backbone of 4 layers, 4 heads, width 128, SwiGLU of
352 and psi of 128, with a vocabulary of 1,000 and with one of 2, as RRXOR has. x-transformers' decoder is given the
same sizes, rotary positions, RMSNorm and SwiGLU; its attention as it comes and as PyTorch's fused one ("flash").

Time is processor time, so that another process on the same core is not counted.

The floor is arithmetic: the step's matrix products (counted by torch, attention's left out: six times the weights,
for each token) at the speed this machine reaches on one of 1024 x 512 x 512, measured in between. Above it are
attention, softmaxes, normalisation, rotations, SwiGLU and AdamW, each a kernel or more that reads and writes memory;
"compiled" is with torch.compile, which fuses most of them, as `compile=True` does in training.

A recursive model takes several optimiser steps on a batch. So its row is compared with the forward and backward passes
of these steps alone, without loss and AdamW.

Goals: NextLat with d=1 costs at most 1.25 next-token steps, and ours are 1.5 times as fast as x-transformers'. The
first is met. The second is not: theirs take twice the floor they share with ours, so ours would have to come within
1.3 times of it, and attention's own kernel, the softmax over the vocabulary and AdamW fill most of that.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nextlat_viz.models import OBJECTIVES, Batch, Objective, RecursiveNetwork, TransformerConfig

with warnings.catch_warnings():
    # It compiles a function with torch.jit as it is imported, which torch calls deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from x_transformers import Decoder, TransformerWrapper
    from x_transformers.next_latent_wrapper import NextLatentWrapper

ROWS, LENGTH, LAYERS, HEADS, DIM, MLP_DIM, PSI_WIDTH = 16, 64, 4, 4, 128, 352, 128
BASE = "next-token"
# A batch of a recursive model is 8 optimiser steps of 3 forward passes each, through the whole backbone.
RECURSIVE, PASSES = "DIS, 8 steps of 3 passes", "the passes of DIS alone"
OURS = {
    BASE: ("next_token", {}),
    "NextLat d=1": ("nextlat", {"horizon": 1, "psi_width": PSI_WIDTH}),
    "NextLat d=2": ("nextlat", {"horizon": 2, "psi_width": PSI_WIDTH}),
    "NextLat d=8": ("nextlat", {"horizon": 8, "psi_width": PSI_WIDTH}),
    "MTP d=1": ("mtp", {}),
    "JTP d=1": ("jtp", {}),
    "BST": ("bst", {}),
    "next-token, compiled": ("next_token", {}),
    "NextLat d=1, compiled": ("nextlat", {"horizon": 1, "psi_width": PSI_WIDTH}),
    RECURSIVE: ("dis", {}),
}
# Models of x-transformers, and ours that do the same.
SAME = {
    "x-transformers": BASE,
    "x-transformers, flash": BASE,
    "x-transformers NextLat d=1": "NextLat d=1",
    "x-transformers NextLat d=1, flash": "NextLat d=1",
}


def step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return run


def recursion(objective: Objective, first: Batch) -> Callable[[], None]:
    """All optimiser steps on a batch."""
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-4)

    def run() -> None:
        batch: Batch | None = first
        while batch is not None:
            optimizer.zero_grad(set_to_none=True)
            losses = objective(batch)
            losses["loss"].backward()
            optimizer.step()
            batch = objective.following(batch, losses)

    return run


def passes(network: RecursiveNetwork, tokens: Tensor) -> Callable[[], None]:
    """The floor of `recursion`: as many forward passes through the network, and their gradients."""
    schedule = OBJECTIVES["dis"](network).backbone.schedule
    state = network.puzzle(tokens).detach()

    def run() -> None:
        for _ in range(schedule.steps):
            y = state
            for _ in range(schedule.updates + 1):
                y = network.net(y)
            y.sum().backward()

    return run


def theirs(name: str, tokens: Tensor, vocabulary: int) -> Callable[[], None]:
    decoder = Decoder(
        **{"dim": DIM, "depth": LAYERS, "heads": HEADS, "attn_dim_head": DIM // HEADS, "use_rmsnorm": True},
        **{"rotary_pos_emb": True, "rotary_emb_dim": DIM // HEADS, "attn_flash": name.endswith("flash")},
        **{"ff_glu": True, "ff_swish": True, "ff_no_bias": True, "ff_mult": MLP_DIM / DIM},
    )
    net = TransformerWrapper(num_tokens=vocabulary, max_seq_len=LENGTH + 1, use_abs_pos_emb=False, attn_layers=decoder)
    if "NextLat" in name:
        # Without its weighting of the steps, which the paper does not have.
        wrapper = NextLatentWrapper(net, dim=DIM, dynamics_hidden_dim=PSI_WIDTH, dynamic_rollout_loss_weight=False)
        return step(wrapper, lambda: wrapper(tokens[:, :-1]))
    return step(net, lambda: F.cross_entropy(net(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()))


def sizes(vocabulary: int) -> TransformerConfig:
    return TransformerConfig(
        vocabulary_size=vocabulary,
        context=LENGTH,
        layers=LAYERS,
        heads=HEADS,
        dim=DIM,
        mlp_dim=MLP_DIM,
        start_token=False,
    )


def ours(name: str, tokens: Tensor, vocabulary: int) -> Callable[[], None]:
    kind, options = OURS[name]
    objective = OBJECTIVES[kind](OBJECTIVES[kind].network(sizes(vocabulary)), **options)
    everywhere = torch.ones(ROWS, LENGTH, dtype=torch.bool)
    batch = Batch(tokens[:, :-1], tokens[:, 1:], everywhere, everywhere)
    if name == RECURSIVE:
        return recursion(objective, batch)
    function = torch.compile(objective) if name.endswith("compiled") else objective
    return step(objective, lambda: function(batch)["loss"])


def seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def products(run: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products."""
    with FlopCounterMode(display=False) as counter:
        run()
    return sum(
        count for operation, count in counter.get_flop_counts()["Global"].items() if "attention" not in str(operation)
    )


def measure(vocabulary: int, repeats: int) -> None:
    torch.manual_seed(0)
    tokens = torch.randint(vocabulary, (ROWS, LENGTH + 1))
    runs = {name: ours(name, tokens, vocabulary) for name in OURS}
    runs |= {name: theirs(name, tokens, vocabulary) for name in SAME}
    runs[PASSES] = passes(RecursiveNetwork(sizes(vocabulary)), tokens[:, :-1])
    # Compiled code hides its products, which are those of the same step.
    flops = {name: products(run) for name, run in runs.items() if not name.endswith("compiled")}
    flops |= {name: flops[name.removesuffix(", compiled")] for name in runs if name.endswith("compiled")}
    for run in runs.values():
        run()
    left, right = torch.randn(1024, 512), torch.randn(512, 512)
    speeds, taken = [], {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            taken[name].append(seconds(run))
        speeds.append(2 * 1024 * 512 * 512 / min(seconds(partial(torch.mm, left, right)) for _ in range(3)))
    speed = statistics.median(speeds)
    print(f"vocabulary of {vocabulary:,}; matrix products at {speed / 1e9:.0f} GFLOP/s; {repeats} repeats")
    print(f"{'':34} {'ms':>7} {'tokens/s':>9} {'of floor':>9}   over next-token, median (quartiles)")
    for name, times in taken.items():
        typical = statistics.median(times)
        floor = flops[name] / speed
        print(
            f"{name:34} {typical * 1e3:7.1f} {ROWS * LENGTH / typical:9,.0f} {floor / typical:9.0%}   "
            + ratio(times, taken[BASE])
        )
    for name, same in SAME.items():
        print(f"our {same} is {ratio(taken[name], taken[same])} times as fast as {name}")
    print(f"{RECURSIVE}, takes {ratio(taken[RECURSIVE], taken[PASSES])} times as long as {PASSES}")
    print()


def ratio(over: list[float], under: list[float]) -> str:
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    # Quartiles need two values; a single repeat has none.
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    torch.set_num_threads(1)
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    for vocabulary in (1000, 2):
        measure(vocabulary, repeats)


if __name__ == "__main__":
    main()
