"""Post-hoc NextLat: psi added to a pretrained model, and trained alone or with it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors.torch import save as save_tensors
from torch import nn

from nextlat_viz import io
from nextlat_viz.errors import TrainingError
from nextlat_viz.hf.backbone import PostHoc, Pretrained, pretrained, weights_sha256
from nextlat_viz.hf.corpus import Sequences, sequences
from nextlat_viz.hf.finetuned import (
    MODEL,
    PSI,
    FinetuneCard,
    FinetuneConfig,
    Finetuned,
    call_of,
    load_finetuned,
    settle,
)
from nextlat_viz.hf.load import quiet
from nextlat_viz.models import Batch
from nextlat_viz.training import resume
from nextlat_viz.training.card import sha256_of
from nextlat_viz.training.checkpoint import CARD, METRICS
from nextlat_viz.training.engine import Engine
from nextlat_viz.training.feed import Piece
from nextlat_viz.training.identity import claim, differing, refuse_another
from nextlat_viz.training.presets import TrainConfig
from nextlat_viz.training.reporting import Reporter, csv_bytes, device_name, versions
from nextlat_viz.training.resume import TRAIN_STATE, Progress
from nextlat_viz.worlds import Episodes

WRITTEN_BY_SAVING = {"_name_or_path", "architectures", "dtype", "transformers_version"}


def finetune(
    model: Any,
    corpus: Any,
    *,
    mode: str = "psi",
    horizon: int = 1,
    lambda_h: float = 1.0,
    lambda_kl: float = 1.0,
    psi_width: int | None = None,
    steps: int = 1000,
    batch_size: int = 16,
    length: int | None = None,
    learning_rate: float = 1e-3,
    tokenizer: Any = None,
    episodes: int = 10_000,
    held_out: int = 512,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    accelerator: str = "auto",
    precision: str = "32-true",
    progress: bool = True,
    on_validation: Callable[[dict[str, float]], None] | None = None,
    **settings: Any,
) -> Finetuned:
    """Add psi to a pretrained causal language model of Hugging Face and train it with the NextLat objective.

    The losses are those of :class:`nextlat_viz.models.NextLat` on the state that the output head reads and the
    embedding of the next token. Dropout is off in both modes. A killed run goes on when the same call is made again,
    and on CPU ends with the same weights; a finished one is loaded.

    Measured on sequences held out by their content, before the first step and at every validation: ``loss``, the
    next-token loss in nats; ``unigram``, what guessing by frequency costs; ``next_h`` and ``kl``; and
    ``transition_error``, the summed squared error of psi(h_t, x_{t+1}) against h_{t+1} over that of "no change": 1 is
    no better than h_t itself, 0 exact. Where the same sequences come again and again, those held out are not the
    corpus in small, and their loss is not to be compared with a world's floor.

    Parameters
    ----------
    model : PreTrainedModel, folder or name on the Hugging Face Hub
        Read from safetensors alone; a model that needs code of its own is refused. One handed in is not changed, but
        copied.
    corpus : World, Episodes, (N, T) integers, or list of token id lists or of texts
        See :func:`nextlat_viz.hf.corpus.sequences`. Where a state "document" numbers documents packed into a row,
        attention stays inside them and positions start over; a model that cannot do that is refused.
    mode : "psi" trains psi alone and leaves the model's weights as they are, "full" trains both.
    horizon, lambda_h, lambda_kl : d and the weights of the two latent losses (eq. 5).
    psi_width : hidden width of psi; that of the hidden state when not given.
    steps, batch_size : optimiser steps, and sequences in each.
    length : most tokens of a sequence.
    learning_rate : psi's, with AdamW; in mode "full" the model's is that times `model_rate`, 0.1: the model must not
        change faster than psi can follow, or the losses pull its states towards what psi cannot yet predict.
    tokenizer : the model's, for a corpus of texts.
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
        If model, corpus and settings do not fit one another; the message says what does.
    CheckpointError
        If `out` holds another run.
    TrainingError
        If the loss stops being finite, or the device's memory is full.

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
    config = settle(explicit, settings)
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
    default = Path("runs", "finetune", re.sub(r"[^\w=.]+", "-", name), mode, f"seed{seed}")
    run = _Run(backbone, name, parts, config, seed, Path(out) if out is not None else default)
    run.command = call_of(model, parts.about, config, seed)
    if (run.folder / CARD).exists():
        return run.finished()
    strategy: Any = {"precision": precision, "accelerator": accelerator, "devices": 1}
    fabric = Fabric(**strategy)
    claim(run.folder)
    try:
        return run.fit(fabric, progress, on_validation)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{device_name(fabric.device)} ran out of memory with batch_size={batch_size} and sequences of "
            f"{parts.about['length']} tokens. Lower batch_size or length, in another folder than {str(run.folder)!r}."
        ) from error


class _Run:
    """One run: its identity, its folder, and the steps between."""

    command: str

    def __init__(
        self, backbone: Pretrained, name: str, parts: Sequences, config: FinetuneConfig, seed: int, folder: Path
    ) -> None:
        self.backbone, self.parts, self.config, self.seed, self.folder = backbone, parts, config, seed, folder
        described: Any = backbone.module.config
        self.about = {
            "name": name,
            "class": type(backbone.module).__name__,
            "config_sha256": _hash_of(described.to_dict()),
            "weights_sha256": weights_sha256(backbone.module),
            "dim": backbone.config.dim,
            "vocabulary_size": backbone.config.vocabulary_size,
        }
        self.identity = self._identity(self.about, parts.about, config, seed)

    def finished(self) -> Finetuned:
        tuned = load_finetuned(self.folder)
        card = tuned.card
        refuse_another(
            self.folder, differing(self._identity(card.model, card.corpus, card.config, card.seed), self.identity)
        )
        return tuned

    def fit(
        self, fabric: Fabric, show_bar: bool, on_validation: Callable[[dict[str, float]], None] | None
    ) -> Finetuned:
        config = self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            sizes = config.model_dump(include={"horizon", "lambda_h", "lambda_kl", "psi_width", "psi_layers"})
            model = PostHoc(self.backbone, **sizes, full=config.mode == "full")
        trained = model.trained()
        optimizer = _optimizer(model, config)
        done = self._resume(trained, optimizer)
        shared = config.model_dump(include=set(TrainConfig.model_fields))
        engine = Engine(model, optimizer, TrainConfig(**shared), fabric)
        started = time.monotonic() - done.seconds

        def measured() -> dict[str, float]:
            return measure(model, self.parts.held_out, config.batch_size, fabric.device)

        label = f"{self.about['name']}/{config.mode}"
        with Reporter(self.folder, label, config.steps, done.step, bar=show_bar, board=True) as reporter:

            def record(row: dict[str, float]) -> None:
                done.history.append(row)
                reporter.row(row)
                if on_validation is not None:
                    on_validation(row)

            if not done.history:
                record({"step": 0.0, **measured()})
            while done.step < config.steps:
                engine.step(done.step, [Piece(self._batch(done.step, fabric.device))])
                done.step += 1
                reporter.step()
                step, last = done.step, done.step == config.steps
                validates, saves = step % config.validate_every == 0 or last, step % config.save_every == 0 and not last
                if not (validates or saves):
                    continue
                self._check_finite(engine, step)
                if validates:
                    record({"step": float(step), **measured()})
                if saves:
                    done.seconds = time.monotonic() - started
                    resume.write(self.folder, self.identity, done, trained, engine.moments())
        self._finish(model, done, fabric.device)
        return load_finetuned(self.folder)

    def _batch(self, step: int, device: torch.device) -> Batch:
        """The sequences of one step, by seed and step alone."""
        train, size = self.parts.train, self.config.batch_size
        rng = np.random.default_rng([self.seed, step])
        return Batch.from_episodes(train[rng.choice(len(train), size, replace=size > len(train))], device, seed=step)

    def _check_finite(self, engine: Engine, step: int) -> None:
        ago = engine.first_failure()
        if ago is None:
            return
        where = f"The loss of step {step - ago + 1}" if ago else f"The weights after step {step}"
        raise TrainingError(
            f"{where} is not a finite number. Train with a learning_rate below {self.config.learning_rate}, in another "
            f"folder than {str(self.folder)!r}."
        )

    def _resume(self, trained: nn.ParameterList, optimizer: torch.optim.Optimizer) -> Progress:
        saved = resume.read(self.folder)
        if saved is None:
            return Progress()
        refuse_another(self.folder, differing(saved.identity, self.identity))
        saved.restore(trained, optimizer)
        return saved.progress

    @staticmethod
    def _identity(model: dict[str, Any], corpus: dict[str, Any], config: FinetuneConfig, seed: int) -> dict[str, Any]:
        named = {f"model {key}": model[key] for key in ("class", "config_sha256", "weights_sha256")}
        return {**named, "corpus": corpus["sha256"], "seed": seed, **config.model_dump(mode="json")}

    def _finish(self, model: PostHoc, done: Progress, device: torch.device) -> None:
        """Write model, psi, curve and, last, the card; what was needed to go on is not needed any more."""
        rows = [{name: value for name, value in row.items() if name != "step"} for row in done.history]
        model.to("cpu")
        with quiet(), tempfile.TemporaryDirectory(dir=self.folder, prefix=f".{MODEL}.") as temporary:
            written = Path(temporary, MODEL)
            self.backbone.module.save_pretrained(written)
            # One left by a run that was killed right here.
            shutil.rmtree(self.folder / MODEL, ignore_errors=True)
            written.replace(self.folder / MODEL)
        io.write(self.folder / PSI, save_tensors(model.psi.state_dict()))
        io.write(self.folder / METRICS, csv_bytes(done.history))
        files = [*sorted((self.folder / MODEL).iterdir()), self.folder / PSI, self.folder / METRICS]
        card = FinetuneCard(
            model=self.about,
            corpus=self.parts.about,
            config=self.config,
            seed=self.seed,
            command=self.command,
            files={path.relative_to(self.folder).as_posix(): sha256_of(path) for path in files},
            parameters=sum(parameter.numel() for parameter in model.trained().parameters()),
            versions=versions() | {"transformers": metadata.version("transformers")},
            device=device_name(device),
            before=rows[0],
            metrics=rows[-1],
        ).signed()
        io.write(self.folder / CARD, card.model_dump_json(indent=2))
        (self.folder / TRAIN_STATE).unlink(missing_ok=True)


def measure(model: PostHoc, held_out: Episodes, batch_size: int, device: torch.device) -> dict[str, float]:
    """Return losses and transition error over all of the sequences, as :func:`finetune` names them."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    seen = []
    for start in range(0, len(held_out), batch_size):
        batch = Batch.from_episodes(held_out[start : start + batch_size], device)
        count = model.counts(batch)
        for name, value in model.measure(batch).items():
            sums[name] = sums.get(name, 0.0) + value.item() * count.get(name, 1)
        counts = {name: counts.get(name, 0) + one for name, one in count.items()}
        seen.append(batch.targets[batch.target_mask].cpu())
    share = torch.bincount(torch.cat(seen)).double()
    share /= share.sum()
    means = {name: sums[name] / max(count, 1) for name, count in counts.items()}
    return {
        "loss": means["next_token"],
        "unigram": -float(torch.xlogy(share, share).sum()),
        "next_h": means["next_h"],
        "kl": means["kl"],
        # States that never change leave nothing to be relative to.
        "transition_error": sums["missed"] / sums["moved"] if sums["moved"] else math.nan,
    }


class _AdamW(torch.optim.AdamW):
    """AdamW whose groups each take the step's rate times a factor of their own."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["lr"] = group["lr"] * group["factor"]
        return super().step(closure)


def _optimizer(model: PostHoc, config: FinetuneConfig) -> _AdamW:
    """For what is trained, in the order of ``model.trained()``; the pretrained part moves more slowly than psi."""
    slow = [parameter for parameter in model.backbone.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": slow, "factor": config.model_rate}] if slow else []
    groups.append({"params": list(model.psi.parameters()), "factor": 1.0})
    return _AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=config.weight_decay)


def _hash_of(config: dict[str, Any]) -> str:
    """Hash of a model's config, the same whether the model was built, or saved and read again."""
    kept = {name: value for name, value in config.items() if name not in WRITTEN_BY_SAVING}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()
