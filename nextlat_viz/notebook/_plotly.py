"""plotly's widget, imported without what it does not need.

plotly imports nbformat for renderers of its own, nbformat imports jsonschema, and where `rfc3987_syntax` is installed
(JupyterLab brings it) jsonschema compiles 38 grammars for international web addresses: about two seconds before the
first figure. Hidden while plotly is imported, it leaves one format of JSON schemas unchecked, which no figure uses.
"""

import sys

_GRAMMARS = "rfc3987_syntax"
_hide = _GRAMMARS not in sys.modules
if _hide:
    sys.modules[_GRAMMARS] = None  # type: ignore[assignment]
try:
    from plotly import basewidget
finally:
    if _hide:
        del sys.modules[_GRAMMARS]

__all__ = ["basewidget"]
