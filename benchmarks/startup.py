"""Time from kernel start to the first widget on shipped checkpoints, compared with importing torch and plotly alone.

Both in the same run, in turn, each in a fresh Jupyter kernel:

    python benchmarks/startup.py [repeats]

What takes the time: besides torch and plotly, which a user pays for anyway, the kernel imports pandas, anndata and
ipywidgets, reads two checkpoints of under 1 MB, runs 512 short episodes through four models (two trained, two
untrained), fits the belief probes with their controls, and sends one figure with plotly's code.
"""

from __future__ import annotations

import statistics
import sys
import time

from jupyter_client.manager import start_new_kernel

FLOOR = "import torch, plotly.graph_objects"
WIDGET = """
import nextlat_viz as nlv
explorer = nlv.LatentExplorer("rrxor/next_token", "rrxor/nextlat")
"""
IMPORT = "import nextlat_viz"


def seconds(code: str) -> float:
    """Time from asking for a kernel to the reply that the code has run."""
    started = time.perf_counter()
    manager, client = start_new_kernel(startup_timeout=180)
    try:
        reply = client.execute_interactive(code, timeout=300, output_hook=lambda message: None)
        took = time.perf_counter() - started
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    if reply["content"]["status"] != "ok":
        raise RuntimeError("\n".join(reply["content"]["traceback"]))
    return took


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    cases = {
        "kernel alone": "pass",
        "import nextlat_viz": IMPORT,
        "import torch, plotly": FLOOR,
        "first widget": WIDGET,
    }
    for code in cases.values():
        seconds(code)
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, code in cases.items():
            taken[name].append(seconds(code))
    for name, times in taken.items():
        print(f"{name:22} median {statistics.median(times):6.2f} s   all {[round(value, 2) for value in times]}")
    pairs = list(zip(taken["first widget"], taken["import torch, plotly"], strict=True))
    beyond = statistics.median(widget - floor for widget, floor in pairs)
    ratio = statistics.median(widget / floor for widget, floor in pairs)
    print(f"first widget beyond torch and plotly: median {beyond:.2f} s, goal at most 5 s")
    print(f"first widget over torch and plotly:   median {ratio:.2f}x")


if __name__ == "__main__":
    main()
