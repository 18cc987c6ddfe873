"""Sphinx extension of this site: MathML, plotly.js on pages with figures, and links from names in docstrings."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import reference
from docutils import nodes
from latex2mathml.converter import convert
from sphinx.domains.python import PyObject, PythonDomain

PLOTLY_FILE = "plotly.min.js"


def setup(app: Any) -> dict[str, Any]:
    """Register the parts of this extension; Sphinx calls this."""
    app.add_html_math_renderer("mathml", (_inline_math, None), (_math, None))
    app.connect("html-page-context", _finish)
    app.connect("missing-reference", _Names())
    app.connect("autodoc-skip-member", _skip)
    app.add_domain(_Python, override=True)
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def anchor(heading: str) -> str:
    """Return the anchor that Jupyter gives a heading."""
    return heading.replace(" ", "-")


def _inline_math(writer: Any, node: nodes.math) -> None:
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _math(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def _finish(app: Any, name: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Load plotly.js only on pages with figures, and make the addresses of episodes relative to the page's folder."""
    body = context.get("body", "")
    if "plotly-graph-div" in body:
        # In the head and at once: the scripts of the figures call it.
        app.add_js_file(PLOTLY_FILE, priority=100)
    context["body"] = body.replace('data-page="', 'src="' + "../" * name.count("/"))


def _skip(app: Any, kind: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Leave out members that a class inherits from another library."""
    home = getattr(member, "__module__", None)
    if name == "model_config":  # pydantic's
        return True
    return True if isinstance(home, str) and not home.startswith(reference.PACKAGE) else None


def _can_be_public(target: str) -> bool:
    """Whether a word can be a public name, rather than that of a parameter, an attribute or a type."""
    return "." in target or "_" in target or target[:1].isupper()


class _Python(PythonDomain):
    """Python's domain, without links from words in the type of a parameter to attributes that have the same name."""

    def find_obj(
        self, env: Any, module: str | None, owner: str | None, name: str, kind: str | None, mode: int = 0
    ) -> list[tuple[str, Any]]:
        if mode and not _can_be_public(name):
            return []
        matches: list[tuple[str, Any]] = super().find_obj(env, module, owner, name, kind, mode)
        members = ("attribute", "method", "property")
        return [match for match in matches if "." in name or match[1].objtype not in members]


class _Names:
    """Resolves a name that a docstring shortens, or gives with the module that defines it."""

    def __init__(self) -> None:
        self._paths: dict[str, set[str]] = defaultdict(set)
        for name in reference.names():
            last = name.path.rpartition(".")[2]
            for alias in (f"{name.home}.{last}", name.short, ".".join(name.path.split(".")[-2:]), last):
                self._paths[alias].add(name.path)

    def __call__(self, app: Any, env: Any, node: Any, content: Any) -> Any:
        target = str(node.get("reftarget", "")).removesuffix("()")
        paths = self._paths.get(target, set())
        if node.get("refdomain") != "py" or not _can_be_public(target) or len(paths) != 1:
            return None
        domain = env.domains["py"]
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", next(iter(paths)), node, content)
