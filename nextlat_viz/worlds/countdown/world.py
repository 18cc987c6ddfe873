"""The Countdown world: format, states and exact law."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.worlds import checks
from nextlat_viz.worlds.base import Episodes, Tokens, World, scrambled
from nextlat_viz.worlds.countdown import rules
from nextlat_viz.worlds.countdown.rules import OPERATIONS, solved_problems

_LARGEST_LIMIT = 10_000


class Countdown(World):
    """Countdown: combine all given numbers into a target, as in the television game.

    An episode is the inputs and the target, the pauses, the equations and the end; all have the same length:
    ``14 83 88 91 23 | | | | | | | | 83 - 14 = 69 91 - 88 = 3 69 / 3 = 23 end``. Every integer from 0 to ``limit`` is
    one token whose id is the integer; results may be 0. Commas in decoded text are not tokens. Problem and pauses are
    not scored.

    An equation takes two of the available numbers, which are inputs or results not used yet, and adds its result, an
    integer from 0 to ``limit``; the last result is the target. A number that is available twice may be used twice.

    The law: the target is uniform over those of the split. Inputs and equations are a random calculation conditioned
    on ending in the target. Inputs are uniform over 1..largest. Each equation takes an ordered pair of the available
    numbers, uniformly, and one of the possible operations, uniformly. A calculation without a possible operation is
    dropped.
    Inputs with many solutions are therefore more frequent than inputs with few.

    The *content* of a problem is its target: a fraction ``held_out`` of the targets occurs in the test split only.
    Where there is one target, as in the 24 game, the content is the hand of inputs, in any order: a hash of the hand
    and ``data_seed`` puts a fraction ``held_out`` of all hands into the test split only.

    Picture: ``"equations"``, how the numbers are combined into the target; with an episode, its equations so far, true
    or false; otherwise the first episode of seed 0.

    States, after each token:

    - ``remaining`` (..., numbers): the available numbers, ascending, then -1. Inputs are added as they are read;
      operands are removed and the result is added when the result was read.
    - ``target``: -1 before it is read.
    - ``equation``: number of the token's equation, from 1; 0 before the first, and the last number at the end.
    - ``left``: left operand of that equation; -1 outside of equations.
    - ``value``: result of that equation, from its right operand on; -1 before.

    Parameters
    ----------
    numbers : int
        Inputs of a problem, at least 2; a solution has one equation less.
    largest : int
        Inputs are 1..largest, and may repeat.
    targets : pair of int
        Least and greatest target, both included.
    pause_tokens : int
        Number of ``|`` between problem and solution, at least 0.
    held_out : float
        Fraction of the targets, or with one target of the hands, that only the test split has, in (0, 1).
    limit : int
        Greatest result and greatest number in the vocabulary, at most 10,000.
    data_seed : int
        Seed of the choice of held-out targets or hands.

    Raises
    ------
    ValueError
        If an argument is out of range, or a split would have no target.

    References
    ----------
    Gandhi, K. et al. (2024). Stream of Search: Learning to Search in Language. COLM. (The format follows the NextLat
    paper's example ``14,83,88,91,23 | 83-14=69, 91-88=3, 69/3=23``.)

    Examples
    --------
    >>> world = Countdown()
    >>> print(world.decode(world.sample(1, seed=0).tokens[0]))
    28,40,85,11,86 | 40-11=29, 29+85=114, 114-28=86 end

    The 24 game with playing cards, with a tenth of the hands held out:

    >>> world = Countdown(largest=13, targets=(24, 24))
    >>> world.sample(2, seed=0, split="test").tokens[:, world.numbers].tolist()
    [24, 24]
    """

    name = "countdown"
    splits = ("train", "test")
    pictures = ("equations",)
    optional_states = ("remaining", "target", "left", "value")
    length: int

    def __init__(
        self,
        numbers: int = 4,
        largest: int = 99,
        targets: Sequence[int] = (10, 100),
        pause_tokens: int = 8,
        held_out: float = 0.1,
        limit: int = _LARGEST_LIMIT,
        data_seed: int = 0,
    ) -> None:
        self.numbers = checks.integer("numbers", numbers, 2)
        self.limit = checks.integer("limit", limit, 1, _LARGEST_LIMIT)
        self.largest = checks.integer("largest", largest)
        if self.largest > self.limit:
            raise ValueError(f"largest={largest} must be at most limit={limit}, because inputs are tokens")
        self.targets = _range(targets, self.limit)
        pause_tokens = checks.integer("pause_tokens", pause_tokens, 0)
        held_out = checks.number("held_out", held_out, "(0, 1)")
        self._data_seed, self._held_out = checks.integer("data_seed", data_seed, 0), held_out
        low, high = self.targets
        count = high - low + 1
        n_test = round(held_out * count)
        if count > 1 and not 0 < n_test < count:
            raise ValueError(
                f"held_out={held_out} of the {count} targets {low}..{high} is {n_test}, which leaves no target for "
                f"{'test' if n_test == 0 else 'train'}; choose more targets, another fraction, or one target: then "
                "hands are held out"
            )
        shuffled = low + np.random.default_rng(self._data_seed).permutation(count)
        train, test = (shuffled, shuffled) if count == 1 else (shuffled[n_test:], shuffled[:n_test])
        self.split_targets = {"train": np.sort(train), "test": np.sort(test)}
        self.spec = {
            "name": self.name,
            "numbers": self.numbers,
            "largest": self.largest,
            "targets": [low, high],
            "pause_tokens": pause_tokens,
            "held_out": held_out,
            "limit": self.limit,
            "data_seed": self._data_seed,
        }
        self.vocabulary = (*map(str, range(self.limit + 1)), *OPERATIONS, "=", "|", "end")
        self.plus = self.limit + 1
        self.equals, self.pause, self.end = range(self.plus + 4, self.plus + 7)
        self.prompt = self.numbers + 1 + pause_tokens
        self.equations = self.numbers - 1
        self.length = self.prompt + 5 * self.equations + 1

    def sample(
        self, n: int, length: int | None = None, seed: int = 0, *, split: str = "train", states: bool = True
    ) -> Episodes:
        """Draw ``n`` solved problems.

        Raises
        ------
        ValueError
            If random calculations hardly ever end in one of the targets.

        Examples
        --------
        >>> Countdown().sample(3, split="test")
        Episodes(3 x 29 tokens, states: remaining, target, equation, left, value)
        """
        n, length, rng = checks.sampling(self, n, length, seed, split)
        choice = self.split_targets[split]
        targets = choice[rng.integers(len(choice), size=n)]
        hands = (lambda inputs: self.is_held_out(inputs) == (split == "test")) if self._holds_out_hands else None
        inputs, equations = solved_problems(rng, targets, self.numbers, self.largest, self.limit, hands)
        tokens = np.full((n, length), self.end, np.int64)
        tokens[:, : self.numbers], tokens[:, self.numbers] = inputs, targets
        tokens[:, self.numbers + 1 : self.prompt] = self.pause
        solution = tokens[:, self.prompt : self.length - 1].reshape(n, self.equations, 5)
        equations[:, :, 1] += self.plus
        solution[...] = np.insert(equations, 3, self.equals, axis=2)
        tokens[:, self.prompt : self.length - 1] = solution.reshape(n, -1)
        place = np.arange(length)
        return Episodes(
            tokens,
            states=rules.states(self, tokens) if states else {},
            loss_mask=np.tile((place >= self.prompt) & (place < self.length), (n, 1)),
            length=np.full(n, self.length),
        )

    @property
    def _holds_out_hands(self) -> bool:
        return self.targets[0] == self.targets[1]

    def is_held_out(self, inputs: Int[np.ndarray, "problems numbers"]) -> Bool[np.ndarray, " problems"]:
        """Which hands of inputs only the test split has, in a world with one target; the order does not matter.

        Examples
        --------
        >>> world = Countdown(largest=13, targets=(24, 24))
        >>> world.is_held_out(np.array([[4, 7, 8, 8], [8, 4, 8, 7]])).tolist()
        [False, False]
        """
        if not self._holds_out_hands:
            return np.zeros(len(inputs), bool)
        digest = np.full(len(inputs), self._data_seed % 2**64, np.uint64)
        for column in np.sort(inputs, axis=1).T.astype(np.uint64):
            digest = scrambled(digest ^ column)
        return (digest >> np.uint64(11)) / 2.0**53 < self._held_out

    def verify(self, tokens: Tokens) -> rules.SolutionCheck:
        """Check the solutions in any tokens, equation by equation.

        Inputs and target are read from the prompt. A false equation still uses its operands and adds the result as
        written; a malformed equation, or one with operands that are not available, leaves the numbers unchanged.
        Missing equations count as malformed. Integers outside the vocabulary are allowed.

        Parameters
        ----------
        tokens : integer array (episodes, positions)

        Examples
        --------
        >>> world = Countdown()
        >>> episodes = world.sample(5, seed=0)
        >>> world.verify(episodes.tokens).solved.all(), world.verify(episodes.tokens[:, ::-1]).solved.any()
        (np.True_, np.False_)
        """
        ids = checks.token_array(tokens)
        read = np.full((len(ids), self.length), -1, np.int64)
        read[:, : ids.shape[1]] = ids[:, : self.length]
        solution = read[:, self.prompt : -1].reshape(len(read), self.equations, 5)
        return rules.verdict_on(read[:, : self.numbers], read[:, self.numbers], solution, self.limit)

    def replay(self, tokens: Tokens) -> dict[str, np.ndarray]:
        return rules.states(self, checks.legal_tokens(self, tokens))

    def future(self, tokens: Tokens) -> Int[np.ndarray, "episodes positions facts"]:
        """The numbers left, the target, and the tokens of the equation that is being written."""
        tokens = checks.legal_tokens(self, tokens)
        states = rules.states(self, tokens)
        begun = np.full((*tokens.shape, 4), -1)
        places = np.arange(tokens.shape[1])
        for place in range(self.prompt, min(tokens.shape[1], self.length - 1)):
            part = (place - self.prompt) % 5
            if part < 4:
                begun[:, place, : part + 1] = tokens[:, place - part : place + 1]
        # Which token of the prompt, and whether the solution has ended.
        phase = np.tile(np.minimum(places, self.prompt) + (places >= self.length - 1), (len(tokens), 1))
        parts = (states["remaining"], begun, states["target"][..., None], phase[..., None])
        return np.concatenate(parts, axis=-1)

    def legal_next(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions tokens"]:
        """Which tokens may come next.

        In the problem, any input and any target of the world. In the solution, tokens that keep the arithmetic true:
        available operands, operations possible with them, and the correct result. Legal solutions may miss the target;
        ``verify`` checks that.

        The result is large: 300 MB for 1,000 episodes and 10,000 numbers. ``legal`` needs less memory.
        """
        tokens = checks.tokens(self, tokens)
        legal = np.zeros((*tokens.shape, len(self.vocabulary)), bool)
        for place, (ids, weights) in enumerate(rules.candidates(self, tokens)):
            if place:
                episode, column = np.nonzero(weights)
                legal[episode, place - 1, ids[episode, column]] = True
        return legal

    def start_probs(self) -> Float[np.ndarray, " tokens"]:
        """Uniform over all inputs, as in the rest of the problem, which is not scored."""
        ids = np.arange(len(self.vocabulary))
        return ((ids >= 1) & (ids <= self.largest)) / self.largest

    def legal(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions"]:
        tokens = checks.tokens(self, tokens)
        ok = [
            ((ids == now[:, None]) & (weights > 0)).any(1)
            for (ids, weights), now in zip(rules.candidates(self, tokens), tokens.T, strict=False)
        ]
        return np.array(ok, bool).T.reshape(tokens.shape)

    def next_token_probs(self, tokens: Tokens) -> Float[np.ndarray, "episodes positions tokens"] | None:
        """Distribution of the next token, exact from the last pause on, by enumerating the ways to the target.

        In the problem, which is not scored, the result is uniform over the legal tokens and not the true law.
        None with more than four numbers, which have too many ways to enumerate. Needs eight times the memory of
        ``legal_next``.

        Raises
        ------
        ValueError
            If a token is not legal, or the target cannot be reached any more.
        """
        if self.numbers > rules.MOST_NUMBERS:
            return None
        tokens = checks.legal_tokens(self, tokens)
        probs = np.zeros((*tokens.shape, len(self.vocabulary)))
        rows = np.arange(len(tokens))
        for place, (ids, weights) in enumerate(rules.candidates(self, tokens, weighted=True)):
            if not place:
                continue
            total = weights.sum(1, keepdims=True)
            if not total.all():
                episode = int((total == 0).argmax())
                raise ValueError(
                    f"episode {episode} cannot happen in world {self.name!r}: after position {place} the "
                    f"target {tokens[episode, self.numbers]} cannot be reached any more"
                )
            # Two columns may be the same number, so a single assignment would lose some of the probability.
            for column, share in zip(ids.T, (weights / total).T, strict=True):
                probs[rows, place - 1, column] += share
        return probs

    def decode(self, tokens: ArrayLike) -> str:
        """Write one sequence as the paper does, with one ``|`` for all pauses."""
        text, before, comma = "", "", ","
        for token in np.asarray(tokens).tolist():
            word = self.vocabulary[token]
            if word == "|":
                text, comma = text + (" | " if before != "|" else ""), ", "
            elif word == "end":
                text += " end"
            else:
                text += (comma if word.isdigit() and before.isdigit() else "") + word
            before = word
        return text.strip()


def _range(targets: Sequence[int], limit: int) -> tuple[int, int]:
    expected = "two integers, the least and the greatest target"
    if (
        not isinstance(targets, Sequence)
        or len(targets) != 2
        or any(isinstance(value, bool) or not isinstance(value, (int, np.integer)) for value in targets)
    ):
        raise ValueError(f"targets must be {expected}, got {targets!r}")
    low, high = targets
    if not 1 <= low <= high <= limit:
        raise ValueError(f"targets must be {expected}, with 1 <= least <= greatest <= {limit}, got {targets!r}")
    return int(low), int(high)
