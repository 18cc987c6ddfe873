"""UMAP in a process of its own: ``python -m nextlat_viz.analysis.umap_worker``, spoken to in lines of JSON.

Asked ``{"source": path, "target": path, "params": {...}}`` on standard input, it reads the rows from the safetensors
file, answers ``{"stage": ..., "done": ..., "total": ...}`` while it works, writes the layout, and ends the answer with
``{"finished": true}`` or ``{"error": ...}``. It then waits for the next request, since its compiled code is warm, and
ends when its standard input does: a worker never outlives the notebook that started it.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import traceback
from typing import Any

IDLE_SECONDS = 600


def main() -> None:
    """Serve requests until standard input closes, or none came for ten minutes."""
    # Interrupting a notebook's cell reaches its whole process group, and is not about this layout.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    while True:
        try:
            line = requests.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            os._exit(0)
        try:
            _serve(**json.loads(line))
            _say(finished=True)
        except Exception as error:
            traceback.print_exc()
            _say(error=f"{type(error).__name__}: {error}")


def _serve(source: str, target: str, params: dict[str, Any]) -> None:
    from safetensors.numpy import load_file, save_file

    from nextlat_viz.analysis.projection.umap import umap_layout

    layout = umap_layout(load_file(source)["X"], **params, progress=lambda now: _say(**now._asdict()))
    save_file({"layout": layout}, target)


def _listen(requests: queue.Queue[str]) -> None:
    for line in sys.stdin:
        requests.put(line)
    # The end of input means that nobody is waiting for an answer, even in the middle of a layout.
    os._exit(0)


def _say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main()
