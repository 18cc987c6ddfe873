"""UMAP for a scene: from the cache where it is, else one job after another beside the kernel."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from nextlat_viz import analysis
from nextlat_viz.errors import LatentsError
from nextlat_viz.notebook.scene import Scene

if TYPE_CHECKING:
    from nextlat_viz.analysis import Projection, UmapJob
    from nextlat_viz.analysis.projection.umap import Progress

CANCELLED, FAILED = "UMAP was cancelled.", "UMAP failed"


class UmapQueue:
    """Computes the UMAP of every model of a scene, one at a time.

    Parameters
    ----------
    later : callable
        ``later(call, *arguments)`` runs a call where widgets may be touched; jobs report from threads of their own.
    on_change : callable
        Called when a layout is there, or when it is known that none will be.
    on_progress : callable taking a str
        What is going on, in words; empty when nothing is.
    on_error : callable taking an Exception
    """

    def __init__(
        self,
        later: Callable[..., None],
        on_change: Callable[[], None],
        on_progress: Callable[[str], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._later, self._on_change, self._on_progress, self._on_error = later, on_change, on_progress, on_error
        self._job: UmapJob | None = None
        self._wanted: tuple[Scene, str] | None = None

    @property
    def running(self) -> bool:
        """Whether a layout is being computed."""
        return self._job is not None

    @property
    def stopped(self) -> bool:
        """Whether a layout is missing that might come if it were asked for again."""
        if self.running or self._wanted is None:
            return False
        scene, site = self._wanted
        return any(isinstance(one, str) and one.startswith((CANCELLED, FAILED)) for one in scene.umap(site))

    def want(self, scene: Scene, site: str) -> None:
        """Ask for the layouts of a scene at a layer; what is under way for another is stopped."""
        if self._wanted != (scene, site):
            self._stop()
            self._wanted = (scene, site)
        if self._job is None:
            self._next()

    def cancel(self) -> None:
        """Stop, and say so where the layouts would have been."""
        self._stop()
        if self._wanted is not None:
            scene, site = self._wanted
            for model in scene.without_umap(site):
                scene.keep_umap(model, site, CANCELLED)
            self._on_change()

    def again(self) -> None:
        """Begin what was cancelled or failed once more."""
        if self._wanted is not None:
            scene, site = self._wanted
            scene.drop_messages(site)
            self._next()
            self._on_change()

    def close(self) -> None:
        """Stop, and say nothing."""
        self._stop()
        self._wanted = None

    def _stop(self) -> None:
        if self._job is not None:
            self._job.cancel()
            self._job = None
            self._on_progress("")

    def _next(self) -> None:
        assert self._wanted is not None
        scene, site = self._wanted
        for model in scene.without_umap(site):
            try:
                self._job = self._begin(scene, site, model)
            except LatentsError as error:
                scene.keep_umap(model, site, str(error))
            if self._job is not None:
                self._on_progress(f"UMAP of {scene.labels[model]}: starting")
                return
        self._on_progress("")

    def _begin(self, scene: Scene, site: str, model: int) -> UmapJob | None:
        here = threading.current_thread()

        def done(layout: Projection) -> None:
            # A cached layout is handed over before there is a job; any other comes from the job's thread.
            if threading.current_thread() is here:
                scene.keep_umap(model, site, layout)
            else:
                self._later(self._finish, scene, site, model, layout)

        return analysis.project_in_background(
            scene.latents[model],
            done,
            lambda progress: self._later(self._tell, scene, site, model, progress),
            lambda error: self._later(self._finish, scene, site, model, error),
            site=site,
            rows=scene.shown,
        )

    def _tell(self, scene: Scene, site: str, model: int, progress: Progress) -> None:
        if self._wanted == (scene, site):
            share = f", epoch {progress.done} of {progress.total}" if progress.total else ""
            self._on_progress(f"UMAP of {scene.labels[model]}: {progress.stage}{share}")

    def _finish(self, scene: Scene, site: str, model: int, result: Projection | Exception) -> None:
        error = result if isinstance(result, Exception) else None
        scene.keep_umap(model, site, f"{FAILED}: {result}" if isinstance(result, Exception) else result)
        if self._wanted == (scene, site):
            self._job = None
            self._next()
            self._on_change()
            if error is not None:
                self._on_error(error)
