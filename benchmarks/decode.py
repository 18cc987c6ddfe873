"""What self-speculative decoding saves: over our own decoding with a key-value cache, and over Hugging Face's.

    python benchmarks/decode.py [repeats] [MODEL TEXTS]

With the folder of a pretrained model and a file of texts, psi is added to it by `nlv.finetune`, half an hour on two
cores, kept in runs/bench; Hugging Face gets the model itself, also with its prompt lookup.

One row at a time, as a user waits for it, on one core, greedily and sampled. The model is NextLat of 8 layers of width
256 (6 million weights) on stories, whose words are half of them certain; it is trained on the first call, ten minutes
on a busy core, and kept in runs/bench. Hugging Face gets the same weights: a Llama of the same sizes is the same
function, which is checked.

Time is the process's own on its core, so that another process which takes turns on it is not counted. Everything is
run in turn; medians and quartiles are over repeats of the same prompts.

The floor of a run is what its passes would take if drafts cost nothing and a pass over several tokens as much as over
one: the bare transformer, one token at a time, as often as there were passes.

Goals: twice as fast as our own decoding without drafts, and adaptive drafting as fast as the best fixed length. The
first is met from 3 drafts on, with 4 to 5 times at the best length. The second, on one slow and busy core, is met
sampled, 1.06 of the best, and not quite greedily: 0.96, and in no run above 1. It needs no trying of lengths, but 54
tokens are few steps to learn from. What keeps drafting from the floor is that a pass over several tokens costs 1.4 to 2
of one here, and that drafts are not free.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nextlat_viz as nlv
from nextlat_viz.decoding import generate, measure_costs, speculative_generate
from nextlat_viz.models import Transformer

WORLD = "story:people=2,places=2,things=1"
SIZES = {"layers": 8, "heads": 8, "dim": 256, "mlp_dim": 640, "psi_width": 256, "context": 64, "horizon": 2}
TRAINING = {"steps": 400, "warmup_steps": 40, "decay_steps": 200, "batch_size": 4, "save_every": 50}
FINETUNING: Any = {"horizon": 2, "psi_width": 576, "steps": 1000, "batch_size": 8, "length": 128, "lambda_h": 0.3}
FINETUNING |= {"learning_rate": 2e-3, "held_out": 128, "validate_every": 500}
FOLDER = Path(__file__).parents[1] / "runs" / "bench" / "decode_story"
DRAFTS = (1, 2, 3, 4, 6, 8, 12, "adaptive")
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
    its = LlamaForCausalLM(
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
    its.load_state_dict(state)
    return its


def ways(checkpoint: Any, prompts: np.ndarray, count: int, temperature: float) -> dict[Any, Callable[[int], Any]]:
    """Everything that is timed: each continues one prompt, by its number."""
    is_theirs = not isinstance(checkpoint.network.backbone, Transformer)
    hf, costs = checkpoint.model if is_theirs else llama(checkpoint.model.backbone), measure_costs(checkpoint)
    print(f"of a pass over one token, here: {costs}")

    def theirs(i: int, **options: Any) -> np.ndarray:
        tokens = torch.from_numpy(prompts[i : i + 1])
        options |= {"max_new_tokens": count, "min_new_tokens": count, "pad_token_id": 0}
        sampled = {"do_sample": True, "top_k": 0, "temperature": temperature} if temperature else {"do_sample": False}
        with torch.inference_mode():
            return hf.generate(tokens, attention_mask=torch.ones_like(tokens), **sampled, **options).numpy()

    timed: dict[Any, Callable[[int], Any]] = {
        "ours, no drafts": lambda i: (
            generate(checkpoint, prompts[i : i + 1], count, temperature=temperature, seed=i).tokens
        ),
        "transformers, generate": theirs,
    }
    if is_theirs:
        timed["transformers, prompt lookup"] = partial(theirs, prompt_lookup_num_tokens=3)
    for draft in DRAFTS:
        timed[draft] = lambda i, draft=draft: speculative_generate(
            checkpoint, prompts[i : i + 1], count, draft=draft, temperature=temperature, seed=i, costs=costs
        )
    return timed


def bare(checkpoint: Any, count: int) -> Callable[[], None]:
    """The transformer alone, `count` passes over one token each."""
    backbone = checkpoint.network.backbone
    token = torch.zeros(1, 1, dtype=torch.long)

    def run() -> None:
        with torch.inference_mode():
            cache = backbone.cache(1)
            for _ in range(count):
                backbone(token, cache=cache)

    return run


def seconds(call: Callable[[], Any]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def measure(checkpoint: Any, temperature: float, repeats: int) -> None:
    world, context = checkpoint.world, checkpoint.network.backbone.config.context
    start = getattr(world, "opening_length", 0) or 16
    prompts = world.sample(PROMPTS, world.length or context, seed=7, split="test", states=False).tokens[:, :start]
    count = min(context + 1 - start, 128)
    timed, floor = ways(checkpoint, prompts, count, temperature), bare(checkpoint, count)
    found = {name: [call(i) for i in range(PROMPTS)] for name, call in timed.items()}
    base = "ours, no drafts"
    if temperature == 0:
        assert all((found["transformers, generate"][i] == found[base][i]).all() for i in range(PROMPTS))
        assert all((found[draft][i].tokens == found[base][i]).all() for draft in DRAFTS for i in range(PROMPTS))
    taken: dict[Any, list[float]] = {name: [] for name in timed}
    floors = []
    for _ in range(repeats):
        for name, call in timed.items():
            taken[name].append(seconds(lambda call=call: [call(i) for i in range(PROMPTS)]) / PROMPTS)
        floors.append(seconds(floor))
    print(f"\ntemperature {temperature}: {PROMPTS} prompts of {start} tokens, {count} more; {repeats} repeats")
    print(f"{'':24}{'ms':>8}{'tokens/s':>10}{'accepted':>10}{'floor':>7}   over ours without drafts")
    for name, times in taken.items():
        typical = statistics.median(times)
        label, accepted, passes = (f"draft {name}" if name in DRAFTS else name), "", 1.0
        if name in DRAFTS:
            made = found[name]
            accepted = f"{sum(one.accepted.sum() for one in made) / sum(one.steps.sum() for one in made):.2f}"
            passes = sum(one.passes.sum() for one in made) / (PROMPTS * count)
        share = statistics.median(floors) * passes / typical
        ratios = [a / b for a, b in zip(taken[base], times, strict=True)]
        # Quartiles need two values; a single repeat has none.
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        print(
            f"{label:24}{typical * 1e3:8.0f}{count / typical:10.0f}{accepted:>10}{share:7.0%}   "
            f"{middle:.2f} ({low:.2f} to {high:.2f})"
        )
    best = min(DRAFTS[:-1], key=lambda draft: statistics.median(taken[draft]))
    ratio = statistics.median([a / b for a, b in zip(taken[best], taken["adaptive"], strict=True)])
    print(f"adaptive drafting is {ratio:.2f} times as fast as the best fixed length, {best}")


def main() -> None:
    torch.set_num_threads(1)
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    checkpoint = finetuned(*sys.argv[2:4]) if len(sys.argv) > 2 else trained()
    print({name: round(value, 3) for name, value in checkpoint.card.metrics.items()})
    for temperature in (0.0, 1.0):
        measure(checkpoint, temperature, repeats)


if __name__ == "__main__":
    main()
