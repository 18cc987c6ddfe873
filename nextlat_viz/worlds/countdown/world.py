"""The Countdown world: its format, its truth and its oracle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.worlds import checks
from nextlat_viz.worlds.base import Episodes, Tokens, World
from nextlat_viz.worlds.countdown import oracle
from nextlat_viz.worlds.countdown.arithmetic import OPERATIONS, problems
from nextlat_viz.worlds.countdown.verdict import Verdict, judge

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_LARGEST_LIMIT = 10_000


def countdown(
    numbers: int = 4,
    largest: int = 99,
    targets: Sequence[int] = (10, 100),
    pause_tokens: int = 8,
    held_out: float = 0.1,
    limit: int = _LARGEST_LIMIT,
    data_seed: int = 0,
) -> Countdown:
    """Countdown: combine all given numbers into a target, as in the television game (Gandhi et al. 2024, "Stream of
    Search"; the format follows the NextLat paper's example ``14,83,88,91,23 | 83-14=69, 91-88=3, 69/3=23``).

    Parameters
    ----------
    numbers : int
        Inputs of a problem, at least 2; a solution has one equation less.
    largest : int
        Inputs are 1..largest, and may repeat.
    targets : pair of int
        Least and greatest target, both included.
    pause_tokens : int
        How many ``|`` stand between problem and solution; 0 is allowed.
    held_out : float
        Share of the targets that only the test split has, in (0, 1).
    limit : int
        Greatest result, and greatest number of the vocabulary: at most 10,000.
    data_seed : int
        Chooses which targets are held out.

    Raises
    ------
    ValueError
        If an argument is out of range, or no target is left for one of the splits.

    Examples
    --------
    >>> world = countdown()
    >>> print(world.decode(world.sample(1, seed=0).tokens[0]))
    28,40,85,11,86 | 40-11=29, 29+85=114, 114-28=86 end
    """
    return Countdown(numbers, largest, targets, pause_tokens, held_out, limit, data_seed)


class Countdown(World):
    """Arithmetic problems with solutions; build one with ``countdown``.

    An episode is the inputs and the target, the pauses, then the equations, then the end, always as many tokens:
    ``14 83 88 91 23 | | | | | | | | 83 - 14 = 69 91 - 88 = 3 69 / 3 = 23 end``. Every integer from 0 to ``limit`` is
    one token, its id the integer itself: 0 too, for results may be 0. Commas are for reading, not tokens. Problem and
    pauses are not scored.

    An equation takes two of the numbers that are there, inputs or results not used yet, and leaves its result, a whole
    number from 0 to ``limit``; the last comes to the target. A number that is there twice may be used twice.

    The law: the target is uniform over those of the split. Inputs and equations are a random calculation, given that
    it ends in the target: inputs uniform over 1..largest, then each time two of the numbers, in order, uniformly, and
    one of the operations possible for them, uniformly; where none is, the calculation is dropped. So a target comes
    with inputs that have many ways to it more often than with inputs that have few.

    A problem's *content* is its target: ``held_out`` of the targets are those of the test split, and no other's.

    States, after each token:

    - ``remaining`` (..., numbers): the numbers not used yet, ascending, then -1. Inputs enter as they are read;
      operands leave and a result enters when the result was read.
    - ``target``: -1 before it was read.
    - ``equation``: which equation the token belongs to, from 1; 0 before the first, and the last at the end.
    - ``left``: left operand of that equation; -1 outside of equations.
    - ``value``: what that equation comes to, known from its right operand on; -1 before.
    """

    name = "countdown"
    splits = ("train", "test")
    pictures = ("equations",)
    length: int

    def __init__(
        self,
        numbers: int,
        largest: int,
        targets: Sequence[int],
        pause_tokens: int,
        held_out: float,
        limit: int,
        data_seed: int,
    ) -> None:
        self.numbers, self.limit = checks.positive("numbers", numbers), checks.positive("limit", limit)
        if self.numbers < 2:
            raise ValueError(f"numbers must be at least 2, got {numbers}: an equation takes two")
        if self.limit > _LARGEST_LIMIT:
            raise ValueError(f"limit must be at most {_LARGEST_LIMIT}, got {limit}")
        self.largest = checks.positive("largest", largest)
        if self.largest > self.limit:
            raise ValueError(f"largest={largest} must be at most limit={limit}: an input is a token too")
        self.targets = _range(targets, self.limit)
        if isinstance(pause_tokens, bool) or not isinstance(pause_tokens, (int, np.integer)) or pause_tokens < 0:
            raise ValueError(f"pause_tokens must be an integer of at least 0, got {pause_tokens!r}")
        if not 0 < held_out < 1:
            raise ValueError(f"held_out must be in (0, 1), got {held_out!r}")
        low, high = self.targets
        count = high - low + 1
        held = round(held_out * count)
        if not 0 < held < count:
            raise ValueError(
                f"held_out={held_out} of the {count} targets {low}..{high} is {held}, which leaves no target for "
                f"{'test' if held == 0 else 'train'}; choose more targets or another share"
            )
        shuffled = low + np.random.default_rng(checks.seed(data_seed)).permutation(count)
        self.split_targets = {"train": np.sort(shuffled[held:]), "test": np.sort(shuffled[:held])}
        self.spec = {
            "name": self.name,
            "numbers": self.numbers,
            "largest": self.largest,
            "targets": [low, high],
            "pause_tokens": int(pause_tokens),
            "held_out": float(held_out),
            "limit": self.limit,
            "data_seed": int(data_seed),
        }
        self.vocabulary = (*map(str, range(self.limit + 1)), *OPERATIONS, "=", "|", "end")
        self.plus = self.limit + 1
        self.equals, self.pause, self.end = range(self.plus + 4, self.plus + 7)
        self.prompt = self.numbers + 1 + int(pause_tokens)
        self.equations = self.numbers - 1
        self.length = self.prompt + 5 * self.equations + 1

    def sample(
        self, n: int, length: int | None = None, seed: int = 0, *, split: str = "train", states: bool = True
    ) -> Episodes:
        """Draw ``n`` solved problems, new ones for every seed.

        Raises
        ------
        ValueError
            If an argument is out of range, or a target hardly ever comes out of such numbers.

        Examples
        --------
        >>> countdown().sample(3, split="test")
        Episodes(3 x 29 tokens, states: remaining, target, equation, left, value)
        """
        n, length = checks.positive("n", n), checks.episode_length(self, length)
        choice = self.split_targets[checks.split(self, split)]
        rng = np.random.default_rng(checks.seed(seed))
        targets = choice[rng.integers(len(choice), size=n)]
        inputs, equations = problems(rng, targets, self.numbers, self.largest, self.limit)
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
            states=oracle.states(self, tokens) if states else {},
            loss_mask=np.tile((place >= self.prompt) & (place < self.length), (n, 1)),
            length=np.full(n, self.length),
        )

    def verify(self, tokens: Tokens) -> Verdict:
        """Judge the solutions in any tokens, equation by equation; see ``Verdict`` for what is judged.

        Inputs and target are read from the prompt. An equation that is merely false uses up its operands and leaves
        the result as written; one that is malformed or takes what is not there leaves the numbers as they are. What
        is missing at the end counts as malformed. No integer is refused, in the vocabulary or not.

        Parameters
        ----------
        tokens : integer array (episodes, positions)

        Examples
        --------
        >>> world = countdown()
        >>> episodes = world.sample(5, seed=0)
        >>> world.verify(episodes.tokens).solved.all(), world.verify(episodes.tokens[:, ::-1]).solved.any()
        (np.True_, np.False_)
        """
        given = np.asarray(tokens)
        if given.ndim != 2 or given.dtype.kind not in "iu":
            raise ValueError(
                f"tokens must be integers of shape (episodes, positions), got {given.dtype} of shape {given.shape}"
            )
        read = np.full((len(given), self.length), -1, np.int64)
        read[:, : given.shape[1]] = given[:, : self.length]
        solution = read[:, self.prompt : -1].reshape(len(read), self.equations, 5)
        return judge(read[:, : self.numbers], read[:, self.numbers], solution, self.limit)

    def replay(self, tokens: Tokens) -> dict[str, np.ndarray]:
        """The states after each token; any prefix gives what the whole gives.

        Raises
        ------
        ValueError
            If a token is not legal where it is; the place is named. For solutions that may be wrong, see ``verify``.
        """
        return oracle.states(self, self._possible(tokens))

    def legal_next(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions tokens"]:
        """Which tokens may come next.

        In the problem any input and any target of the world. In the solution what keeps the arithmetic true: numbers
        that are there and go with another that is there, operations possible with them, and the one right result. It
        need not lead to the target: whether a solution does is for ``verify`` to say.

        Ten thousand tokens at each position make this large: 1,000 episodes take 300 MB. ``legal`` does without.
        """
        tokens = checks.tokens(tokens, self.name, self.vocabulary)
        legal = np.zeros((*tokens.shape, len(self.vocabulary)), bool)
        for place, (ids, weights) in enumerate(oracle.candidates(self, tokens)):
            if place:
                episode, which = np.nonzero(weights)
                legal[episode, place - 1, ids[episode, which]] = True
        return legal

    def legal_first(self) -> Bool[np.ndarray, " tokens"]:
        """Any input."""
        ids = np.arange(len(self.vocabulary))
        return (ids >= 1) & (ids <= self.largest)

    def legal(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions"]:
        """Whether each token was legal after those before it."""
        tokens = checks.tokens(tokens, self.name, self.vocabulary)
        ok = [
            ((ids == now[:, None]) & (weights > 0)).any(1)
            for (ids, weights), now in zip(oracle.candidates(self, tokens), tokens.T, strict=False)
        ]
        return np.array(ok, bool).T.reshape(tokens.shape)

    def next_token_probs(self, tokens: Tokens) -> Float[np.ndarray, "episodes positions tokens"] | None:
        """Distribution of the next token: exact from the last pause on, by going through every way to the target.

        In the problem, which is not scored, it is uniform over what is legal, which is not its law. None with more
        than four numbers, whose ways are too many. As large as ``legal_next`` eight times over.

        Raises
        ------
        ValueError
            As ``replay`` does, and if a solution has gone where nothing leads to its target.
        """
        if self.numbers > oracle.MOST_NUMBERS:
            return None
        tokens = self._possible(tokens)
        probs = np.zeros((*tokens.shape, len(self.vocabulary)))
        rows = np.arange(len(tokens))
        for place, (ids, weights) in enumerate(oracle.candidates(self, tokens, weighted=True)):
            if not place:
                continue
            total = weights.sum(1, keepdims=True)
            if not total.all():
                episode = int((total == 0).argmax())
                raise ValueError(
                    f"episode {episode} cannot happen in world {self.name!r}: after position {place} nothing leads "
                    f"to the target {tokens[episode, self.numbers]}"
                )
            # Two columns may be of the same number, so that one assignment would lose some.
            for column, share in zip(ids.T, (weights / total).T, strict=True):
                probs[rows, place - 1, column] += share
        return probs

    def decode(self, tokens: ArrayLike) -> str:
        """The tokens of one sequence as the paper writes them, all pauses as one ``|``."""
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

    def draw(
        self, kind: str = "equations", *, episode: Episodes | None = None, position: int | None = None, **options: Any
    ) -> Figure:
        """A plotly picture: ``"equations"``, how numbers flow together into the target, sized by ``width`` and
        ``height`` in pixels.

        With an ``episode``, its equations up to ``position``, true or false; without, the first episode of seed 0.

        Raises
        ------
        UnknownNameError
            If there is no such kind or option.
        ValueError
            If ``episode`` is not one episode, its problem is none of this world, or the position is outside it.
        """
        from nextlat_viz.worlds.countdown.draw import draw

        return draw(self, kind, episode, position, **options)

    def _possible(self, tokens: Tokens) -> Int[np.ndarray, "episodes positions"]:
        """The tokens as they came, or a ValueError that names the first that cannot be."""
        tokens = checks.tokens(tokens, self.name, self.vocabulary)
        wrong = np.argwhere(~self.legal(tokens))
        if len(wrong):
            episode, place = wrong[0]
            raise ValueError(
                f"episode {episode} cannot happen in world {self.name!r}: token "
                f"{self.vocabulary[tokens[episode, place]]!r} at position {place + 1} is not legal after those "
                "before it"
            )
        return tokens


def _range(targets: Sequence[int], limit: int) -> tuple[int, int]:
    wanted = "two integers, the least and the greatest target"
    if not isinstance(targets, Sequence) or len(targets) != 2:
        raise ValueError(f"targets must be {wanted}, got {targets!r}")
    low, high = targets
    if any(isinstance(one, bool) or not isinstance(one, (int, np.integer)) for one in targets):
        raise ValueError(f"targets must be {wanted}, got {targets!r}")
    if not 1 <= low <= high <= limit:
        raise ValueError(f"targets must be {wanted}, with 1 <= least <= greatest <= {limit}, got {targets!r}")
    return int(low), int(high)
