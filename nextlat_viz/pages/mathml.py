"""Formulas as MathML, which browsers draw without a script, from the part of LaTeX that the lessons use."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|\S| +")
_LETTERS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "theta": "θ", "lambda": "λ", "mu": "μ",
    "pi": "π", "rho": "ρ", "sigma": "σ", "phi": "φ", "psi": "ψ", "omega": "ω", "Delta": "Δ", "Sigma": "Σ", "Psi": "Ψ",
    "Omega": "Ω", "infty": "∞", "ell": "ℓ",
}  # fmt: skip
_OPERATORS = {
    "sum": "∑", "prod": "∏", "int": "∫", "cdot": "·", "times": "×", "mid": "|", "lVert": "‖", "rVert": "‖", "|": "‖",
    "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ne": "≠", "neq": "≠", "approx": "≈", "to": "→", "rightarrow": "→",
    "ldots": "…", "dots": "…", "cdots": "⋯", "in": "∈", "pm": "±", "propto": "∝", "partial": "∂", "nabla": "∇",
    "{": "{", "}": "}", "%": "%", "_": "_",
}  # fmt: skip
_SPACES = {",": "0.17em", ";": "0.28em", ":": "0.22em", " ": "0.25em", "quad": "1em", "qquad": "2em", "!": "0em"}
_FUNCTIONS = {"log", "ln", "exp", "min", "max", "arg", "argmin", "argmax", "det", "tr"}
_ACCENTS = {"hat": "^", "bar": "¯", "tilde": "~", "vec": "→", "overline": "¯"}
_TEXTS = {"text", "mathrm", "operatorname", "mathbf", "textbf", "mathit"}
# Large operators have their limits above and below where a formula stands alone.
_LIMITS = {"∑", "∏", "min", "max", "argmin", "argmax"}


def mathml(latex: str, display: bool = False) -> str:
    r"""Convert a formula.

    Parameters
    ----------
    latex : str
        Without its dollars.
    display : bool
        Whether it stands on a line of its own.

    Raises
    ------
    ValueError
        For a command that is not known, and for braces that do not match.

    Examples
    --------
    >>> mathml(r"\hat h_t")
    '<math><msub><mover accent="true"><mi>h</mi><mo>^</mo></mover><mi>t</mi></msub></math>'
    >>> mathml(r"\mathfrak x")
    Traceback (most recent call last):
    ...
    ValueError: \mathfrak in the formula "\mathfrak x" is not known: write it without, or add it to pages/mathml.py
    """
    parser = _Parser(latex, display)
    body = parser.row()
    if parser.tokens:
        raise ValueError(f'the formula "{latex}" has a closing brace too many')
    opening = '<math display="block">' if display else "<math>"
    return f"{opening}{body}</math>"


class _Parser:
    def __init__(self, latex: str, display: bool) -> None:
        self.latex, self.display = latex, display
        self.tokens = _TOKEN.findall(latex)[::-1]

    def row(self) -> str:
        """Elements up to a closing brace, or to the end."""
        parts = []
        while self.tokens and self.tokens[-1] != "}":
            if self.tokens[-1].isspace():
                self.tokens.pop()
            else:
                parts.append(self.scripted())
        return "".join(parts)

    def scripted(self) -> str:
        """One element with what stands below and above it."""
        base, limits = self.atom()
        scripts: dict[str, str] = {}
        while self.tokens and self.tokens[-1] in ("_", "^", "'"):
            kind = self.tokens.pop()
            scripts["^" if kind == "'" else kind] = "<mo>′</mo>" if kind == "'" else self.atom()[0]
        if not scripts:
            return base
        tags = {"_": "munder", "^": "mover", "_^": "munderover"} if limits and self.display else {}
        kind = "".join(sorted(scripts, key="_^".index))
        tag = tags.get(kind) or {"_": "msub", "^": "msup", "_^": "msubsup"}[kind]
        return f"<{tag}>{base}{''.join(scripts[part] for part in kind)}</{tag}>"

    def atom(self) -> tuple[str, bool]:
        """One element, and whether it is a large operator."""
        while self.tokens and self.tokens[-1].isspace():
            self.tokens.pop()
        if not self.tokens:
            raise ValueError(f'the formula "{self.latex}" ends too early')
        token = self.tokens.pop()
        if token == "{":
            row = self.row()
            if not self.tokens:
                raise ValueError(f'the formula "{self.latex}" has an open brace')
            self.tokens.pop()
            return f"<mrow>{row}</mrow>", False
        if not token.startswith("\\"):
            tag = "mi" if token.isalpha() else "mn" if token[0].isdigit() else "mo"
            return f"<{tag}>{escape('−' if token == '-' else token)}</{tag}>", False
        return self.command(token[1:])

    def command(self, name: str) -> tuple[str, bool]:
        if name in _LETTERS:
            return f"<mi>{_LETTERS[name]}</mi>", False
        if name in _OPERATORS:
            sign = _OPERATORS[name]
            return f"<mo>{sign}</mo>", sign in _LIMITS
        if name in _SPACES:
            return f'<mspace width="{_SPACES[name]}"/>', False
        if name in _FUNCTIONS:
            return f'<mi mathvariant="normal">{name}</mi>', name in _LIMITS
        if name in _ACCENTS:
            return f'<mover accent="true">{self.atom()[0]}<mo>{_ACCENTS[name]}</mo></mover>', False
        if name == "frac":
            return f"<mfrac>{self.atom()[0]}{self.atom()[0]}</mfrac>", False
        if name == "sqrt":
            return f"<msqrt>{self.atom()[0]}</msqrt>", False
        if name in ("left", "right"):
            return self.atom()
        if name in _TEXTS:
            return self.text(), False
        raise ValueError(
            f'\\{name} in the formula "{self.latex}" is not known: write it without, or add it to pages/mathml.py'
        )

    def text(self) -> str:
        """Words in braces, as they are."""
        if not self.tokens or self.tokens.pop() != "{":
            raise ValueError(f'the formula "{self.latex}" has a text without braces')
        words = []
        while self.tokens and self.tokens[-1] != "}":
            words.append(self.tokens.pop())
        if not self.tokens:
            raise ValueError(f'the formula "{self.latex}" has an open brace')
        self.tokens.pop()
        # Browsers drop spaces at the ends of a text.
        return f"<mtext>{escape(''.join(words)).replace(' ', chr(0xA0))}</mtext>"
