"""Runs per hour of a sweep: one after another, and several at once in separate processes.

    python benchmarks/sweep.py [workers] [pairs] [steps]

Both in the same run, in turn: the command `nextlat-viz sweep` of as many runs as workers (NextLat on RRXOR, preset
tiny, all of its 4,000 steps, a seed each), timed from its start to its end, with one thread in each process. The time
includes starting Python and importing torch: once for runs one after another, once more per process for several at
once. So longer runs gain more than these, and shorter ones less. "All threads" is the default: one run after another,
with as many threads as the machine has cores.

Goal: two runs at once on two cores are at least 1.7 times as many runs an hour. Met in the one pair measured on two
cores: 2 runs in 419 s one after another with one thread, 256 s with all threads, and 196 s at once, which is 2.1 and
1.3 times as many.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time


def seconds(workers: int, steps: int, threads: int | None, *options: str) -> float:
    """Time of a sweep."""
    limits = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "nextlat_viz.cli", "sweep", "rrxor", "--objectives", "nextlat"]
        command += ["--seeds", *map(str, range(workers)), "--steps", str(steps), "--out", folder, *options]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, **limits})
        return time.perf_counter() - started


def main() -> None:
    workers, pairs, steps = (int(word) for word in [*sys.argv[1:], *("2", "1", "4000")[len(sys.argv) - 1 :]])
    ways = {
        "one after another": (1,),
        "one after another, all threads": (None,),
        f"{workers} at once": (1, "--launcher", "local", "--workers", str(workers)),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for pair in range(1, pairs + 1):
        for name, (threads, *options) in ways.items():
            taken[name].append(seconds(workers, steps, threads, *options))
            print(f"pair {pair} of {pairs}: {name}, {taken[name][-1]:.1f} s", flush=True)
    print(f"{f'{workers} runs of {steps:,} steps':32} {'seconds':>8} {'runs/hour':>10} {'times as many':>14}")
    base = taken["one after another"]
    for name, times in taken.items():
        typical = statistics.median(times)
        faster = [before / after for before, after in zip(base, times, strict=True)]
        print(
            f"{name:32} {typical:8.1f} {workers * 3600 / typical:10.0f} {statistics.median(faster):8.2f}"
            f" ({min(faster):.2f} to {max(faster):.2f})"
        )


if __name__ == "__main__":
    main()
