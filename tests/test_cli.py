import errno
import http.client
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
import tokenizers
import transformers

import nextlat_viz as nlv
import nextlat_viz.pages
from nextlat_viz import cli
from nextlat_viz.analysis import measure
from nextlat_viz.cli import main
from nextlat_viz.figures import export
from nextlat_viz.latents import readers


def test_train_then_extract(tmp_path, capsys):
    run, table = tmp_path / "run", tmp_path / "latents.h5ad"
    size = ["--steps", "2", "--layers", "1", "--validation-episodes", "8", "--snapshots", "1"]
    main(["train", "z1r", "nextlat", "--seed", "5", "--out", str(run), *size])
    assert "floor" in capsys.readouterr().out
    checkpoint = nlv.load(run)
    assert (checkpoint.card.seed, checkpoint.card.steps, checkpoint.snapshots) == (5, 2, [1, 2])
    assert " ".join(size[:2]) in checkpoint.card.command
    main(["extract", str(run), "--out", str(table), "--episodes", "8", "--step", "1"])
    assert nlv.load_latents(table).n_obs == 8 * 12


def test_finetune_adds_psi_to_a_model_in_a_folder(tmp_path, capsys):
    model, texts = tmp_path / "model", tmp_path / "texts.txt"
    words = ["<unk>", "a", "dog", "cat", "ran", "sat"]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(model)
    sizes = {"vocab_size": len(words), "n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 8}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).save_pretrained(
        model
    )
    stories = [
        " ".join(words[1 + int(i)] for i in np.random.default_rng(seed).integers(5, size=8)) for seed in range(60)
    ]
    texts.write_text("<|endoftext|>".join(stories), encoding="utf-8")
    command = ["finetune", str(model), str(texts), "--steps", "2", "--batch-size", "4", "--out", str(tmp_path / "run")]
    main([*command, "--set", "lambda_h=0.5"])
    assert "transition_error 1.0000 -> 0." in capsys.readouterr().out
    tuned = nlv.load_finetuned(tmp_path / "run")
    assert (tuned.card.config.steps, tuned.card.config.lambda_h) == (2, 0.5)
    with pytest.raises(SystemExit):
        main([*command, "--set", "lambda=0.5"])
    assert "unknown hyperparameter 'lambda'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--set", "lambda_h=0.5,1"])
    assert "--set lambda_h=0.5,1: give one value, as this is one run" in capsys.readouterr().err


def test_the_command_in_a_card_makes_the_same_weights(tmp_path, monkeypatch):
    options = {"steps": 3, "layers": 1, "validation_episodes": 8, "snapshots": (1, 2)}
    first = nlv.train("z1r", "next_token", seed=2, out=tmp_path / "first", progress=False, **options)
    monkeypatch.chdir(tmp_path)
    main(first.card.command.split()[1:])
    again = nlv.load(tmp_path / "runs" / "z1r" / "next_token" / "seed2")
    assert again.weights_sha256 == first.weights_sha256
    assert again.card.snapshots == first.card.snapshots


def test_sweep_shows_and_keeps_every_run(tmp_path, capsys):
    size = ["--steps", "2", "--layers", "1", "--validation-episodes", "8"]
    options = ["--objectives", "nextlat", "mtp", "--seeds", "0", "1", "--set", "horizon=1,2", "--out", str(tmp_path)]
    main(["sweep", "z1r", *options, *size])
    table = pd.read_csv(tmp_path / "sweep.csv")
    assert len(table) == 8
    assert table["error"].isna().all()
    shown = capsys.readouterr().out
    assert all(f"{loss:.4f}" in shown for loss in table["loss"])


def test_evaluate_writes_the_table(tmp_path, capsys):
    main(["evaluate", "mess3/nextlat", "mess3/next_token", "--measures", "loss", "belief", "--out", str(tmp_path)])
    assert "| No difference where the next token needs the belief | `mess3` |" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "results.csv")
    assert (table.query("reader == 'hidden state'")["value"] > 0.9).all()
    assert "Share of the exact belief" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_evaluate_without_the_measures_of_the_belief_table(tmp_path, capsys):
    main(["evaluate", "mess3/nextlat", "--measures", "loss", "--out", str(tmp_path)])
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "results.csv"), str(tmp_path / "report.html")]


def test_list_names_everything(capsys):
    main(["list"])
    out = capsys.readouterr().out
    for name in ("rrxor", "bloch_walk", "nextlat", "tiny", "paper_web", "mess3/next_token/seed2"):
        assert name in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "rrxr"], "unknown world 'rrxr'. Did you mean 'rrxor'?"),
        (["extract", "rrxor/nextlt", "--out", "x.h5ad"], "unknown checkpoint 'rrxor/nextlt'"),
        (["sweep", "rrxor", "--set", "horizon"], "--set horizon: expected FIELD=VALUE,VALUE,..."),
        (["sweep", "rrxor", "--set", "horizn=1", "--out", "{tmp}"], "unknown hyperparameter 'horizn'"),
        (["train", "z1r", "--strategy", "dpp", "--out", "{tmp}"], "unknown strategy 'dpp'. Did you mean 'ddp'"),
        (["train", "z1r", "--devices", "-3", "--out", "{tmp}"], "accelerator='auto', devices=-3"),
        (
            ["train", "z1r", "--accelerator", "cuda", "--devices", "99", "--out", "{tmp}"],
            "accelerator='cuda', devices=99",
        ),
        (["train", "z1r", "--seed", "9" * 30, "--out", "{tmp}"], "must be less than 2**63"),
        (["train", "z1r", "--steps", "2", "--snapshots", "5", "--out", "{tmp}"], "step 5 is after the last of 2 steps"),
        (["sweep", "z1r", "--devices", "-2", "--out", "{tmp}"], "every run failed; the first error: "),
        (["demo", "taxi", "--out", "{tmp}"], "world='taxi' has no hidden states, so there are no beliefs to compare"),
        (["demo", "even", "--shipped", "--out", "{tmp}"], "unknown checkpoint 'even/next_token'"),
        (["studio", "rrxor/nextlt"], "unknown checkpoint 'rrxor/nextlt'. Did you mean 'rrxor/nextlat'?"),
        (["figures", "rrxor/nextlt", "--out", "{tmp}"], "unknown checkpoint 'rrxor/nextlt'. Did you mean"),
        (["figures", "rrxor/nextlat", "--readme"], "--readme draws the shipped runs: omit rrxor/nextlat"),
        (["studio", "--port", "70000"], "port must be in 1..65535"),
    ],
)
def test_mistakes_are_reported_in_one_line(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([argument.format(tmp=tmp_path) for argument in arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_an_interruption_is_one_line(monkeypatch, capsys):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.Train, "run", interrupted)
    with pytest.raises(SystemExit) as stopped:
        main(["train", "z1r"])
    assert stopped.value.code == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "nextlat-viz: interrupted. The same command continues from what was saved."


def test_a_full_disk_names_the_file_and_the_remedy(tmp_path, monkeypatch, capsys):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    size = ["--steps", "2", "--layers", "1", "--validation-episodes", "8"]
    with pytest.raises(SystemExit):
        main(["train", "z1r", "nextlat", "--out", str(tmp_path), *size])
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"cannot write {tmp_path}" in line
    assert "No space left on device. Free some space, or choose another folder" in line


@pytest.mark.filterwarnings("default:images are left out")
@pytest.mark.parametrize("command", [["demo", "--shipped"], ["figures", "z1r"], ["evaluate", "--images", "svg"]])
def test_a_missing_browser_is_reported_before_the_work(command, tmp_path, monkeypatch, capsys):
    def started(*arguments, **options):
        raise ValueError("the work began")

    monkeypatch.setattr(export, "browser", lambda: None)
    monkeypatch.setattr(measure, "evaluate", started)
    monkeypatch.setattr(sys.modules["nextlat_viz.pages.demo"], "load", started)
    monkeypatch.setattr(sys.modules["nextlat_viz.pages.gallery"], "load", started)
    with pytest.raises(SystemExit):
        main([*command, "--out", str(tmp_path)])
    first, second = capsys.readouterr().err.splitlines()
    assert "images are left out: PNG, SVG and PDF need Chrome or Chromium" in first
    assert "playwright install chromium" in first
    assert second == "nextlat-viz: the work began"


@pytest.mark.filterwarnings("default:images are left out")
def test_demo_without_a_browser_writes_the_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "browser", lambda: None)
    monkeypatch.setattr(sys.modules["nextlat_viz.pages.demo"], "pair_figures", lambda group: {})
    main(["demo", "--shipped", "--out", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert "images are left out" in capsys.readouterr().err


@pytest.mark.slow
# It lays out a UMAP, so it runs in the process that has compiled UMAP for other tests.
@pytest.mark.xdist_group("umap")
def test_demo_writes_report_and_figures_with_provenance(tmp_path, monkeypatch, capsys):
    draw, drawn = export._image, {}

    def once(figure, kind, *sizes):
        if kind not in drawn:
            drawn[kind] = draw(figure, kind, *sizes)
        return drawn[kind]

    # A real image of each kind is enough.
    monkeypatch.setattr(export, "_image", once)
    main(["demo", "--shipped", "--out", str(tmp_path / "demo")])
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert "What two transformers believe about rrxor" in page
    assert page.count('class="plotly-graph-div"') == 7
    assert "src=" not in page.split("<body>")[1]
    pictures = sorted(path.name for path in (tmp_path / "demo").glob("*.png"))
    assert len(pictures) == len(list((tmp_path / "demo").glob("*.svg"))) == 7
    for kind in ("png", "svg"):
        record = json.loads((tmp_path / "demo" / f"4_latents.{kind}.json").read_text())
        assert record["figure"] == f"4_latents.{kind}"
    weights = {model["weights_sha256"] for model in record["parameters"]["models"]}
    assert weights == {nlv.load(f"rrxor/{name}").weights_sha256 for name in ("next_token", "nextlat")}
    score = nlv.results().query("model == 'rrxor/nextlat/seed0' and reader == 'hidden state'")["value"].item()
    assert f"{score:.3f}" in capsys.readouterr().out


def test_studio_without_voila_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stopped:
        main(["studio", "--no-browser"])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 'pip install "nextlat-viz[app]"' in line


@pytest.mark.skipif(sys.platform == "win32", reason="no signal ends a program there as Ctrl-C does")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_every_signal_that_ends_a_program_closes_the_studio(name, monkeypatch):
    closed = []

    class Served:
        url = "http://127.0.0.1"

        def __enter__(self):
            return self

        def __exit__(self, *error):
            closed.append(name)

        def wait(self):
            signal.raise_signal(getattr(signal, name))

    monkeypatch.setattr("nextlat_viz.notebook.serve.serve", lambda *models, **options: Served())
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    main(["studio", "--no-browser"])
    assert closed == [name]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no signal ends another process there as Ctrl-C does")
def test_studio_serves_until_it_is_stopped():
    command = [sys.executable, "-m", "nextlat_viz.cli", "studio", "rrxor/nextlat", "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = urlsplit(process.stdout.readline().split()[-1])
        connection = http.client.HTTPConnection(address.netloc, timeout=60)
        connection.request("GET", f"/login?{address.query}")
        assert connection.getresponse().headers["Location"] == "/"
        connection.close()
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=60)
        assert (process.returncode, error) == (0, "")
    finally:
        process.kill()
        process.communicate()
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(address.netloc, timeout=5).connect()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("extract mess3/nextlat --out {folder}/latents.csv", ["latents.csv", ".h5ad"]),
        ("extract mess3/nextlat --out {folder}/there.h5ad", ["there.h5ad", "overwrite"]),
        ("extract mess3/nextlat --out {folder}/file/latents.h5ad", ["latents.h5ad", "Choose a folder"]),
        ("evaluate mess3/nextlat --out {folder}/file", ["file", "Choose another folder"]),
        ("evaluate mess3/nextlat --out {folder}/new --table results.xlsx", ["results.xlsx", ".csv"]),
        ("evaluate mess3/nextlat --out {folder}/new --table ../results.csv", ["../results.csv", "file name"]),
    ],
)
def test_a_file_that_cannot_be_written_is_named_before_any_work(tmp_path, capsys, monkeypatch, command, words):
    (tmp_path / "there.h5ad").touch()
    (tmp_path / "file").touch()
    for work in (measure.registry.Models, readers.LatentsReader):
        monkeypatch.setattr(work, "__init__", lambda *_: pytest.fail("this began to work"))
    monkeypatch.setattr(readers.CheckpointReader, "__init__", lambda *_: pytest.fail("this began to work"))
    with pytest.raises(SystemExit):
        main(command.format(folder=tmp_path).split())
    message = capsys.readouterr().err
    assert all(word in message for word in words), message


def test_the_figures_of_the_readme_need_a_browser_before_the_work(monkeypatch, capsys):
    def started(*arguments, **options):
        raise ValueError("the work began")

    demo = sys.modules["nextlat_viz.pages.demo"]
    monkeypatch.setattr(demo, "browser", lambda: None)
    monkeypatch.setattr(demo, "load", started)
    with pytest.raises(SystemExit):
        main(["figures", "--readme"])
    assert "the README's figures are images: PNG, SVG and PDF need Chrome" in capsys.readouterr().err
