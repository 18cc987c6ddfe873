"""Does fine-tuning a language model with NextLat change what a linear probe reads from its last hidden state?

    python benchmarks/finetune.py MODEL TEXTS [SEED ...]

Targets, on the beginnings of held-out texts (`nlv.worlds.text_facts`): is a quotation open, how many tokens are left of
the sentence, who was named last, how many names were read. Each seed trains two models from the same weights, for the
same steps on the same sequences: in mode "full" with NextLat, and with the next-token loss alone, because training on
the texts changes what can be read too. Controls of every probe: shuffled labels, and the model with random weights.
Runs are kept in runs/bench: another call continues them, or only prints the table.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import nextlat_viz as nlv
from nextlat_viz.hf.corpus import sequences

LENGTH, TEXTS = 128, 200
RECIPE: Any = {"mode": "full", "horizon": 1, "psi_width": 576, "batch_size": 4, "length": LENGTH, "decay_steps": 50}
RECIPE |= {"learning_rate": 1e-3, "model_rate": 0.005, "held_out": 64, "validate_every": 360}
# The model takes 60 steps in both; with NextLat, psi first learns alone for 300.
OBJECTIVES: Any = {
    "next token": {"lambda_h": 0.0, "lambda_kl": 0.0, "steps": 60},
    "NextLat": {"lambda_h": 0.05, "lambda_kl": 0.1, "steps": 360, "psi_steps": 300},
}
TARGETS = {"quotation_open": 2, "to_sentence_end": 2, "last_name": 20, "names_read": 2}
FOLDER = Path(__file__).parents[1] / "runs" / "bench"


def run(model: str, texts: str, name: str, seed: int, **other: Any) -> Any:
    trial = "".join(f"{key}{value}" for key, value in other.items())
    folder = FOLDER / f"finetune_{Path(model).name}" / name.replace(" ", "_") / f"seed{seed}{trial}"
    started = time.monotonic()
    options = {**RECIPE, **OBJECTIVES[name], **other}
    tuned = nlv.finetune(model, Path(texts), seed=seed, out=folder, progress=False, **options)
    before, after = tuned.card.before, tuned.card.metrics
    change = np.expm1(after["loss"] - before["loss"])
    print(
        f"seed {seed}, {name}: {time.monotonic() - started:.0f} s; perplexity "
        f"{np.exp(before['loss']):.3f} -> {np.exp(after['loss']):.3f} ({change:+.2%}), "
        f"transition error {before['transition_error']:.3f} -> {after['transition_error']:.3f}",
        flush=True,
    )
    return tuned


def beginnings(base: Any, texts: str) -> Any:
    """The beginnings of held-out texts: in a later piece, it is not known what was open when it starts."""
    shape = base.network.backbone.config
    held_out = sequences(Path(texts), shape, length=LENGTH, tokenizer=base.tokenizer, held_out=10**6).held_out
    # Pieces of a text follow each other, and only the last is shorter than the others.
    first = np.append(True, held_out.length[:-1] < LENGTH)
    return held_out[first][:TEXTS]


def scores(model: Any, episodes: Any, facts: Any, untrained: Any = None) -> tuple[Any, Any]:
    """Latents and a probe of each target."""
    latents = nlv.extract(model, episodes, "hidden", truth=facts, progress=False)
    probes = {}
    for target, classes in TARGETS.items():
        rows = slice(None) if target != "to_sentence_end" else np.isfinite(latents.obs[target].to_numpy())
        control = None if untrained is None else untrained[rows]
        probes[target] = nlv.probe(latents[rows], target, untrained=control, most_classes=classes, progress=False)
    return latents, probes


def line(label: str, probes: Any) -> None:
    cells = [f"{probe.score:.3f} ({probe.interval[0]:.3f} to {probe.interval[1]:.3f})" for probe in probes.values()]
    print(f"{label:24s}" + "".join(f"{cell:>26s}" for cell in cells), flush=True)


def measure(model: str, texts: str, seeds: list[int], **other: Any) -> None:
    tuned = {(name, seed): run(model, texts, name, seed, **other) for seed in seeds for name in OBJECTIVES}
    base = nlv.load(f"hf:{model}")
    base = replace(base, module=base.module.float())
    episodes = beginnings(base, texts)
    facts = nlv.worlds.text_facts(base.world, episodes)
    untrained = nlv.extract(base.untrained(), episodes, "hidden", truth=facts, progress=False)
    _, before = scores(base, episodes, facts, untrained)
    print(f"\n{len(episodes)} texts, {untrained.n_obs:,} tokens; R2 of numbers, accuracy of classes")
    print(f"{'':24s}" + "".join(f"{name:>26s}" for name in TARGETS))
    for control in ("chance", "shuffled", "untrained"):
        values = [getattr(probe, control) for probe in before.values()]
        print(f"{control:24s}" + "".join(f"{'' if value is None else f'{value:.3f}':>26s}" for value in values))
    line("before", before)
    for (name, seed), tuned_model in tuned.items():
        line(f"{name}, seed {seed}", scores(tuned_model, episodes, facts)[1])


if __name__ == "__main__":
    measure(sys.argv[1], sys.argv[2], [int(seed) for seed in sys.argv[3:]] or [0, 1, 2])
