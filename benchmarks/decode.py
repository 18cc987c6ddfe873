"""Speed of self-speculative decoding, compared with our decoding with a key-value cache and with Hugging Face's.

    python benchmarks/decode.py [repeats] [MODEL TEXTS]

With the folder of a pretrained model and a file of texts, psi is added to it by `nlv.finetune`, in less than half an
hour on one core, and kept in runs/bench. Otherwise the model is NextLat of 8 layers, width 256 (6 million weights), on
stories, where half of the words are certain; it is trained on the first call, in two minutes, and kept in runs/bench.
Hugging Face then gets the same weights: a Llama of the same sizes is the same function, which is checked. Drafting by a
separate smaller model is not compared: there is no such model.

One row at a time, as a user waits for it, on one core, greedily and sampled. All methods are timed in turn for each
prompt, with other seeds in every repeat. Times are processor time, so that another process on the same core is not
counted; one that uses the memory still slows it down. Medians and quartiles are over repeats.

Columns: "by costs" is tokens per pass, where drafts, further tokens and passes over several tokens cost what
`measure_costs` measures: the speed without the noise of the clock. "floor" is the time of the passes if drafts cost
nothing and a pass over several tokens costs as much as one over a single token: the bare transformer and its head, one
token at a time, once for every pass. "adaptive" begins anew in every call; "adaptive, measured, kept" is one `Adaptive`
with measured costs for all calls.

Goals: 1.5 times as fast as decoding with a cache, and adaptive drafting as fast as the best fixed length.

On stories, 7 repeats on a busy machine (load 12 on two cores): 3.1 times transformers' `generate` greedily and 3.6
sampled with an adaptive length that is kept; prompt lookup 1.4 and 1.0. Adaptive over the best of nine fixed lengths,
which only the run itself shows: greedily 1.00 (0.98 to 1.12), kept 1.00 (0.98 to 1.10), best length 8; sampled 0.98
(0.83 to 1.08), kept 1.04 (0.97 to 1.07), best length 12. By measured costs, of the best length's tokens per pass:
greedily 3.22 and, kept, 3.32 of 3.32; sampled 3.38 and 3.51 of 3.45. At the best length 12 to 16 % of the time is
drafts and 73 to 80 % passes: free drafts would make it 3.3 and 4.1 times our own decoding.

On a Llama of 15 million weights (stories15m), 3 repeats on a busy machine (load 14 on two cores), psi trained for 24
minutes of one core (KL 12.5 to 0.89, transition error 0.40 of "no change"): with 2 drafts 1.66 (1.58 to 1.67) times
transformers' `generate` greedily and 1.54 (1.30 to 1.78) sampled; 1.57 and 1.27 times our own decoding, which samples
faster than theirs. Prompt lookup 0.79 and 0.80. Adaptive, kept, over the best fixed length, 2: 1.03 (0.96 to 1.03) and
1.02 (1.00 to 1.10). Of single drafts 67 % are accepted greedily and 55 % sampled, of second ones 62 % and 54 %. The
time is 12 to 13 % drafts, 73 to 79 % passes, 8 to 15 % the rest: free drafts would make it 1.82 and 1.45 times our own
decoding. With sampling, more drafts must be accepted to be 1.5 times as fast.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch

import nextlat_viz as nlv
from nextlat_viz.decoding import Adaptive, DraftCosts, generate, measure_costs, speculation, speculative_generate
from nextlat_viz.models import Transformer

WORLD = "story:people=2,places=2,things=1"
SIZES: Any = {"layers": 8, "heads": 8, "dim": 256, "mlp_dim": 640, "psi_width": 256, "context": 64, "horizon": 2}
SIZES["start_token"] = False  # As in a Llama.
TRAINING: Any = {"steps": 400, "warmup_steps": 40, "decay_steps": 200, "batch_size": 4, "save_every": 50}
FINETUNING: Any = {"horizon": 2, "psi_width": 576, "steps": 5000, "batch_size": 4, "length": 128, "lambda_h": 0.3}
FINETUNING |= {"learning_rate": 2e-3, "save_every": 500, "held_out": 128, "validate_every": 250}
FOLDER = Path(__file__).parents[1] / "runs" / "bench" / "decode_story"
DRAFTS = (1, 2, 3, 4, 5, 6, 8, 12, 16, "adaptive")
PLAIN, THEIRS, KEPT = "ours, no drafts", "transformers, generate", "adaptive, measured, kept"
PROMPTS = 4


def trained() -> Any:
    return nlv.train(
        WORLD, "nextlat", out=FOLDER, validate_every=100, validation_episodes=32, storage="float32", **SIZES, **TRAINING
    )


def finetuned(model: str, texts: str) -> Any:
    return nlv.finetune(model, Path(texts), out=FOLDER.with_name(f"decode_{Path(model).name}"), **FINETUNING)


def llama(backbone: Transformer) -> Any:
    """The same function as a Hugging Face model."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = backbone.config
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocabulary_size,
            hidden_size=config.dim,
            intermediate_size=config.mlp_dim,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.context + 1,
            rms_norm_eps=torch.finfo(torch.float32).eps,
            rope_theta=config.rope_base,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=None,
        )
    ).eval()
    state = {"model.embed_tokens.weight": backbone.embed.weight, "model.norm.weight": backbone.norm.weight}
    state["lm_head.weight"] = backbone.head.weight
    for i, block in enumerate(backbone.blocks):
        query, key, value = block.attention.qkv.weight.chunk(3)
        gate, up = block.mlp.gate_up.weight.chunk(2)
        parts = {
            "self_attn.q_proj": query,
            "self_attn.k_proj": key,
            "self_attn.v_proj": value,
            "self_attn.o_proj": block.attention.out.weight,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": block.mlp.down.weight,
            "input_layernorm": block.attention_norm.weight,
            "post_attention_layernorm": block.mlp_norm.weight,
        }
        state |= {f"model.layers.{i}.{name}.weight": weight for name, weight in parts.items()}
    model.load_state_dict(state)
    return model


def ways(
    checkpoint: Any, prompts: np.ndarray, count: int, temperature: float, costs: DraftCosts
) -> dict[Any, Callable[[int, int], Any]]:
    """Return the functions to time, by label: each continues the prompt of a number, with a seed."""
    is_theirs = not isinstance(checkpoint.network.backbone, Transformer)
    hf = checkpoint.model if is_theirs else llama(checkpoint.model.backbone)
    adaptive = Adaptive(costs)

    def theirs(i: int, seed: int, **options: Any) -> np.ndarray:
        torch.manual_seed(seed)
        tokens = torch.from_numpy(prompts[i : i + 1])
        options |= {"max_new_tokens": count, "min_new_tokens": count, "pad_token_id": 0}
        sampled = {"do_sample": True, "top_k": 0, "temperature": temperature} if temperature else {"do_sample": False}
        with torch.inference_mode():
            return hf.generate(tokens, attention_mask=torch.ones_like(tokens), **sampled, **options).numpy()

    def ours(i: int, seed: int, **options: Any) -> Any:
        decode = speculative_generate if options else generate
        options |= {"temperature": temperature, "stop": (), "seed": seed}
        return decode(checkpoint, prompts[i : i + 1], count, **options)

    timed: dict[Any, Callable[[int, int], Any]] = {
        PLAIN: ours,
        THEIRS: theirs,
        "transformers, prompt lookup": partial(theirs, prompt_lookup_num_tokens=3),
    }
    timed |= {draft: partial(ours, draft=draft) for draft in DRAFTS}
    return timed | {KEPT: partial(ours, draft=adaptive)}


def bare(checkpoint: Any, count: int) -> Callable[[], None]:
    """The transformer alone, `count` passes over one token each."""
    backbone = checkpoint.network.backbone
    token = torch.zeros(1, 1, dtype=torch.long)

    def run() -> None:
        with torch.inference_mode():
            cache = backbone.cache(1)
            for _ in range(count):
                checkpoint.network.logits(backbone(token, cache=cache))

    return run


def seconds(call: Callable[[], Any]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


class Stopwatch:
    """Seconds spent in functions, by name; time in an inner function is not counted for its caller."""

    def __init__(self) -> None:
        self.seconds = {"draft": 0.0, "verify": 0.0, "rest": 0.0}
        self._names, self._since = ["rest"], time.process_time()

    def stop(self) -> None:
        now = time.process_time()
        self.seconds[self._names[-1]] += now - self._since
        self._since = now

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            self.stop()
            # The head is part of the draft or of the pass that uses it.
            self._names.append("draft" if self._names[-1] == "draft" else name)
            try:
                return call(*arguments, **options)
            finally:
                self.stop()
                self._names.pop()

        return run


def breakdown(checkpoint: Any, run: Callable[[], Any]) -> dict[str, float]:
    """Seconds of decoding by part: drafter, passes of the transformer with its head, and all else."""
    watch, network = Stopwatch(), checkpoint.network
    make = speculation.make_drafter

    def make_timed(*arguments: Any) -> Any:
        drafter: Any = make(*arguments)
        for name in ("read", "begin", "go_on"):
            setattr(drafter, name, watch.timed("draft", getattr(drafter, name)))
        return drafter

    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(speculation, "make_drafter", make_timed))
        for part, name in ((network.backbone, "forward"), (network, "logits")):
            patches.enter_context(mock.patch.object(part, name, watch.timed("verify", getattr(part, name))))
        watch.stop()
        watch.seconds = dict.fromkeys(watch.seconds, 0.0)
        run()
        watch.stop()
    return watch.seconds


def extra(result: Any, costs: DraftCosts) -> float:
    """Cost of the drafts of a run, in passes over one token."""
    steps = result.proposed[0] if len(result.proposed) else 0
    return float(steps * costs.start + result.drafted.sum() * (costs.draft + costs.verify))


def ratio(times: list[float], others: list[float]) -> str:
    """Median and quartiles of the speed over another way's, in pairs."""
    ratios = [a / b for a, b in zip(others, times, strict=True)]
    # Quartiles need two values; a single repeat has none.
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def measure(checkpoint: Any, temperature: float, repeats: int) -> None:
    world, context = checkpoint.world, checkpoint.network.backbone.config.context
    start = getattr(world, "opening_length", 0) or 16
    prompts = world.sample(PROMPTS, world.length or context, seed=7, split="test", states=False).tokens[:, :start]
    count = min(context + 1 - start, 128)
    costs, floor = measure_costs(checkpoint), bare(checkpoint, count)
    print(f"of a pass over one token, here: {costs}")
    timed = ways(checkpoint, prompts, count, temperature, costs)
    for call in timed.values():
        call(0, 0)
    results: dict[Any, list[Any]] = {name: [] for name in timed}
    taken: dict[Any, list[float]] = {name: [0.0] * repeats for name in timed}
    floors = []
    for repeat in range(repeats):
        # All ways in turn for each prompt, so that other processes slow down all of them alike.
        for i, (name, call) in itertools.product(range(PROMPTS), timed.items()):
            started = time.process_time()
            results[name].append(call(i, PROMPTS * repeat + i))
            taken[name][repeat] += (time.process_time() - started) / PROMPTS
        floors.append(seconds(floor))
    drafting = [*DRAFTS, KEPT]
    if temperature == 0:
        for i, plain in enumerate(results[PLAIN]):
            assert (results[THEIRS][i] == plain.tokens).all()
            assert all((results[draft][i].tokens == plain.tokens).all() for draft in drafting)
    print(f"\ntemperature {temperature}: {PROMPTS} prompts of {start} tokens, {count} more; {repeats} repeats")
    columns = f"{'drafted':>9}{'accepted':>10}{'by costs':>10}{'floor':>7}   over {PLAIN:24}over {THEIRS}"
    print(f"{'':28}{'ms':>6}{'tokens/s':>10}{columns}")
    for name, times in taken.items():
        typical = statistics.median(times)
        label, passes = f"draft {name}" if name in DRAFTS else name, 1.0
        drafted = accepted = by_costs = ""
        if name in drafting:
            rows = results[name]
            steps = sum(row.steps.sum() for row in rows)
            drafted, accepted = (
                f"{sum(getattr(row, kind).sum() for row in rows) / steps:.2f}" for kind in ("drafted", "accepted")
            )
            tokens = len(rows) * count
            passes = sum(row.passes.sum() for row in rows) / tokens
            by_costs = f"{1 / (passes + sum(extra(row, costs) for row in rows) / tokens):.2f}"
        share = statistics.median(floors) * passes / typical
        counts = f"{drafted:>9}{accepted:>10}{by_costs:>10}{share:7.0%}"
        speeds = f"{ratio(times, taken[PLAIN]):29}{ratio(times, taken[THEIRS])}"
        print(f"{label:28}{typical * 1e3:6.0f}{count / typical:10.0f}{counts}   {speeds}")
    best = min(DRAFTS[:-1], key=lambda draft: statistics.median(taken[draft]))
    for name in ("adaptive", KEPT):
        print(f"{name} over the best fixed length, {best}: {ratio(taken[name], taken[best])}")
    parts = [breakdown(checkpoint, lambda: [timed[best](i, i) for i in range(PROMPTS)]) for _ in range(repeats)]
    total = statistics.median(sum(part.values()) for part in parts)
    shares = {name: statistics.median(part[name] for part in parts) / total for name in parts[0]}
    print(f"draft {best}: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))
    tables = pd.concat(row.to_frame() for row in results[best])
    by_place = tables.groupby("place")[["tested", "accepted"]].sum()
    print(f"accepted by place, given those before: {(by_place['accepted'] / by_place['tested']).round(2).tolist()}")
    speed = statistics.median(taken[PLAIN]) / statistics.median(taken[best])
    print(f"ceiling if drafts were free: {speed / (1 - shares['draft']):.2f} over {PLAIN}")


def main() -> None:
    torch.set_num_threads(1)
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    checkpoint = finetuned(*sys.argv[2:4]) if len(sys.argv) > 2 else trained()
    print({name: round(value, 3) for name, value in checkpoint.card.metrics.items()})
    for temperature in (0.0, 1.0):
        measure(checkpoint, temperature, repeats)


if __name__ == "__main__":
    main()
