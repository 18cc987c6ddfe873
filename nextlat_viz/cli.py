"""The command line, ``nextlat-viz COMMAND``; `COMMANDS` lists the commands."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from pydantic import BaseModel, ConfigDict, Field, create_model
from tyro.conf import Positional

from nextlat_viz.errors import TrainingError
from nextlat_viz.training.config import TrainConfig
from nextlat_viz.training.launch import Resources

if TYPE_CHECKING:
    import pandas as pd

# Placeholders that the help shows for fields whose annotation is not a single type.
_METAVARS = {"snapshots": "INT ...", "sharing": "NAME", "token_term": "NAME", "stop_at": "FLOAT", "minutes": "FLOAT"}
_METAVARS |= dict.fromkeys(("kv_heads", "latent_updates", "cycles", "recursion_steps"), "INT")


def _override(name: str) -> tuple[Any, None]:
    """Return the command-line option of a hyperparameter; its default is the value in the preset."""
    field = TrainConfig.model_fields[name]
    metavar = _METAVARS.get(name, getattr(field.annotation, "__name__", "NAME").upper())
    option = tyro.conf.arg(help=field.description, metavar=metavar, help_behavior_hint="(default: the preset's)")
    return Annotated[field.annotation | None, option], None  # type: ignore[operator]


_FIELDS: dict[str, Any] = {name: _override(name) for name in TrainConfig.model_fields}
Overrides = create_model("Overrides", __config__=ConfigDict(extra="forbid"), **_FIELDS)


class _Training(BaseModel):
    """The options that train and sweep share."""

    world: Positional[str] = Field(
        description="name of a world, such as rrxor or mess3:x=0.15; `nextlat-viz list worlds` shows them"
    )
    preset: str = Field("tiny", description="a set of hyperparameters; the options below override single ones")
    accelerator: str = Field("auto", description="auto, cpu, cuda, or another of Lightning Fabric's")
    devices: int = Field(
        1, description="number of devices, one process each, started here or by `torchrun --nproc-per-node N`"
    )
    strategy: str = Field("auto", description="auto, ddp, or fsdp, which shards the weights over GPUs")
    overrides: Annotated[Overrides, tyro.conf.arg(name="")] = Overrides()

    def arguments(self) -> dict[str, Any]:
        """Return the options by name, and the hyperparameters that were given."""
        options = dict(self)
        return options | options.pop("overrides").model_dump(exclude_none=True)


class Train(_Training):
    """Train a model on a world. The same command continues an interrupted run and loads a finished one."""

    objective: Positional[str] = Field(
        "nextlat", description="next_token, nextlat, mtp, jtp or bst; for puzzles trm, dis, one_pass or equal_depth"
    )
    seed: int = Field(0, description="seed of the initial weights and of the episodes")
    out: Path | None = Field(None, description="folder of the run (default: runs/WORLD/OBJECTIVE/seedSEED)")

    def run(self) -> None:
        from nextlat_viz.training import train

        checkpoint = train(**self.arguments())
        # With several devices only the first process prints.
        if os.environ.get("LOCAL_RANK", "0") != "0":
            return
        metrics = checkpoint.card.metrics
        references = "".join(f", {name} {metrics[name]:.4f}" for name in ("floor", "unigram") if name in metrics)
        print(f"{checkpoint.folder}: loss {metrics['loss']:.4f} nats per token{references}")


class Sweep(_Training):
    """Train all combinations of objectives, settings and seeds, and print one table.

    The same command continues an interrupted sweep.
    """

    objectives: tuple[str, ...] = Field(("next_token", "nextlat"), description="objectives to train")
    seeds: tuple[int, ...] = Field((0, 1, 2), description="seeds of every combination")
    grid: Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="FIELD=VALUE,...")] = Field(
        (), description="values to try, such as horizon=1,2,4; several fields give all combinations"
    )
    out: Path | None = Field(None, description="folder of the sweep (default: runs/sweeps/WORLD)")
    launcher: Literal["local", "slurm"] | None = Field(
        None, description="local: several runs at once on this machine; slurm: a job for each (default: one by one)"
    )
    workers: int | None = Field(None, description="runs at once (default: GPUs or cores here, all on a cluster)")
    resources: Annotated[Resources, tyro.conf.arg(name="")] = Resources()

    def run(self) -> None:
        from nextlat_viz.training import sweep

        table = sweep(**self.arguments() | {"grid": _grid(self.grid)})
        show(table)
        failed = table[table["error"].ne("")]
        if len(failed):
            runs = "every run" if len(failed) == len(table) else f"{len(failed)} of {len(table)} runs"
            raise TrainingError(f"{runs} failed; the first error: {failed['error'].iloc[0]}")


def _grid(words: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the values to try from words such as ``horizon=1,2``."""
    grid = {}
    for word in words:
        field, equals, values = word.partition("=")
        if not (field and equals and values):
            raise ValueError(f"--set {word}: expected FIELD=VALUE,VALUE,..., such as horizon=1,2")
        grid[field.replace("-", "_")] = values.split(",")
    return grid


class Finetune(BaseModel):
    """Add psi to a pretrained language model of Hugging Face and train it with the NextLat objective.

    The same command continues an interrupted run and loads a finished one.
    """

    model: Positional[str] = Field(description="folder of the model, or its name on the Hugging Face Hub")
    texts: Positional[Path] = Field(description="file of texts: documents separated by <|endoftext|>, or a .jsonl")
    mode: Literal["psi", "full"] = Field("psi", description="psi: train psi alone; full: train the model too")
    horizon: int = Field(1, description="d: steps of psi")
    psi_width: int | None = Field(None, description="hidden width of psi (default: that of the hidden state)")
    steps: int = Field(1000, description="optimiser steps")
    batch_size: int = Field(16, description="sequences per step")
    length: int | None = Field(None, description="maximum tokens per sequence (default: the model's context)")
    learning_rate: float = Field(1e-3, description="psi's peak learning rate in AdamW")
    fields: Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="FIELD=VALUE")] = Field(
        (), description="other hyperparameters, such as lambda_h=0.3 validate_every=200"
    )
    seed: int = Field(0, description="seed of psi's initial weights and of the order of sequences")
    out: Path | None = Field(None, description="folder of the run (default: runs/finetune/MODEL/MODE/seedSEED)")

    def run(self) -> None:
        from nextlat_viz.hf.finetune import finetune

        grid = _grid(self.fields)
        if several := [field for field, values in grid.items() if len(values) > 1]:
            raise ValueError(f"--set {several[0]}={','.join(grid[several[0]])}: give one value, as this is one run")
        settings = {field: _number(values[0]) for field, values in grid.items()}
        options = self.model_dump(exclude={"model", "texts", "fields"})
        tuned = finetune(self.model, self.texts, **options, **settings)
        before, after = tuned.card.before, tuned.card.metrics
        changes = (f"{name} {before[name]:.4f} -> {after[name]:.4f}" for name in ("loss", "kl", "transition_error"))
        print(f"{tuned.folder}: {', '.join(changes)}")


def _number(word: str) -> Any:
    """Convert a word to a number if it is one."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(word)
    return word


class Extract(BaseModel):
    """Write the latents of a checkpoint, with the true state at every position, to an .h5ad file.

    With `torchrun --nproc-per-node N -m nextlat_viz.cli extract` each process writes its part into a folder.
    """

    checkpoint: Positional[str] = Field(description="a shipped name such as rrxor/nextlat, or a run's folder")
    out: Path = Field(description="file to write; under torchrun a folder, whose name must not end in .h5ad")
    episodes: int | None = Field(None, description="number of held-out episodes (default: the standard ones)")
    seed: int = Field(0, description="seed of these episodes")
    step: int | None = Field(None, description="step of a training snapshot (default: the last step)")
    batch_size: int = Field(256, description="episodes per forward pass")
    device: str | None = Field(None, description="cpu or cuda; cuda under torchrun: one GPU per process (default: cpu)")
    overwrite: bool = Field(False, description="replace the file if it exists")

    def run(self) -> None:
        from nextlat_viz import latents, training
        from nextlat_viz.latents.parts import processes
        from nextlat_viz.latents.store import require_free

        rank, count = processes()
        if count == 1:
            require_free(self.out, self.overwrite)
        elif self.out.suffix == ".h5ad" or self.overwrite:
            raise ValueError(
                f"{count} processes write a folder of parts, which is never replaced: give --out a new name without "
                f".h5ad, such as {self.out.with_suffix('')}, and omit --overwrite"
            )
        checkpoint = training.load(self.checkpoint)
        checkpoint = checkpoint if self.step is None else checkpoint.at(self.step)
        episodes = None if self.episodes is None else latents.heldout(checkpoint, self.episodes, self.seed)
        options: dict[str, Any] = {"batch_size": self.batch_size, "device": self.device}
        if count > 1:
            table = latents.extract(checkpoint, episodes, out=self.out, progress=rank == 0, **options)
            written = f"{self.out}, part {rank + 1} of {count}"
        else:
            table = latents.extract(checkpoint, episodes, **options)
            written = str(latents.save_latents(table, self.out, overwrite=self.overwrite))
        # A single write, so that the lines of several processes do not mix.
        print(f"{written}: {table.n_obs:,} rows of {table.n_vars}\n", end="", flush=True)


class Evaluate(BaseModel):
    """Measure checkpoints: one table of all results, and a page with a figure of each measure.

    The same command continues an interrupted evaluation.
    """

    checkpoints: Positional[tuple[str, ...]] = Field(
        (), description="names or folders (default: all shipped checkpoints)"
    )
    measures: tuple[str, ...] = Field((), description="names of measures, such as loss belief (default: all that fit)")
    out: Path = Field(Path("evaluation"), description="folder for the table, the page and partial results")
    table: str = Field("results.csv", description="file name of the table; .csv, or .parquet, which needs pyarrow")
    images: tuple[Literal["png", "svg", "pdf"], ...] = Field(
        (), description="image formats to write for each figure; they need Chrome or Chromium"
    )

    def run(self) -> None:
        from nextlat_viz.analysis import measure
        from nextlat_viz.analysis.measure.tables import require_table
        from nextlat_viz.figures.export import drawable

        require_table(self.table)
        images = drawable(self.images)
        evaluation = measure.evaluate(self.checkpoints or None, self.measures or None, out=self.out)
        for path in measure.write_evaluation(evaluation, self.out, table=self.table, images=images):
            print(path)
        beliefs = measure.belief_table(evaluation.table)
        if len(beliefs):
            show(beliefs.drop(columns="weights_sha256"))
        claims = measure.claims(evaluation.table)
        if len(claims):
            print(measure.claims_markdown(claims))


class Demo(BaseModel):
    """Train two models, extract, project, probe and compare them; write a report and figures."""

    world: Positional[str] = Field("rrxor", description="name of a world")
    shipped: bool = Field(False, description="use the shipped checkpoints instead of training")
    seed: int = Field(0, description="seed of both models")
    steps: int | None = Field(None, description="optimiser steps (default: the preset's)")
    out: Path = Field(Path("demo"), description="folder for report.html, images and runs")

    def run(self) -> None:
        from nextlat_viz.pages import demo

        overrides: dict[str, Any] = {} if self.steps is None else {"steps": self.steps}
        table = demo(self.world, shipped=self.shipped, seed=self.seed, out=self.out, **overrides)
        show(table)
        print(f"open {self.out / 'report.html'}")


class OpenStudio(BaseModel):
    """Open models side by side in a browser, without a notebook.

    Listens on 127.0.0.1 only, until Ctrl-C.
    """

    runs: Positional[tuple[str, ...]] = Field(
        (), description="names or folders of runs, also of several worlds (default: those of the lesson, or RRXOR's)"
    )
    lesson: str | None = Field(
        None, description="lesson to open in the studio: a shipped one, such as beliefs, or a JSON file (default: none)"
    )
    port: int = Field(0, description="port to listen on; 0 takes a free one")
    no_browser: bool = Field(False, description="do not open the default browser")

    def run(self) -> None:
        from nextlat_viz.notebook.serve import serve

        with (
            _stopped_by_any_signal(),
            serve(self.runs or None, lesson=self.lesson, port=self.port, open_browser=not self.no_browser) as app,
        ):
            print(f"The studio is at {app.url}\nPress Ctrl-C to stop.", flush=True)
            app.wait()


@contextlib.contextmanager
def _stopped_by_any_signal() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP like Ctrl-C, so that the server is shut down too."""
    names = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handlers = {name: signal.signal(name, signal.default_int_handler) for name in names}
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)


class Figures(BaseModel):
    """Write a gallery: every figure that fits the shipped runs or your own, and an index page."""

    runs: Positional[tuple[str, ...]] = Field(
        (), description="names or folders of runs, which are measured first (default: the shipped runs and results)"
    )
    out: Path | None = Field(None, description="folder to write to (default: gallery)")
    images: tuple[Literal["svg", "png", "pdf"], ...] = Field(
        ("svg",), description="image formats to write for each figure; they need Chrome or Chromium"
    )
    readme: bool = Field(False, description="write the figure of the README instead, into docs/images or --out")

    def run(self) -> None:
        if self.readme:
            from nextlat_viz.pages import readme_figures

            if self.runs:
                raise ValueError(f"--readme draws the shipped runs: omit {' '.join(self.runs)}, or --readme")
            for path in readme_figures(self.out or Path("docs/images")):
                print(path)
            return
        from nextlat_viz.pages import write_gallery

        print(f"open {write_gallery(self.runs, self.out or Path('gallery'), images=self.images)}")


class Handouts(BaseModel):
    """Write a printable A4 page for every lesson of the course: question, terms, formulas, figure, exercise."""

    lessons: Positional[Path | None] = Field(
        None, description="folder of lessons, or one notebook, whose cells are run (default: notebooks/course)"
    )
    out: Path = Field(Path("handouts"), description="folder to write to")

    def run(self) -> None:
        from nextlat_viz.pages import write_handouts

        index = write_handouts(out=self.out) if self.lessons is None else write_handouts(self.lessons, self.out)
        print(f"open {index}")


class PlayLesson(BaseModel):
    """Write a lesson as a page that plays without a kernel: each step with its question, figure and text."""

    lesson: Positional[str] = Field(description="name of a shipped lesson, such as beliefs, or a JSON file")
    out: Path | None = Field(None, description="page to write (default: LESSON.html)")

    def run(self) -> None:
        from nextlat_viz.pages import write_lesson

        print(f"open {write_lesson(self.lesson, self.out)}")


class List(BaseModel):
    """List checkpoints, worlds, objectives and presets, the claims about the shipped checkpoints, or costs."""

    what: Positional[Literal["all", "checkpoints", "worlds", "objectives", "presets", "claims", "costs"]] = Field(
        "all",
        description="what to list; claims: the table in the README, with every seed and a verdict; costs: GPU hours "
        "and memory of the paper's model sizes",
    )

    def run(self) -> None:
        from nextlat_viz import models, training, worlds

        if self.what in ("all", "worlds"):
            print("worlds:", ", ".join(worlds.names()))
        if self.what in ("all", "objectives"):
            print("objectives:", ", ".join(models.OBJECTIVES))
        if self.what in ("all", "presets"):
            print("presets:", ", ".join(training.preset_names()))
            print(training.preset_table().to_string(index=False, float_format="{:g}".format))
        if self.what == "claims":
            from nextlat_viz.analysis import measure

            print(measure.claims_markdown(measure.claims()))
        if self.what == "costs":
            from nextlat_viz.training.listing import cost_table

            print(cost_table().to_string(index=False, float_format="{:,.4g}".format))
        if self.what in ("all", "checkpoints"):
            show(training.list_checkpoints().drop(columns="folder", errors="ignore"))


COMMANDS: dict[str, Any] = {
    **{"train": Train, "sweep": Sweep, "finetune": Finetune, "extract": Extract, "evaluate": Evaluate, "demo": Demo},
    **{"studio": OpenStudio, "figures": Figures, "handouts": Handouts, "lesson": PlayLesson, "list": List},
}


def show(table: pd.DataFrame) -> None:
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4f}"))


def main(arguments: list[str] | None = None) -> None:
    """Run one command. User errors, warnings and interruptions print one line on stderr, without a traceback.

    Examples
    --------
    >>> main(["list", "objectives"])
    objectives: next_token, nextlat, mtp, jtp, bst, trm, dis, one_pass, equal_depth
    """
    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="nextlat-viz",
        description="See what a transformer believes.",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning
            command.run()
    except KeyboardInterrupt as interrupt:
        message = str(interrupt) or "interrupted. The same command continues from what was saved."
        print(f"nextlat-viz: {message}", file=sys.stderr)
        raise SystemExit(130) from None
    except (ValueError, OSError, ImportError, TrainingError) as error:
        print(f"nextlat-viz: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _print_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    print(f"nextlat-viz: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
