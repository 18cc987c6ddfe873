"""Settings of the documentation site. `make docs` calls `build.py`, which makes the sources and then calls Sphinx."""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

# Sphinx reads a copy of the sources in build/; the modules that make the pages are in docs/.
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

REPOSITORY = ""
"""Address of the repository on GitHub, "https://github.com/somebody/nextlat_viz": gives links to Binder and Colab."""

project, author, copyright = "nextlat_viz", "nextlat_viz authors", "nextlat_viz authors"
version = release = version_of("nextlat-viz")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_design",
    "sphinx_copybutton",
    "extension",
]
root_doc = "index"
# Cells were run by build.py.
nb_execution_mode = "off"
nb_remove_code_outputs = False
nb_mime_priority_overrides = [("html", "text/markdown", 0), ("html", "text/html", 10), ("html", "text/plain", 20)]
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist", "attrs_inline", "substitution"]
myst_heading_anchors = 3
# As in Jupyter, where the notebooks are read too.
myst_heading_slug_func = "extension.anchor"
_QUICKSTART = "notebooks/01_quickstart.ipynb"
_BINDER = f"https://mybinder.org/v2/gh/{{name}}/HEAD?urlpath=lab/tree/{_QUICKSTART}"
_COLAB = f"https://colab.research.google.com/github/{{name}}/blob/HEAD/{_QUICKSTART}"
_ADDRESS = REPOSITORY or "ADDRESS_OF_THE_REPOSITORY"
_name = REPOSITORY.removeprefix("https://github.com/")
myst_substitutions = {
    "links": f"[Open the quickstart in Binder]({_BINDER.format(name=_name)}), or "
    f"[in Colab]({_COLAB.format(name=_name)})."
    if REPOSITORY
    else "The project has no public address yet, so there are no links. With the address in `REPOSITORY` of "
    "`docs/conf.py` this page has them.",
    "cell": f"""```python
import importlib.util

if importlib.util.find_spec("nextlat_viz") is None:
    %pip install -q "nextlat-viz[city,text] @ git+{_ADDRESS}"
```""",
}

autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
# A public name in backticks in a docstring becomes a link.
default_role = "py:obj"
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = "nextlat_viz"
html_static_path = ["_static", "../build/docs-static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {"index": [], "claims": [], "gallery": []}
html_theme_options: dict[str, Any] = {
    "logo": {"text": "nextlat_viz"},
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "pygments_light_style": "tango",
    "pygments_dark_style": "monokai",
    "back_to_top_button": False,
}
# No font, script or style comes from another server; formulas are MathML, which browsers draw themselves.
html_math_renderer = "mathml"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
