"""What self-speculative decoding made, and what became of its drafts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from nextlat_viz.decoding.generation import Generated
from nextlat_viz.display import table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class Speculated(Generated):
    """Continuations of prompts, and what became of the drafts.

    A step is one pass of the transformer over the drafts: it gives the drafts that are accepted, and one token more.
    The first token of every continuation comes of reading the prompt, and is no step's.

    Attributes
    ----------
    drafter : str
        What drafted: ``"psi"``, ``"mtp"`` or ``"jtp"``.
    draft : int or "adaptive"
        How many tokens were drafted in a step, where so many fit.
    steps, drafted, accepted : (n,) int arrays
        Of each sequence: steps, tokens drafted, and those of them accepted.
    proposed, tested, kept : (k,) int arrays
        By the draft's place in its step: how often there was one, how often all before it were accepted so that it
        counted, and how often it was accepted itself.
    """

    drafter: str
    draft: int | str
    steps: Int[np.ndarray, " n"]
    drafted: Int[np.ndarray, " n"]
    accepted: Int[np.ndarray, " n"]
    proposed: Int[np.ndarray, " k"]
    tested: Int[np.ndarray, " k"]
    kept: Int[np.ndarray, " k"]

    @property
    def acceptance(self) -> Float[np.ndarray, " k"]:
        """Share of the drafts accepted, by place; those after a rejected one count as rejected."""
        return self.kept / np.maximum(self.proposed, 1)

    @property
    def accepted_per_step(self) -> float:
        """Drafts accepted in a step, beyond the one token that every step gives."""
        return float(self.accepted.sum() / max(self.steps.sum(), 1))

    @property
    def passes(self) -> Int[np.ndarray, " n"]:
        """Passes of the transformer for each sequence, the one over the prompt among them."""
        return self.steps + (self.length > self.prompts)

    @property
    def saved(self) -> float:
        """Share of the passes saved: without drafts there is one for every token."""
        made = (self.length - self.prompts).sum()
        return float(1 - self.passes.sum() / made) if made else 0.0

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each place of a draft: ``place`` from 1, ``proposed, tested, accepted`` and the share
        accepted of those proposed, ``acceptance``, and of those tested, ``given_before``.
        """
        import pandas as pd

        return pd.DataFrame(
            {
                "place": np.arange(1, len(self.proposed) + 1),
                "proposed": self.proposed,
                "tested": self.tested,
                "accepted": self.kept,
                "acceptance": self.acceptance,
                "given_before": self.kept / np.where(self.tested == 0, np.nan, self.tested),
            }
        )

    def _facts(self) -> dict[str, str]:
        shares = ", ".join(f"{share:.0%}" for share in self.acceptance)
        return {
            "drafter": f"{self.drafter}, {self.draft} tokens",
            "sequences": f"{len(self.length):,}",
            "tokens": f"{int((self.length - self.prompts).sum()):,} in {int(self.passes.sum()):,} passes",
            "passes saved": f"{self.saved:.1%}",
            "accepted per step": f"{self.accepted_per_step:.2f}",
            "accepted by place": shares or "none drafted",
        }

    def __repr__(self) -> str:
        return "\n".join(["Speculated", *(f"  {name:18s}{value}" for name, value in self._facts().items())])

    def _repr_html_(self) -> str:
        return table("Self-speculative decoding", self._facts())
