"""Common mistakes: wrong objects, orders and values at every public name give an error that names them.

They are made in a process of their own, because the tests check annotations and users' notebooks do not.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import nextlat_viz as nlv
from nextlat_viz import analysis
from nextlat_viz.paths import PACKAGE

Mistake = Callable[[], Any]


class Made:
    """The objects in the mistakes, each made on first use."""

    @functools.cached_property
    def checkpoint(self) -> Any:
        return nlv.load("rrxor/nextlat")

    @functools.cached_property
    def episodes(self) -> Any:
        return nlv.worlds.get("rrxor").sample(40, 6, seed=1)

    @functools.cached_property
    def latents(self) -> Any:
        return nlv.extract(self.checkpoint, self.episodes)

    @functools.cached_property
    def probe(self) -> Any:
        return nlv.probe(self.latents)

    @functools.cached_property
    def state(self) -> Any:
        return nlv.ViewState(self.latents)

    @functools.cached_property
    def cloud(self) -> Any:
        return nlv.Cloud(np.zeros((3, 2)))

    @functools.cached_property
    def module(self) -> nn.Module:
        return nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 8))

    def read(self, tokens: Any, **options: Any) -> Any:
        """Extract from the module."""
        return nlv.extract(self.module, tokens, sites=["1"], **options)

    @functools.cached_property
    def folder(self) -> Path:
        return Path(tempfile.mkdtemp())

    @functools.cached_property
    def older(self) -> nlv.Checkpoint:
        """A model without a start token."""
        return nlv.train("rrxor", out=self.folder / "older", start_token=False, **TINY)


made = Made()
TOKENS = np.arange(10).reshape(2, 5)
TWICE = pd.DataFrame([[e, p, 0, 1] for e in (0, 1) for p in range(1, 6)], columns=["episode", "position", "a", "a"])
TINY: Any = {"steps": 2, "layers": 1, "validation_episodes": 8, "progress": False}

# The call, and what its error must mention: the argument, and its value or type.
MISTAKES: dict[str, tuple[Mistake, tuple[str, ...]]] = {
    # load, list_checkpoints, Checkpoint
    "load: a world": (lambda: nlv.load("rrxor"), ("rrxor", "rrxor/nextlat")),
    "load: a misspelt name": (lambda: nlv.load("rrxor/nexlat"), ("'rrxor/nexlat'", "'rrxor/nextlat'")),
    "load: a negative seed": (lambda: nlv.load("rrxor/nextlat", seed=-1), ("seed=-1",)),
    "load: the seed as text": (lambda: nlv.load("rrxor/nextlat", seed="0"), ("seed='0'",)),
    "load: a checkpoint": (lambda: nlv.load(made.checkpoint), ("name", "Checkpoint")),
    "load: a number": (lambda: nlv.load(3), ("name", "3")),
    "load: a list": (lambda: nlv.load(["rrxor/nextlat"]), ("name", "['rrxor/nextlat']")),
    "list_checkpoints: a number": (lambda: nlv.list_checkpoints(3), ("folder", "3")),
    "list_checkpoints: no folder": (lambda: nlv.list_checkpoints("no/such"), ("folder", "no/such")),
    "Checkpoint.at: a step not kept": (lambda: made.checkpoint.at(3), ("step=3",)),
    "Checkpoint.at: text": (lambda: made.checkpoint.at("200"), ("step='200'",)),
    # claims
    "claims: a checkpoint": (lambda: nlv.claims("rrxor/nextlat"), ("table", "'rrxor/nextlat'", "evaluate")),
    "claims: another table": (lambda: nlv.claims(pd.DataFrame({"a": [1]})), ("'measure'", "a")),
    # train, sweep
    "train: an objective first": (lambda: nlv.train("nextlat", "rrxor"), ("'nextlat'", "world")),
    "train: a checkpoint": (lambda: nlv.train(made.checkpoint), ("world", "Checkpoint")),
    "train: the name of a checkpoint": (lambda: nlv.train("rrxor/nextlat"), ("'rrxor/nextlat'", "rrxor")),
    "train: several objectives": (lambda: nlv.train("rrxor", ["nextlat", "mtp"]), ("objective", "['nextlat', 'mtp']")),
    "train: steps in place of the preset": (lambda: nlv.train("rrxor", "nextlat", 200), ("preset", "200")),
    "train: no steps": (lambda: nlv.train("rrxor", steps=-1), ("steps=-1",)),
    "train: steps as text": (lambda: nlv.train("rrxor", steps="many"), ("steps='many'",)),
    "train: another framework's name": (lambda: nlv.train("rrxor", lr=0.1), ("'lr'", "learning_rate")),
    "train: a negative seed": (lambda: nlv.train("rrxor", seed=-1), ("seed=-1",)),
    "train: several seeds": (lambda: nlv.train("rrxor", seed=[0, 1]), ("seed=[0, 1]",)),
    "train: a device": (lambda: nlv.train("rrxor", device="gpu"), ("'device'", "'devices'")),
    "train: an unknown accelerator": (
        lambda: nlv.train("rrxor", accelerator="gpus", out=made.folder / "a"),
        ("accelerator='gpus'",),
    ),
    "train: no devices": (lambda: nlv.train("rrxor", devices=0, out=made.folder / "b"), ("devices=0",)),
    "train: an unknown strategy": (lambda: nlv.train("rrxor", strategy="dp"), ("strategy", "'dp'")),
    "train: a callback that is none": (
        lambda: nlv.train("rrxor", on_validation=nlv.LossMonitor(), out=made.folder / "c"),
        ("on_validation", "LossMonitor"),
    ),
    "train: out is a number": (lambda: nlv.train("rrxor", out=3), ("out", "3")),
    "sweep: an objective first": (lambda: nlv.sweep("nextlat", "z1r"), ("'nextlat'", "world")),
    "sweep: a number of seeds": (lambda: nlv.sweep("z1r", ["nextlat"], 3), ("seeds=3",)),
    "sweep: seeds before objectives": (lambda: nlv.sweep("z1r", [0, 1], ["nextlat"]), ("objective", "0")),
    "sweep: a negative seed": (lambda: nlv.sweep("z1r", ["nextlat"], [-1]), ("seed=-1",)),
    "sweep: a grid of names": (lambda: nlv.sweep("z1r", grid=["horizon"]), ("grid", "['horizon']")),
    "sweep: a grid of one wrong value": (lambda: nlv.sweep("z1r", grid={"horizon": 0}), ("horizon=0",)),
    "sweep: no objective": (lambda: nlv.sweep("z1r", []), ("objectives=[]",)),
    "sweep: a wrong preset": (lambda: nlv.sweep("z1r", preset="huge"), ("preset", "'huge'")),
    "sweep: several worlds": (lambda: nlv.sweep(["z1r", "rrxor"]), ("world", "['z1r', 'rrxor']")),
    # extract
    # think
    "think: a model without steps": (lambda: nlv.think("rrxor/nextlat"), ("think", "'nextlat'", "'queens/dis'")),
    "think: a module": (lambda: nlv.think(made.module), ("think", "Sequential")),
    "think: a number of puzzles": (lambda: nlv.think("queens/dis", 64), ("puzzles", "64")),
    "think: text": (lambda: nlv.think("queens/dis", "a1 b2"), ("puzzles", "'a1 b2'")),
    "think: steps as text": (lambda: nlv.think("queens/dis", steps="3"), ("steps='3'",)),
    "think: no solution": (lambda: nlv.think("queens/dis", 1 * (np.arange(49)[None] < 2)), ("board 0", "attack")),
    "extract: steps of a model without": (lambda: nlv.extract(made.checkpoint, steps=4), ("steps", "'nextlat'")),
    "extract: a world": (lambda: nlv.extract(made.episodes, made.checkpoint), ("model", "Episodes")),
    "extract: several models": (lambda: nlv.extract([made.module]), ("model", "list")),
    "extract: a number of episodes": (lambda: nlv.extract(made.checkpoint, 64), ("episodes", "64")),
    "extract: bare tokens": (lambda: nlv.extract(made.checkpoint, TOKENS), ("episodes", "ndarray")),
    "extract: sites as a number": (lambda: nlv.extract(made.checkpoint, made.episodes, 0), ("sites", "0")),
    "extract: an unknown site": (lambda: nlv.extract(made.checkpoint, made.episodes, "block9"), ("site", "'block9'")),
    "extract: a batch of none": (lambda: nlv.extract(made.checkpoint, batch_size=0), ("batch_size=0",)),
    "extract: a batch as text": (lambda: nlv.extract(made.checkpoint, batch_size="64"), ("batch_size='64'",)),
    "extract: gpu": (lambda: nlv.extract(made.checkpoint, made.episodes, device="gpu"), ("device='gpu'", "cuda")),
    "extract: a number of a device": (
        lambda: nlv.extract(made.checkpoint, made.episodes, device=99),
        ("device=99",),
    ),
    "extract: a type": (lambda: nlv.extract(made.checkpoint, made.episodes, dtype=np.float32), ("dtype", "float32")),
    "extract: padding of -100": (
        lambda: made.read(np.where(TOKENS > 7, -100, TOKENS)),
        ("-100", "lengths="),
    ),
    "extract: tokens past the embedding": (lambda: made.read(TOKENS + 5), ("14", "10 rows")),
    "extract: ragged tokens": (lambda: made.read([[1, 2, 3], [4]]), ("episodes", "lengths=")),
    "extract: texts": (lambda: made.read(["a b", "c"]), ("episodes", "token ids")),
    "extract: probabilities": (lambda: made.read(TOKENS / 10), ("episodes", "float64")),
    "extract: one sequence": (lambda: made.read([1, 2, 3]), ("episodes", "(3,)")),
    "extract: lengths that do not fit": (lambda: made.read(TOKENS, lengths=[9, 9]), ("lengths", "9")),
    "extract: one length": (lambda: made.read(TOKENS, lengths=5), ("lengths", "5")),
    "extract: a mask of another shape": (
        lambda: made.read(TOKENS, mask=np.ones(5)),
        ("mask", "(5,)"),
    ),
    "extract: a mask of other numbers": (lambda: made.read(TOKENS, mask=np.full((2, 5), 0.5)), ("mask", "0.5")),
    "extract: two columns of truth of one name": (lambda: made.read(TOKENS, truth=TWICE), ("truth", "'a'")),
    "extract: position 0 of a model without a start token": (
        lambda: nlv.extract(made.older, made.episodes, positions=[0]),
        ("positions", "0", "start token"),
    ),
    "extract: one position past the end": (
        lambda: nlv.extract(made.checkpoint, made.episodes, positions=30),
        ("positions=30",),
    ),
    "extract: truth as a list": (lambda: made.read(TOKENS, truth=[1, 2]), ("truth", "[1, 2]")),
    "extract: an unknown world": (
        lambda: made.read(TOKENS, world="rrxr"),
        ("world", "'rrxr'", "'rrxor'"),
    ),
    "extract: the name of a path": (
        lambda: nlv.extract(made.checkpoint, made.episodes, out=made.folder / "latents"),
        (".h5ad", "latents"),
    ),
    # load_latents, save_latents, concatenate
    "export_parquet: a checkpoint": (lambda: nlv.export_parquet("rrxor/nextlat", "a.parquet"), ("latents", "'rrxor/")),
    "export_parquet: another kind of file": (
        lambda: nlv.export_parquet(made.latents, "a.csv"),
        ("path", ".parquet", "a.csv"),
    ),
    "export_atlas: a number": (lambda: nlv.export_atlas(made.latents, 3), ("path", "3")),
    "export_atlas: the name of a projection": (
        lambda: nlv.export_atlas(made.latents, made.folder / "a.parquet", "umap"),
        ("column", "'umap'"),
    ),
    "export_projector: a misspelt column": (
        lambda: nlv.export_projector(made.latents, made.folder / "p", columns=["staet"]),
        ("'staet'", "'state'"),
    ),
    "push: no user": (lambda: nlv.push("rrxor/nextlat", "name"), ("name='name'", "user/name")),
    "push: a number": (lambda: nlv.push(3, "user/name"), ("3",)),
    "to_transformer_lens: a number": (lambda: nlv.to_transformer_lens(3), ("checkpoint", "3")),
    "load_latents: latents": (lambda: nlv.load_latents(made.latents), ("path", "AnnData")),
    "load_latents: a missing file": (lambda: nlv.load_latents("no/such.h5ad"), ("such.h5ad",)),
    "load_latents: a number": (lambda: nlv.load_latents(3), ("path", "3")),
    "save_latents: the path first": (lambda: nlv.save_latents("a.h5ad", made.latents), ("latents", "a.h5ad")),
    "save_latents: an array": (lambda: nlv.save_latents(made.latents.X, "a.h5ad"), ("latents", "ndarray")),
    "save_latents: another ending": (lambda: nlv.save_latents(made.latents, "a.csv"), ("a.csv", ".h5ad")),
    "save_latents: a number": (lambda: nlv.save_latents(made.latents, 3), ("path", "3")),
    "concatenate: two arguments": (lambda: nlv.concatenate(made.latents, made.latents), ("names", "AnnData")),
    "concatenate: arrays": (lambda: nlv.concatenate([made.latents.X]), ("latents", "ndarray")),
    "concatenate: one name": (lambda: nlv.concatenate([made.latents], "ab"), ("names", "'ab'")),
    "concatenate: none": (lambda: nlv.concatenate([]), ("concatenate",)),
    # probe, project, evaluate, results
    "probe: an array": (lambda: nlv.probe(made.latents.X), ("latents", "ndarray")),
    "probe: an unknown target": (lambda: nlv.probe(made.latents, "beliefs"), ("target", "'beliefs'", "'belief'")),
    "probe: target values": (lambda: nlv.probe(made.latents, made.latents.obs["state"]), ("target", "Series")),
    "probe: several targets": (lambda: nlv.probe(made.latents, ["belief", "state"]), ("target", "['belief', 'state']")),
    "probe: a site by its number": (lambda: nlv.probe(made.latents, "belief", 0), ("site", "0")),
    "probe: several sites": (lambda: nlv.probe(made.latents, "belief", ["embed"]), ("site", "['embed']")),
    "probe: a share as text": (lambda: nlv.probe(made.latents, test_size="0.3"), ("test_size", "'0.3'")),
    "probe: a share of all": (lambda: nlv.probe(made.latents, test_size=30), ("test_size", "30")),
    "probe: a negative seed": (lambda: nlv.probe(made.latents, seed=-1), ("seed=-1",)),
    "probe: position -1": (lambda: nlv.probe(made.latents, min_position=-1), ("min_position=-1",)),
    "probe: no resamples": (lambda: nlv.probe(made.latents, n_bootstrap=0), ("n_bootstrap=0",)),
    "probe: True for untrained": (lambda: nlv.probe(made.latents, untrained=True), ("untrained", "bool")),
    "project: an unknown method": (lambda: nlv.project(made.latents, "tsne"), ("method", "'tsne'")),
    "project: the site second": (lambda: nlv.project(made.latents, "block0"), ("method", "'block0'")),
    "project: a row that is not there": (lambda: nlv.project(made.latents, rows=[0, 10**6]), ("rows", "1000000")),
    "project: a row from the end": (lambda: nlv.project(made.latents, rows=[-1]), ("rows", "-1")),
    "project: rows as floats": (lambda: nlv.project(made.latents, rows=[0.5, 1.5]), ("rows", "0.5")),
    "project: a mask that is too short": (lambda: nlv.project(made.latents, rows=[True, False]), ("rows", "(2,)")),
    "project: a number of rows": (lambda: nlv.project(made.latents, rows=100), ("rows", "100")),
    "project: another's probe": (lambda: nlv.project(made.latents, "belief", probe="belief"), ("probe", "'belief'")),
    "project: ragged rows": (lambda: nlv.project(made.latents, rows=[[1], [1, 2]]), ("rows", "[[1], [1, 2]]")),
    "project: rows as a trained tensor": (
        lambda: nlv.project(made.latents, rows=torch.ones(2, requires_grad=True)),
        ("rows", "float32"),
    ),
    "project: half a neighbour": (lambda: nlv.project(made.latents, "umap", n_neighbors=5.5), ("n_neighbors", "5.5")),
    "project: neighbours as text": (lambda: nlv.project(made.latents, "umap", n_neighbors="5"), ("n_neighbors", "'5'")),
    "project: a negative seed": (lambda: nlv.project(made.latents, seed=-1), ("seed=-1",)),
    "evaluate: latents": (lambda: nlv.evaluate(made.latents), ("checkpoints", "AnnData")),
    "evaluate: a list of latents": (lambda: nlv.evaluate([made.latents]), ("checkpoints", "AnnData")),
    "evaluate: an unknown measure": (lambda: nlv.evaluate("rrxor/nextlat", "losss"), ("measure", "'losss'", "'loss'")),
    "evaluate: a number as measure": (lambda: nlv.evaluate("rrxor/nextlat", 3), ("measure", "3")),
    "evaluate: names as two arguments": (lambda: nlv.evaluate("rrxor/nextlat", "rrxor/mtp"), ("measure", "rrxor/mtp")),
    "evaluate: no checkpoint": (lambda: nlv.evaluate([]), ("checkpoints",)),
    "evaluate: out is a number": (lambda: nlv.evaluate("rrxor/nextlat", "loss", out=3), ("out", "3")),
    # analysis
    "probe_sites: sites as a number": (lambda: analysis.probe_sites(made.latents, sites=0), ("sites=0",)),
    "probe_sweep: a device": (
        lambda: analysis.probe_sweep(made.latents, offsets=[1], device="gpu", progress=False),
        ("device='gpu'", "cuda"),
    ),
    "probe_sweep: one offset": (lambda: analysis.probe_sweep(made.latents, offsets=3), ("offsets", "3")),
    "probe_sweep: positions as a number": (
        lambda: analysis.probe_sweep(made.latents, offsets=[1], positions=3, progress=False),
        ("positions", "3"),
    ),
    "read_out: a mask": (
        lambda: analysis.read_out(made.latents, made.probe, made.latents.obs["position"] > 3),
        ("row", "Series"),
    ),
    "read_out: the last row as -1": (lambda: analysis.read_out(made.latents, made.probe, -1), ("row=-1",)),
    "read_out: a float": (lambda: analysis.read_out(made.latents, made.probe, 1.0), ("row=1.0",)),
    # finetune, load_finetuned
    "finetune: one of our checkpoints": (lambda: nlv.finetune(made.checkpoint, TOKENS), ("model", "Checkpoint")),
    "finetune: the corpus first": (lambda: nlv.finetune(TOKENS, "gpt2"), ("model", "ndarray")),
    "finetune: a negative seed": (lambda: nlv.finetune("./no/such", TOKENS, seed=-1), ("seed=-1",)),
    "finetune: no such folder": (lambda: nlv.finetune("./no/such", TOKENS), ("./no/such",)),
    "load_finetuned: a number": (lambda: nlv.load_finetuned(3), ("folder", "3")),
    "load_finetuned: no such folder": (lambda: nlv.load_finetuned("no/such"), ("no/such",)),
    # ViewState and the widgets on it
    "ViewState: nothing": (lambda: nlv.ViewState(), ("model",)),
    "ViewState: an array": (lambda: nlv.ViewState(made.latents.X), ("model", "ndarray")),
    "ViewState: a probe": (lambda: nlv.ViewState(made.probe), ("model", "ProbeResult")),
    "ViewState: a module": (lambda: nlv.ViewState(made.module), ("model", "Sequential", "nlv.extract")),
    "ViewState: an array as control": (
        lambda: nlv.ViewState(made.latents, untrained=made.latents.X),
        ("untrained", "ndarray"),
    ),
    "ViewState: too many controls": (
        lambda: nlv.ViewState(made.latents, untrained=[made.latents, made.latents]),
        ("untrained", "2"),
    ),
    "ViewState: points as text": (lambda: nlv.ViewState(made.latents, max_points="8000"), ("max_points='8000'",)),
    "ViewState.go_to: no such episode": (lambda: made.state.go_to(9999, 1), ("episode", "9999")),
    "ViewState.go_to: floats": (lambda: made.state.go_to(0.5, 1), ("episode", "0.5")),
    "ViewState.go_to: a position as text": (lambda: made.state.go_to(0, "5"), ("position='5'",)),
    "ViewState.select: the last row as -1": (lambda: made.state.select([-1]), ("rows", "-1")),
    "ViewState.select: floats": (lambda: made.state.select([0.5]), ("rows", "0.5")),
    "ViewState.select: a number": (lambda: made.state.select(3), ("rows", "3")),
    "ViewState.select: a mask of another length": (lambda: made.state.select([True]), ("rows", "(1,)")),
    "ViewState.select: pairs": (lambda: made.state.select([(0, 1)]), ("rows", "[[0, 1]]")),
    "ViewState.show: an unknown world": (lambda: made.state.show("mess4"), ("world", "'mess4'")),
    "ViewState.show: an unknown step": (lambda: made.state.show(step=3), ("step", "3")),
    "LatentExplorer: nothing": (lambda: nlv.LatentExplorer(), ("model",)),
    "LatentExplorer: an array": (lambda: nlv.LatentExplorer(made.latents.X), ("model", "ndarray")),
    "LatentExplorer: the state as a model": (lambda: nlv.LatentExplorer(made.state), ("state=", "ViewState")),
    "LatentExplorer: latents as the state": (lambda: nlv.LatentExplorer(state=made.latents), ("state", "AnnData")),
    "ProbeLab: a probe": (lambda: nlv.ProbeLab(made.probe), ("model", "ProbeResult")),
    "ProbeLab: an unknown theme": (lambda: nlv.ProbeLab(made.latents, theme="night"), ("theme", "'night'")),
    "TrajectoryCompare: both": (lambda: nlv.TrajectoryCompare(made.latents, state=made.state), ("state",)),
    "TrajectoryCompare: a name that is none": (lambda: nlv.TrajectoryCompare("rrxor/nxtlat"), ("'rrxor/nxtlat'",)),
    "studio: a world": (lambda: nlv.studio("rrxor"), ("rrxor",)),
    "studio: a module": (lambda: nlv.studio(made.module), ("model", "Sequential")),
    "serve: latents": (lambda: nlv.serve(made.latents), ("models", "AnnData")),
    "serve: no model": (lambda: nlv.serve([]), ("models",)),
    "serve: a port as text": (lambda: nlv.serve(port="8888"), ("port", "'8888'")),
    "serve: a port that is none": (lambda: nlv.serve(port=99999), ("port", "99999")),
    # Cloud, EpisodeStepper, LossMonitor
    "Cloud: latents": (lambda: nlv.Cloud(made.latents), ("positions", "AnnData")),
    "Cloud: hidden states": (lambda: nlv.Cloud(made.latents.X), ("positions", "(240, 64)")),
    "Cloud: a projection": (lambda: nlv.Cloud(nlv.project(made.latents)), ("positions", "Projection")),
    "Cloud: names as codes": (lambda: nlv.Cloud(np.zeros((2, 2)), ["a", "b"]), ("codes", "<U1")),
    "Cloud: a row that is not there": (lambda: made.cloud.select([7]), ("7",)),
    "Cloud: a height as text": (lambda: nlv.Cloud(np.zeros((2, 2)), height="420px"), ("height='420px'",)),
    "Cloud: a cursor that is not there": (lambda: nlv.Cloud(np.zeros((2, 2)), cursor=[5]), ("cursor", "5")),
    "EpisodeStepper: a checkpoint": (lambda: nlv.EpisodeStepper(made.checkpoint), ("world", "Checkpoint")),
    "EpisodeStepper: an unknown world": (lambda: nlv.EpisodeStepper("rrxr"), ("world", "'rrxr'", "'rrxor'")),
    "EpisodeStepper: several episodes": (lambda: nlv.EpisodeStepper("rrxor", made.episodes), ("episode", "40")),
    "EpisodeStepper: tokens": (lambda: nlv.EpisodeStepper("rrxor", [0, 1, 1]), ("episode", "list")),
    "EpisodeStepper: a negative seed": (lambda: nlv.EpisodeStepper("rrxor", seed=-1), ("seed", "-1")),
    "LossMonitor: a checkpoint": (lambda: nlv.LossMonitor(made.checkpoint), ("theme", "Checkpoint")),
    "LossMonitor: a row without a loss": (lambda: nlv.LossMonitor().watch("a")(0.5), ("row", "0.5")),
    # worlds
    "worlds: an unknown name": (lambda: nlv.worlds.get("rrxr"), ("world", "'rrxr'", "'rrxor'")),
    "worlds: a checkpoint's name": (lambda: nlv.worlds.get("rrxor/nextlat"), ("world", "'rrxor/nextlat'")),
    "worlds: an unknown parameter": (lambda: nlv.worlds.get("mess3", y=1), ("parameter", "'y'")),
    "worlds: episodes of a negative number": (lambda: nlv.worlds.get("rrxor").sample(-1, 6), ("n", "-1")),
    "worlds: a length as a float": (lambda: nlv.worlds.get("rrxor").sample(4, 6.0), ("length", "6.0")),
    "worlds: a negative seed": (lambda: nlv.worlds.get("rrxor").sample(4, 6, seed=-1), ("seed", "-1")),
    "worlds: one sequence": (lambda: nlv.worlds.get("rrxor").belief([0, 1]), ("tokens", "(2,)")),
}  # fmt: skip


def outcome(mistake: Mistake) -> dict[str, Any]:
    """What a mistake led to: the error's type and message, and whether this package raised it."""
    try:
        mistake()
    except (ValueError, TypeError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = Path(frames[-1].filename).is_relative_to(PACKAGE)
        return {"error": type(error).__name__, "text": str(error), "ours": ours, "where": f"{frames[-1]}"}
    except Exception as error:
        return {"error": type(error).__name__, "text": str(error), "ours": False, "where": traceback.format_exc()}
    return {"error": "", "text": "no error", "ours": False, "where": ""}


# Calls with a clear meaning, and the calls that they mean.
MEANT: dict[str, tuple[Mistake, Mistake]] = {
    "extract: the name of a checkpoint": (
        lambda: nlv.extract("rrxor/nextlat", made.episodes).X,
        lambda: made.latents.X,
    ),
    "extract: one position": (
        lambda: nlv.extract(made.checkpoint, made.episodes, positions=3).X,
        lambda: made.latents[(made.latents.obs["position"] == 3).to_numpy()].X,
    ),
    "extract: the name of a world": (
        lambda: made.read(made.episodes.tokens, world="rrxor").obsm["belief"],
        lambda: made.latents.obsm["belief"],
    ),
    "concatenate: one table": (lambda: nlv.concatenate(made.latents).X, lambda: made.latents.X),
    "probe: a checkpoint as the control": (
        lambda: nlv.probe("rrxor/nextlat", untrained="rrxor/nextlat").untrained,
        lambda: nlv.probe("rrxor/nextlat", untrained=nlv.extract(made.checkpoint.untrained())).untrained,
    ),
    "ViewState: one control, not in a list": (
        lambda: nlv.ViewState(made.latents, untrained=made.latents).scene.untrained(0).X,
        lambda: made.latents.X,
    ),
    "sweep: one objective and one value": (
        lambda: nlv.sweep("z1r", "nextlat", [0], grid={"horizon": 1}, out=made.folder / "s", **TINY)["loss"],
        lambda: nlv.sweep("z1r", ["nextlat"], [0], grid={"horizon": [1]}, out=made.folder / "t", **TINY)["loss"],
    ),
    "extract: tensors": (
        lambda: made.read(
            torch.tensor(TOKENS),
            truth={"a": torch.tensor(TOKENS, dtype=torch.bfloat16), "b": torch.ones(2, 5, requires_grad=True)},
        ).obs[["a", "b"]],
        lambda: made.read(TOKENS, truth={"a": TOKENS * 1.0, "b": np.ones((2, 5))}).obs[["a", "b"]],
    ),
    "Cloud: a tensor that is trained": (
        lambda: nlv.Cloud(torch.zeros(3, 2, requires_grad=True)).positions,
        lambda: made.cloud.positions,
    ),
    "train: a tensor as seed, a numpy number of devices": (
        lambda: nlv.train("z1r", seed=torch.tensor(3), devices=np.int64(1), out=made.folder / "n", **TINY).card.seed,
        lambda: 3,
    ),
    "train: a World": (lambda: nlv.worlds.get(nlv.worlds.get("rrxor")).spec["name"], lambda: "rrxor"),
}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict[str, Any]]:
    command = [sys.executable, "-W", "ignore", __file__]
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, env=env)
    outcomes: dict[str, dict[str, Any]] = json.loads(run.stdout.splitlines()[-1])
    return outcomes


def test_every_public_name_has_a_mistake() -> None:
    named = {re.split(r"[:.]", name)[0] for name in MISTAKES}
    takes_arguments = {name for name in nlv.__all__ if callable(getattr(nlv, name))} - {"results", "Checkpoint"}
    assert takes_arguments <= named


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_names_the_argument(name: str, outcomes: dict[str, dict[str, Any]]) -> None:
    result = outcomes[name]
    assert result["ours"], f"{result['error']}: {result['text']} ({result['where']})"
    missing = [part for part in MISTAKES[name][1] if part not in result["text"]]
    assert not missing, f"{result['error']}: {result['text']}"


@pytest.mark.parametrize("name", MEANT)
def test_calls_with_a_clear_meaning_work(name: str, outcomes: dict[str, dict[str, Any]]) -> None:
    assert outcomes[name]["text"] == "no error", outcomes[name]["where"]


def same(name: str) -> None:
    """Compare a call of `MEANT` with the call that it means."""
    call, meaning = MEANT[name]
    np.testing.assert_array_equal(call(), meaning())


if __name__ == "__main__":
    report = {name: outcome(mistake) for name, (mistake, _) in MISTAKES.items()}
    report |= {name: outcome(functools.partial(same, name)) for name in MEANT}
    print(json.dumps(report))
