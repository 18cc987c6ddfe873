"""The A5 word problem, one episode and one permutation at a time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import combinations, permutations

LENGTH = 12


def is_even(element: tuple[int, ...]) -> bool:
    return sum(element[i] > element[j] for i, j in combinations(range(5), 2)) % 2 == 0


ELEMENTS = [element for element in permutations(range(5)) if is_even(element)]
INDEX = {element: index for index, element in enumerate(ELEMENTS)}


def episodes(n: int, seed: int) -> Iterator[list[int]]:
    """Yield the tokens of each episode; their labels, which a user also needs, are computed but not yielded."""
    for tokens, _ in labelled(n, seed):
        yield tokens


def labelled(n: int, seed: int) -> Iterator[tuple[list[int], list[int]]]:
    """Yield tokens, and the product up to each token; the first token is applied first."""
    rng = random.Random(seed)
    for _ in range(n):
        tokens, labels = [], []
        product = (0, 1, 2, 3, 4)
        for _ in range(LENGTH):
            token = rng.randrange(len(ELEMENTS))
            product = tuple(ELEMENTS[token][place] for place in product)
            tokens.append(token)
            labels.append(INDEX[product])
        yield tokens, labels
