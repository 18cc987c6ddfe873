"""Compare tokens per second of every world with a simple per-episode Python generator of the same world.

Both are measured alternately in one run, on one core:

    python benchmarks/worlds.py [world ...]

A world without a plain generator, such as "taxi:city=helsinki", is timed alone.

Padding is not counted. `bare` omits the true states, as training does; extraction needs them.
The floor is memory: a token that is only drawn and stored moves 8 bytes of random number, 8 of
token id and 1 of loss mask, at the speed with which this machine copies arrays larger than its caches.

Goals: a million tokens per second and 30 times the plain generator for the hidden-Markov worlds, path_star, a5 and
taxi on its default grid.
"""

from __future__ import annotations

import importlib.util
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from nextlat_viz import worlds

PLAIN = Path(__file__).parent / "plain"
# Length of episodes of worlds without a fixed length.
LENGTHS = {"rrxor": 13, "a5": 12, "story": 65}
BYTES_PER_TOKEN = 8 + 8 + 1
REPEATS = 5
AT_LEAST = 0.3  # seconds of one measurement


def plain_generator(name: str) -> Callable[[int, int], Iterator[list[int]]]:
    """The function `episodes(n, seed)` of benchmarks/plain/NAME.py, which does not pad."""
    spec = importlib.util.spec_from_file_location(f"plain_{name}", PLAIN / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.episodes


def speed(some_tokens: Callable[[], int]) -> float:
    """Tokens per second of one measurement, over enough calls to last `AT_LEAST` seconds."""
    tokens = 0
    started = time.perf_counter()
    while (took := time.perf_counter() - started) < AT_LEAST:
        tokens += some_tokens()
    return tokens / took


def copy_speed() -> float:
    """Bytes per second, read and written, of copying 64 MB."""
    source = np.ones(8 << 20)
    target = np.empty_like(source)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - started)
    return 2 * source.nbytes / best


def measure(name: str) -> list[tuple[float, ...]]:
    """Tokens per second of a world without and with its states, and of the plain generator: each by repeat."""
    world, length, seeds = worlds.get(name), LENGTHS.get(name), itertools.count(1)
    # The same generator throughout, so that its caches stay filled.
    plain = plain_generator(name)(10**9, 0) if (PLAIN / f"{name}.py").exists() else iter(())

    def bare() -> int:
        return int(world.sample(4096, length, seed=next(seeds), states=False).length.sum())

    def full() -> int:
        return int(world.sample(1024, length, seed=next(seeds)).length.sum())

    def slow() -> int:
        return len(next(plain, ()))

    cases = (bare, full, slow)
    for case in cases:
        case()
    return list(zip(*([speed(case) for case in cases] for _ in range(REPEATS)), strict=True))


def ratio(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.0f}x" if ratios else ""


def main() -> None:
    names = sys.argv[1:] or sorted(path.stem for path in PLAIN.glob("*.py") if path.stem != "text")
    floor = copy_speed() / BYTES_PER_TOKEN
    print(f"memory floor: {floor / 1e6:,.0f} M tokens/s")
    print(f"{'world':12} {'bare':>12} {'with states':>12} {'plain':>12} {'ratio':>7} {'of floor':>9}   every ratio")
    for name in names:
        bare, full, slow = measure(name)
        ratios = [fast / plain for fast, plain in zip(bare, slow, strict=True) if plain]
        typical = [statistics.median(speeds) for speeds in (bare, full, slow)]
        print(
            f"{name:12} {typical[0]:12,.0f} {typical[1]:12,.0f} {typical[2]:12,.0f} {ratio(ratios):>7} "
            f"{typical[0] / floor:9.2%}   " + " ".join(f"{value:.0f}" for value in ratios)
        )


if __name__ == "__main__":
    main()
