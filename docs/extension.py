"""What only this site needs of Sphinx: MathML, plotly.js beside figures, and links from names in docstrings."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import reference
from docutils import nodes
from latex2mathml.converter import convert

PLOTLY_FILE = "plotly.min.js"


def setup(app: Any) -> dict[str, Any]:
    """Connect everything; Sphinx calls this."""
    app.add_html_math_renderer("mathml", (_inline_math, None), (_math, None))
    app.connect("html-page-context", _finish)
    app.connect("missing-reference", _Names())
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline_math(writer: Any, node: nodes.math) -> None:
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _math(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def _finish(app: Any, name: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Load plotly.js on pages with figures only, and lead frames from the page's own folder to their episodes."""
    body = context.get("body", "")
    if "plotly-graph-div" in body:
        # In the head and at once: the scripts of the figures call it.
        app.add_js_file(PLOTLY_FILE, priority=100)
    context["body"] = body.replace('data-page="', 'src="' + "../" * name.count("/"))


class _Names:
    """Resolves a name that a docstring writes shorter, or by the module that defines it."""

    def __init__(self) -> None:
        self._paths: dict[str, set[str]] = defaultdict(set)
        for name in reference.names():
            for known in (f"{name.home}.{name.path.rpartition('.')[2]}", name.short, name.path.rpartition(".")[2]):
                self._paths[known].add(name.path)

    def __call__(self, app: Any, env: Any, node: Any, content: Any) -> Any:
        target = str(node.get("reftarget", "")).removesuffix("()")
        if node.get("refdomain") != "py" or target.startswith("builtins."):
            return None
        paths = self._paths.get(target) or self._paths.get(target.removeprefix("figures.")) or set()
        if len(paths) != 1:
            return None
        (path,) = paths
        return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, "obj", path, node, content)
