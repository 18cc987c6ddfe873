"""Results of decoding: continuations of prompts, and the counts of self-speculative decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from nextlat_viz.display import table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Generated:
    """Continuations of prompts.

    Attributes
    ----------
    tokens : (n, t) int array
        Prompt and continuation; -1 after the end of a sequence.
    length : (n,) int array
        Tokens in each, with the prompt and a stop token.
    prompt : int
        Tokens of the longest prompt.
    stopped : (n,) bool array
        Whether a stop token came before `max_tokens` ran out.
    prompts : (n,) int array
        Tokens of each prompt.
    """

    tokens: Int[np.ndarray, "n t"]
    length: Int[np.ndarray, " n"]
    prompt: int
    stopped: Bool[np.ndarray, " n"]
    prompts: Int[np.ndarray, " n"]

    @property
    def continuation(self) -> Int[np.ndarray, "n s"]:
        """Tokens after each prompt, from the first column on; -1 after their end."""
        if not (self.prompts != self.prompt).any():
            return self.tokens[:, self.prompt :]
        added = self.length - self.prompts
        columns = np.arange(added.max(initial=0))
        tokens = np.take_along_axis(
            self.tokens, np.minimum(self.prompts[:, None] + columns, self.tokens.shape[1] - 1), axis=1
        )
        return np.where(columns < added[:, None], tokens, -1)


@dataclass(frozen=True, eq=False, repr=False)
class Speculated(Generated):
    """Continuations of prompts by self-speculative decoding, with the number of drafts made and accepted.

    A step is one pass of the transformer over the drafts: it gives the drafts that are accepted, and one more token.
    The first token of a continuation comes from the pass over the prompt, which is not counted as a step.

    Attributes
    ----------
    drafter : str
        ``"psi"``, ``"mtp"`` or ``"jtp"``.
    draft : int or "adaptive"
        Tokens drafted in a step; fewer near the end.
    steps, drafted, accepted : (n,) int arrays
        For each sequence: steps, tokens drafted, drafts accepted.
    proposed, tested, kept : (k,) int arrays
        By the draft's place in its step: the number drafted, the number whose earlier drafts were all accepted, and the
        number accepted.
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
        """Share of drafts accepted, by place; a draft after a rejected one counts as rejected."""
        return self.kept / np.maximum(self.proposed, 1)

    @property
    def accepted_per_step(self) -> float:
        """Mean number of drafts accepted in a step; every step gives one token more."""
        return float(self.accepted.sum() / max(self.steps.sum(), 1))

    @property
    def passes(self) -> Int[np.ndarray, " n"]:
        """Passes of the transformer for each sequence, with the one over the prompt."""
        return self.steps + (self.length > self.prompts)

    @property
    def saved(self) -> float:
        """Share of passes saved; without drafts every token takes a pass."""
        added = (self.length - self.prompts).sum()
        return float(1 - self.passes.sum() / added) if added else 0.0

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each place of a draft: ``place`` from 1, ``proposed, tested, accepted``; ``acceptance``,
        accepted / proposed; ``given_before``, accepted / tested.
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
