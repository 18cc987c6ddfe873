"""Make the pages of the API reference from the lists of public names; every name is on exactly one page."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = "nextlat_viz"
# In the order in which data goes, from a world to a page.
PAGES = {
    "worlds": "Worlds",
    "models": "Models and objectives",
    "training": "Training and checkpoints",
    "hf": "Hugging Face models",
    "latents": "Latents",
    "decoding": "Generation",
    "analysis": "Analysis",
    "analysis.measure": "Measures over runs",
    "figures": "Figures",
    "notebook": "Widgets",
    "course": "Course",
    "pages": "Static pages",
    "errors": "Errors",
}


@dataclass(frozen=True)
class Name:
    """A public name: its shortest path, such as ``nextlat_viz.train``, the object, and the module that defines it."""

    path: str
    value: Any
    home: str

    @property
    def short(self) -> str:
        """The path as a user writes it."""
        return self.path.replace(PACKAGE, "nlv", 1)

    @property
    def page(self) -> str:
        """The page of the deepest package that the object is defined in."""
        inside = self.home.removeprefix(f"{PACKAGE}.")
        return max((page for page in PAGES if f"{inside}.".startswith(f"{page}.")), key=len)

    @property
    def directive(self) -> str:
        if inspect.isclass(self.value):
            return "autoclass"
        return "autofunction" if inspect.isroutine(self.value) else "py:data"

    @property
    def text(self) -> str:
        """The docstring; of a constant, the string after it in the source."""
        if self.directive != "py:data":
            return inspect.getdoc(self.value) or ""
        return _text_of(self.path.rpartition(".")[2], self.home)

    @property
    def summary(self) -> str:
        """The first sentence of the docstring."""
        text = " ".join(self.text.partition("\n\n")[0].split())
        return text.partition(". ")[0].rstrip(".") + "."


def _text_of(constant: str, module: str) -> str:
    """Return the string after a constant, in the module that assigns it or in one that it is imported from."""
    body = ast.parse(Path(str(importlib.import_module(module).__file__)).read_text(encoding="utf-8")).body
    for node, after in itertools.pairwise(body):
        target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
        if getattr(target, "id", "") == constant and isinstance(after, ast.Expr):
            return inspect.cleandoc(ast.literal_eval(after.value))
        if isinstance(node, ast.ImportFrom) and constant in {alias.name for alias in node.names}:
            return _text_of(constant, str(node.module))
    raise ValueError(f"{module}.{constant} is public and has no docstring: write one in the line after it")


def listed(package: str) -> list[tuple[str, str]]:
    """Return the public names in a package's list and the modules they come from; modules are included."""
    module = importlib.import_module(package)
    source = Path(str(module.__file__))
    stub = source.with_suffix(".pyi")
    names = []
    for node in ast.parse((stub if stub.exists() else source).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            public = getattr(module, "__all__", None) if not stub.exists() else None
            inside = f"{package}.{node.module}" if node.level and node.module else node.module or package
            aliases = [alias for alias in node.names if alias.asname == alias.name or alias.name in (public or ())]
            names += [(alias.name, inside) for alias in aliases]
        elif isinstance(node, ast.ClassDef) and package == f"{PACKAGE}.errors":
            names.append((node.name, package))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and not stub.exists():
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and target.id in getattr(module, "__all__", ()):
                names.append((target.id, package))
    return names


def names() -> list[Name]:
    """Return every public name once, in the order of the lists."""
    shortest: dict[Any, Name] = {}
    for package in (PACKAGE, *(f"{PACKAGE}.{page}" for page in PAGES)):
        module = importlib.import_module(package)
        for name, source in listed(package):
            value = getattr(module, name)
            if isinstance(value, ModuleType):
                continue
            home = getattr(value, "__module__", None)
            if not isinstance(home, str) or not home.startswith(PACKAGE):
                home = source
            # By name, not by value: two constants may be the same text.
            key = (home, getattr(value, "__qualname__", name))
            shortest.setdefault(key, Name(f"{package}.{name}", value, home))
    return list(shortest.values())


def page(title: str, name: str, members: list[Name]) -> str:
    """Return the page of a package as reStructuredText."""
    module = importlib.import_module(f"{PACKAGE}.{name}")
    about = inspect.getdoc(module) or ""
    lines = [title, "=" * len(title), "", about, ""]
    homes = [member.home for member in members]
    for member in sorted(members, key=lambda member: homes.index(member.home)):
        lines += [f".. {member.directive}:: {member.path}"]
        if member.directive == "autoclass":
            lines.append("   :members:")
        if member.directive == "py:data":
            lines += ["", *(f"   {line}" for line in member.text.splitlines())]
        lines.append("")
    return "\n".join(lines)


def index(public: list[Name]) -> str:
    """Return the first page of the reference: every name and its first sentence, by page."""
    about = "Every public name, by page. In code, ``import nextlat_viz as nlv``."
    lines = ["API reference", "=============", "", about, ""]
    lines += [".. toctree::", "   :hidden:", "", *(f"   {name}" for name in PAGES), ""]
    for name, title in PAGES.items():
        members = [member for member in public if member.page == name]
        if not members:
            continue
        heading = f":doc:`{title} <{name}>`"
        lines += [heading, "-" * len(heading), "", ".. list-table::", "   :widths: 35 65", "   :class: nlv-names", ""]
        for member in members:
            lines += [f"   * - :py:obj:`{member.short} <{member.path}>`", f"     - {member.summary}"]
        lines.append("")
    return "\n".join(lines)


def write(folder: Path) -> None:
    """Write all pages of the reference into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    public = names()
    (folder / "index.rst").write_text(index(public), encoding="utf-8")
    for name, title in PAGES.items():
        members = [member for member in public if member.page == name]
        (folder / f"{name}.rst").write_text(page(title, name, members), encoding="utf-8")
