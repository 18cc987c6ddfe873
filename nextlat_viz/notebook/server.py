"""The server process behind `serve`: Voila, whose kernels end with their page, in a process that ends with its parent.

Run as ``python -m nextlat_viz.notebook.server FOLDER`` by `serve`, with a pipe as standard input. FOLDER holds
``studio.ipynb`` and ``voila.json``.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.web import HTTPError
from voila.app import Voila
from voila.tornado.handler import TornadoVoilaHandler

MOST_KERNELS = 8
"""Pages that can be open at once: each has a kernel of about half a gigabyte."""


class PageKernels(AsyncMappingKernelManager):
    """Kernels up to a limit. Beyond it a page is refused: ending another page's kernel would lose its state."""

    async def start_kernel(self, **options: Any) -> str:  # type: ignore[override]
        """Start a kernel for a page."""
        if len(self) >= MOST_KERNELS:
            message = f"{MOST_KERNELS} pages of this studio are open already. Close one, then reload this page."
            raise HTTPError(503, message, reason=message)
        kernel_id: str = await super().start_kernel(**options)
        return kernel_id


class StudioPage(TornadoVoilaHandler):
    """The page, with the cookie that it needs to end its kernel.

    When it is closed, the page asks the server to shut its kernel down and repeats the ``_xsrf`` cookie in the request.
    Voila never sets that cookie, so the request would be refused.
    """

    async def prepare(self) -> None:
        """Set the cookie: tornado does so when the token is read."""
        await super().prepare()
        self.xsrf_token  # noqa: B018


class StudioServer(Voila):
    """Voila with `PageKernels` and `StudioPage`."""

    def initialize(self, argv: list[str] | None = None) -> None:
        super().initialize(argv)
        self.voila_configuration.multi_kernel_manager_class = PageKernels

    def init_handlers(self) -> list[Any]:
        return [
            (route, StudioPage, *options) if handler is TornadoVoilaHandler else (route, handler, *options)
            for route, handler, *options in super().init_handlers()
        ]


def _end_with_parent() -> None:
    """Stop when standard input closes: the system closes it when the parent ends, by exit, crash or kill."""
    while os.read(0, 1024):
        pass
    # Like Ctrl-C in a terminal: Voila shuts its kernels down before it ends.
    os.kill(os.getpid(), signal.SIGTERM)


def main(folder: Path) -> None:
    """Serve until the parent ends, then remove the folder."""
    # Until Voila has installed its handler, a signal would end this process without removing the folder.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        StudioServer.launch_instance(["studio.ipynb", f"--Voila.config_file_paths={folder}"])
    finally:
        os.chdir(folder.parent)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
