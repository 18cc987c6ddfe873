"""Speed and memory of extraction, compared with the bare forward pass and with other ways to read the same states.

    python benchmarks/extract.py [speed] [memory] [MODEL]

Speed: tokens per second on one GPT-2-shaped model (random weights, 6 layers of width 384, 8,192 tokens), or on the
Hugging Face model in a folder, all in one run, in turn, as a ratio to the floor. The floor is the bare forward pass up
to the state that the output head reads, its results thrown away: nothing that reads states can be faster. Goal: at
least 0.95 of it. There are two sizes. With 4,096 tokens the cost of a call counts: a hash of the weights, the layout of
the file, opening it. With 65,536 the cost of a token is left: a hash of the finished file, its writing, and memory for
the states. That hash is also timed alone: it reads the file in its order, so it starts after the last row.
`output_hidden_states` keeps every layer in memory as the tensors of one batch; TransformerLens is measured if it can be
imported, on its own model of the same shape. Both run the output head, which extraction leaves out if it does not keep
probabilities of so many tokens; for Hugging Face it is measured without the head too.

Memory: the peak (ru_maxrss) of a process that writes 10,000 rows to disk, of one that writes 100,000 and of one that
writes 1,000,000. It is flat except for the tokens, which the caller holds, and for hashing them. Opening the finished
table loads its `obs`, about 125 bytes a row, which is printed separately.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

LAYERS, DIM, HEADS, VOCABULARY, CONTEXT = 6, 384, 6, 8_192, 128
BATCH = 8
# Numbers of episodes, and of repeats; the best repeat counts.
SIZES = {32: 5, 512: 2}
FOLDER = next((word for word in sys.argv[1:] if Path(word, "config.json").is_file()), None)


def model_to_read() -> Any:
    """The Hugging Face model in the folder, or else a small one with random weights."""
    if FOLDER is None:
        return gpt2()
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    shape = {"n_layer": LAYERS, "n_embd": DIM, "n_head": HEADS, "n_positions": CONTEXT, "vocab_size": VOCABULARY}
    return GPT2LMHeadModel(GPT2Config(**shape)).eval()


def transformer_lens(folder: Path) -> Any | None:
    """TransformerLens with its own copy of the GPT-2 model; None if it is not installed."""
    try:
        from transformer_lens.model_bridge import TransformerBridge
    except ImportError:
        print("TransformerLens is not installed, so it is left out")
        return None
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    # It reads no text here, but does not start without a saved tokenizer.
    words = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    special = dict.fromkeys(("unk_token", "bos_token", "eos_token", "pad_token"), "a")
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    model = gpt2()
    model.config.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    return TransformerBridge.boot_transformers(str(folder), hf_model=model, tokenizer=tokenizer, device="cpu").eval()


def ways(folder: Path, episodes: int) -> dict[str, Callable[[], Any]]:
    """Return the functions to time, by label, all over the same tokens; with many episodes fewer functions."""
    from nextlat_viz.latents import extract
    from nextlat_viz.latents.store import _block

    model = model_to_read()
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, (episodes, CONTEXT))
    batches = torch.from_numpy(tokens).split(BATCH)
    path = folder / "table.h5ad"
    options = {"batch_size": BATCH, "progress": False}

    def over(call: Callable[[torch.Tensor], Any]) -> Callable[[], None]:
        def all_batches() -> None:
            with torch.no_grad():
                for batch in batches:
                    call(batch)

        return all_batches

    def to_disk() -> None:
        path.unlink(missing_ok=True)
        extract(model, tokens, **options, out=path).file.close()

    residual = lambda name: name.endswith(("hook_resid_pre", "hook_resid_post", "ln_final.hook_out"))  # noqa: E731
    timed = {
        "bare forward pass (the floor)": over(lambda batch: model.base_model(batch, use_cache=False)),
        "extract, to memory": lambda: extract(model, tokens, **options),
        "extract, to disk": to_disk,
        "the hash of that file": lambda: _block(path),
    }
    if episodes > min(SIZES):
        return timed
    timed |= {
        "transformers, output_hidden_states, no head": over(
            lambda batch: model.base_model(batch, use_cache=False, output_hidden_states=True)
        ),
        "transformers, output_hidden_states": over(
            lambda batch: model(batch, use_cache=False, output_hidden_states=True)
        ),
    }
    if not FOLDER and (lens := transformer_lens(folder)) is not None:
        timed["TransformerLens, run_with_cache, same sites"] = over(
            lambda batch: lens.run_with_cache(batch, names_filter=residual)
        )
        timed["TransformerLens, run_with_cache, all"] = over(lens.run_with_cache)
    return timed


def speed() -> None:
    from nextlat_viz.latents.readers import weights_of

    for episodes, repeats in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            timed = ways(Path(folder), episodes)
            wall, cpu = ({name: [] for name in timed} for _ in range(2))
            for repeat in range(repeats + 1):
                for name, call in timed.items():
                    started, worked = time.perf_counter(), time.process_time()
                    call()
                    if repeat:  # the first warms up
                        wall[name].append(time.perf_counter() - started)
                        cpu[name].append(time.process_time() - worked)
        tokens, threads = episodes * CONTEXT, torch.get_num_threads()
        print(f"{episodes} x {CONTEXT} tokens, batches of {BATCH}, {threads} threads, best of {repeats}")
        floor = next(iter(timed))
        for name in timed:
            # The best of several repeats: it is least disturbed by other processes.
            ratios = [min(taken[floor]) / min(taken[name]) for taken in (wall, cpu)]
            print(
                f"{name:46s}{tokens / min(wall[name]):10,.0f} tokens/s  {ratios[0]:5.2f} of the floor"
                f"  {ratios[1]:5.2f} by processor time",
                flush=True,
            )
    model = model_to_read()
    started = time.perf_counter()
    weights_of(model)
    print(f"every call hashes the weights once, which is in its time: {time.perf_counter() - started:.2f} s")


def stream(rows: int, out: str) -> None:
    """Write a table of `rows` rows and print the peak memory of the process before, during and after."""
    from nextlat_viz.latents import extraction

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(100, 64), torch.nn.Linear(64, 64), torch.nn.Tanh())
    few = np.random.default_rng(0).integers(0, 100, (2_560, 50))
    extraction.extract(model, few, ["0", "1", "2"], progress=False, out=f"{out}.few.h5ad").file.close()
    ready = peak()
    tokens = np.random.default_rng(0).integers(0, 100, (rows // 50, 50))
    peaks = {}
    untouched = extraction.open_backed

    def opened(path: Path) -> Any:
        peaks["written"] = peak()
        return untouched(path)

    extraction.open_backed = opened
    started = time.perf_counter()
    extraction.extract(model, tokens, ["0", "1", "2"], progress=False, out=out)
    took = time.perf_counter() - started
    size = Path(out).stat().st_size / 2**20
    print(f"{rows:>10,} rows{size:9.1f} MiB on disk{ready:9.1f} before{peaks['written']:9.1f} MiB at most while writing"
          f"{peak():9.1f} with the table opened{rows / took:12,.0f} rows/s")  # fmt: skip


def peak() -> float:
    """Peak memory of this process, in MiB."""
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def memory() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for rows in (10_000, 100_000, 1_000_000):
            command = [sys.executable, __file__, "stream", str(rows), str(Path(folder, f"{rows}.h5ad"))]
            subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != FOLDER]
    if words[:1] == ["stream"]:
        stream(int(words[1]), words[2])
    else:
        for name, measure in {"speed": speed, "memory": memory}.items():
            if not words or name in words:
                measure()
