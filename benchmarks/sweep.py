"""How many runs an hour a sweep trains: one after another, and several at once in processes of their own.

    python benchmarks/sweep.py [workers] [pairs]

Both in the same run, in turn, from the same processes' point of view: the command `nextlat-viz sweep` of four runs of
RRXOR (two objectives, two seeds, preset tiny, 600 steps) with one thread in each process, timed from its start to its
end. Starting Python and importing torch is inside: for each run where runs are processes, once where they are not, so
that long runs gain more than these. "Two threads" is the sweep one after another as it comes, with as many threads as
the machine has cores.

Goal: two runs at once on two cores are at least 1.7 times as many runs an hour.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

STEPS = 600


def seconds(threads: int | None, *options: str) -> float:
    """Time of a sweep of four runs."""
    limits = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "nextlat_viz.cli", "sweep", "rrxor", "--seeds", "0", "1", "--out", folder]
        command += ["--steps", str(STEPS), "--validate-every", str(STEPS), "--decay-steps", "100", *options]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, **limits})
        return time.perf_counter() - started


def main() -> None:
    workers = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    kinds = {
        "one after another": lambda: seconds(1),
        "one after another, all threads": lambda: seconds(None),
        f"{workers} at once": lambda: seconds(1, "--launcher", "local", "--workers", str(workers)),
    }
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(pairs):
        for name, run in kinds.items():
            taken[name].append(run())
    print(f"{'four runs of ' + str(STEPS) + ' steps':32} {'seconds':>8} {'runs/hour':>10} {'times as many':>14}")
    base = taken["one after another"]
    for name, times in taken.items():
        typical = statistics.median(times)
        faster = [before / after for before, after in zip(base, times, strict=True)]
        print(
            f"{name:32} {typical:8.1f} {4 * 3600 / typical:10.0f} {statistics.median(faster):8.2f}"
            f" ({min(faster):.2f} to {max(faster):.2f})"
        )


if __name__ == "__main__":
    main()
