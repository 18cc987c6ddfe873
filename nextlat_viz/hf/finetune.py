"""Fine-tune a Hugging Face model with the NextLat objective: psi is added, and trained alone or with the model."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch
from safetensors.torch import save as save_tensors

from nextlat_viz import io
from nextlat_viz.errors import at_least, require_callable
from nextlat_viz.hf.backbone import PostHoc, pretrained, weights_sha256
from nextlat_viz.hf.card import README, FinetuneCard, FinetuneConfig, call_of, readme_text, settle
from nextlat_viz.hf.corpus import sequences
from nextlat_viz.hf.finetuned import HELD_OUT, MODEL, PSI, Finetuned, held_out_bytes, load_finetuned
from nextlat_viz.hf.load import load_tokenizer, quiet
from nextlat_viz.models import Batch
from nextlat_viz.models.objective import count_ahead
from nextlat_viz.models.torch_state import torch_defaults
from nextlat_viz.training.card import CARD, device_name, sha256_of, versions
from nextlat_viz.training.checkpoint import METRICS
from nextlat_viz.training.config import TrainConfig
from nextlat_viz.training.data import Feed
from nextlat_viz.training.engine import Engine, start_fabric
from nextlat_viz.training.resume import Identity, RunState, refuse_another
from nextlat_viz.training.run import Callback, Task, run_task
from nextlat_viz.training.trained import HF_PREFIX
from nextlat_viz.worlds import Episodes

# Share by which the perplexity of a pretrained model may rise without a warning.
MOST_CHANGE = 0.01
# Fields of a config that saving a model changes.
WRITTEN_BY_SAVING = {"_name_or_path", "architectures", "dtype", "transformers_version"}


@torch_defaults()
def finetune(
    model: Any,
    corpus: Any,
    *,
    mode: str = "psi",
    horizon: int = 1,
    lambda_h: float | None = None,
    lambda_kl: float | None = None,
    psi_width: int | None = None,
    steps: int = 1000,
    batch_size: int = 16,
    length: int | None = None,
    learning_rate: float = 1e-3,
    tokenizer: Any = None,
    episodes: int = 10_000,
    held_out: int = 512,
    seed: SupportsIndex = 0,
    out: str | os.PathLike[str] | None = None,
    accelerator: str = "auto",
    precision: str = "32-true",
    progress: bool = True,
    on_validation: Callback | None = None,
    **settings: Any,
) -> Finetuned:
    """Add psi to a pretrained causal language model of Hugging Face and train it with the NextLat objective.

    The losses are those of :class:`nextlat_viz.models.NextLat` on the state that the output head reads and the
    embedding of the next token. While psi is trained alone, L_KL compares only tokens that the corpus uses, if those
    are fewer than half of the vocabulary. Dropout is off in both modes. Making the same call again continues a run
    that was interrupted, and on CPU it ends with the same weights; a finished run is loaded.

    Measured on sequences held out by their content, before the first step and at every validation: ``loss``, the
    next-token loss in nats; ``unigram``, the loss of predicting frequencies; ``next_h`` and ``kl``; and
    ``transition_error``, the summed squared error of psi(h_t, x_{t+1}) against h_{t+1} over that of "no change": 1 is
    no better than h_t itself, 0 is exact. If the corpus repeats sequences, those held out are not a random sample, and
    their loss cannot be compared with a world's floor.

    Parameters
    ----------
    model : PreTrainedModel, folder or name on the Hugging Face Hub
        Read from safetensors alone; a model that needs its own code is refused. A module is copied, not changed.
    corpus : World, Episodes, (N, T) integers, list of token id lists or of texts, or path of a file of texts
        See :func:`nextlat_viz.hf.corpus.sequences`. If a state "document" numbers documents packed into a row,
        attention stays inside each and positions start again; a model that cannot do that is refused.
    mode : "psi" trains psi alone and leaves the model's weights as they are; "full" trains psi alone for `psi_steps`,
        half of the steps, and then both.
    horizon, lambda_h, lambda_kl : d and the weights of the two latent losses (eq. 5); 1 and 1 when not given, and 0.05
        and 0.1 in mode "full", where low weights keep the next-token loss of a pretrained model, whose states may be
        large.
    psi_width : hidden width of psi; that of the hidden state when not given.
    steps, batch_size : optimiser steps, and sequences in each.
    length : most tokens of a sequence.
    learning_rate : psi's, with AdamW; in mode "full" the model's is that times `model_rate`, 0.005: the model must
        not change faster than psi can follow, or the losses pull its states towards what psi cannot yet predict.
    tokenizer : for a corpus of texts; default the one in the model's folder. It is saved with the model, unless the
        corpus is a world, whose tokens are not the tokenizer's.
    episodes, held_out : episodes drawn of a world, and most sequences to measure on.
    seed : initialises psi and, with the step, draws the sequences.
    out : folder; ``runs/finetune/<model>/<mode>/seed<seed>`` when not given.
    accelerator, precision : as in Lightning Fabric; precision is ``"32-true"`` or ``"bf16-mixed"``.
    progress : show a progress bar.
    on_validation : called with each row of metrics as it is measured.
    **settings : any other field of :class:`FinetuneConfig`, such as ``validate_every=50``.

    Raises
    ------
    ImportError
        If transformers is not installed.
    ValueError
        If model, corpus and settings do not fit together; the message says what would.
    CheckpointError
        If `out` holds another run.
    TrainingError
        If the loss is NaN or infinite, or the device's memory is full.

    Warns
    -----
    UserWarning
        If mode "full" raised the perplexity on the held-out sequences by more than 1 %.

    Examples
    --------
    >>> import tempfile, transformers
    >>> small = transformers.GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=1, n_positions=8, bos_token_id=0,
    ...                                 eos_token_id=0)
    >>> tokens = np.random.default_rng(0).integers(8, size=(100, 8))
    >>> tuned = finetune(transformers.GPT2LMHeadModel(small), tokens, steps=2, progress=False, out=tempfile.mkdtemp())
    >>> tuned.card.before["transition_error"], tuned.card.metrics["transition_error"] < 1
    (1.0, True)
    """
    seed = at_least("seed", seed, 0)
    require_callable("on_validation", on_validation)
    backbone, name = pretrained(model)
    explicit = {
        "mode": mode,
        "horizon": horizon,
        "lambda_h": lambda_h,
        "lambda_kl": lambda_kl,
        "psi_width": backbone.config.dim if psi_width is None else psi_width,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "episodes": episodes,
        "held_out": held_out,
        "precision": precision,
    }
    config = settle(io.plain(explicit), io.plain(settings))
    if tokenizer is None and isinstance(model, str | Path):
        tokenizer = load_tokenizer(str(model).removeprefix(HF_PREFIX))
    parts = sequences(
        corpus,
        backbone.config,
        horizon=horizon,
        length=length,
        count=episodes,
        held_out=held_out,
        tokenizer=tokenizer,
    )
    if "document" in parts.train.states:
        backbone.check_documents()
    default = Path("runs", "finetune", io.file_name(re.sub(r"[^\w=.]+", "-", name)), mode, f"seed{seed}")
    folder = io.resolve(default if out is None else out, "out")
    about = {
        "name": name,
        "class": type(backbone.module).__name__,
        "config_sha256": _hash_of(backbone.module.config.to_dict()),
        "weights_sha256": weights_sha256(backbone.module),
        "dim": backbone.config.dim,
        "vocabulary_size": backbone.config.vocabulary_size,
    }
    identity = _identity(about, parts.about, config, seed)
    if (folder / CARD).exists():
        tuned = load_finetuned(folder)
        card = tuned.card
        refuse_another(folder, _identity(card.model, card.corpus, card.config, card.seed), identity)
        return tuned
    engine_options: Any = {"precision": precision, "accelerator": accelerator, "devices": 1}
    fabric = start_fabric(**engine_options)
    io.claim(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = config.model_dump(include={"horizon", "lambda_h", "lambda_kl", "psi_width", "psi_layers"})
        learner = PostHoc(backbone, **sizes, full=config.mode == "full")
    # At most 8 sequences: a batch too large for the memory should fail in the run, whose error says what to lower.
    learner.scale_tokens(Batch.from_episodes(parts.train[: min(config.batch_size, 8)]))
    used = np.unique(parts.train.tokens[parts.train.loss_mask])
    if len(used) < backbone.config.vocabulary_size / 2:
        learner.restrict(torch.from_numpy(used))

    def draw(step: int) -> Episodes:
        size, rng = config.batch_size, np.random.default_rng([seed, step])
        return parts.train[rng.choice(len(parts.train), size, replace=size > len(parts.train))]

    def measure(engine: Engine) -> dict[str, float]:
        return held_out_metrics(learner, parts.held_out, config.batch_size, fabric.device)

    def finish(state: RunState) -> None:
        # JSON has no NaN. A card leaves out what is undefined: the transition error of states that never change.
        metrics = [
            {key: value for key, value in row.items() if key != "step" and math.isfinite(value)}
            for row in state.history
        ]
        learner.to("cpu")
        with quiet(), tempfile.TemporaryDirectory(dir=folder, prefix=f".{MODEL}.") as temporary:
            saved = Path(temporary, MODEL)
            backbone.module.save_pretrained(saved)
            if "world" not in parts.about and hasattr(tokenizer, "save_pretrained"):
                # Templates would go into a subfolder, and a card cannot name files there.
                tokenizer.save_pretrained(saved, save_jinja_files=False)
            # A killed run may have left a model here, without a card.
            shutil.rmtree(folder / MODEL, ignore_errors=True)
            saved.replace(folder / MODEL)
        io.write(folder / PSI, save_tensors(learner.psi.state_dict()))
        files = [*sorted((folder / MODEL).iterdir()), folder / PSI, folder / METRICS]
        if "world" not in parts.about:
            io.write(folder / HELD_OUT, held_out_bytes(parts.held_out))
            files.append(folder / HELD_OUT)
        card = FinetuneCard(
            model=about,
            corpus=parts.about,
            config=config,
            seed=seed,
            command=call_of(model, parts.about, config, seed),
            files={path.relative_to(folder).as_posix(): sha256_of(path) for path in files},
            parameters=sum(parameter.numel() for parameter in trained.parameters()),
            versions=versions() | {"transformers": metadata.version("transformers")},
            device=device_name(fabric.device),
            before=metrics[0],
            metrics=metrics[-1],
        ).signed()
        io.write(folder / README, readme_text(card))
        io.write(folder / CARD, card.model_dump_json(indent=2))

    trained = learner.trained()
    task = Task(
        name=f"{name}/{config.mode}",
        identity=identity,
        config=TrainConfig(**config.model_dump(include=set(TrainConfig.model_fields))),
        model=learner,
        optimizer=_optimizer(learner, config),
        kept=trained,
        feed=Feed(draw, learner, device=fabric.device),
        measure=measure,
        finish=finish,
        memory_advice=f"Lower batch_size or length, which is {parts.about['length']} tokens",
        measure_first=True,
    )
    run_task(task, folder, fabric, progress=progress, on_validation=on_validation)
    tuned = load_finetuned(folder)
    if tuned.card.perplexity_change > MOST_CHANGE:
        warnings.warn(
            f"mode={mode!r} raised the perplexity on held-out sequences by {tuned.card.perplexity_change:.1%}: lower "
            f"lambda_h={config.lambda_h} and lambda_kl={config.lambda_kl}, or model_rate={config.model_rate}, or "
            f"give psi more steps than psi_steps={config.psi_steps}",
            stacklevel=3,
        )
    return tuned


def _identity(model: dict[str, Any], corpus: dict[str, Any], config: FinetuneConfig, seed: int) -> Identity:
    named = {f"model {key}": model[key] for key in ("class", "config_sha256", "weights_sha256")}
    return {**named, "corpus": corpus["sha256"], "seed": seed, **config.model_dump(mode="json")}


def held_out_metrics(model: PostHoc, held_out: Episodes, batch_size: int, device: torch.device) -> dict[str, float]:
    """Return the losses and the transition error over all sequences, by the names in :func:`finetune`."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    targets = []
    for start in range(0, len(held_out), batch_size):
        batch = Batch.from_episodes(held_out[start : start + batch_size], device)
        # Losses of weight 0 are measured too, though they train nothing.
        count = {"next_token": int(batch.target_mask.sum())}
        for name, scored in {"next_h": False, "kl": True}.items():
            count[name] = count_ahead(batch, model.horizon, scored=scored)
        for name, value in model.measure(batch).items():
            sums[name] = sums.get(name, 0.0) + value.item() * count.get(name, 1)
        counts = {name: counts.get(name, 0) + number for name, number in count.items()}
        targets.append(batch.targets[batch.target_mask].cpu())
    share = torch.bincount(torch.cat(targets)).double()
    share /= share.sum()
    means = {name: sums[name] / max(count, 1) for name, count in counts.items()}
    return {
        "loss": means["next_token"],
        "unigram": -float(torch.xlogy(share, share).sum()),
        "next_h": means["next_h"],
        "kl": means["kl"],
        # Undefined if states never change.
        "transition_error": sums["missed"] / sums["moved"] if sums["moved"] else math.nan,
    }


def _unfreeze(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Freeze the groups for their first steps: without gradients, the backward pass through the model is saved."""
    steps = max((int(state["step"]) for state in optimizer.state.values() if "step" in state), default=0)
    for group in optimizer.param_groups:
        for weights in group["params"] if group["frozen_steps"] else ():
            weights.requires_grad_(steps >= group["frozen_steps"])


def _optimizer(model: PostHoc, config: FinetuneConfig) -> torch.optim.AdamW:
    """Build the optimiser, in the order of ``model.trained()``; the pretrained part has a lower rate than psi."""
    slow = [parameter for parameter in model.backbone.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": list(model.psi.parameters()), "factor": 1.0, "frozen_steps": 0}]
    if slow:
        groups.insert(0, {"params": slow, "factor": config.model_rate, "frozen_steps": config.psi_steps})
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=config.weight_decay)
    optimizer.register_step_post_hook(_unfreeze)
    optimizer.register_load_state_dict_post_hook(_unfreeze)
    _unfreeze(optimizer)
    return optimizer


def _hash_of(config: dict[str, Any]) -> str:
    """Hash a model's config without the fields that saving it changes."""
    fields = {name: value for name, value in config.items() if name not in WRITTEN_BY_SAVING}
    return hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()
