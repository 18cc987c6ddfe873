"""Lesson 1, hidden states: predict RRXOR's next bit if you know where its triples begin."""

import numpy as np

from nextlat_viz.course.exercise import Exercise, RightOption


def chance_of_one(bits):
    """Return the probability that the next bit is 1, after bits that begin with a new triple."""
    if len(bits) % 3 == 2:
        return float(bits[-2] != bits[-1])
    return 0.5


def _cases(rng):
    yield ([],)
    yield ([1, 0],)
    for length in (1, 2, 3, 4, 5, 5, 5, 8, 8, 8, 10, 11, 11):
        triples = rng.integers(2, size=(4, 2))
        yield (np.column_stack([triples, triples[:, 0] ^ triples[:, 1]]).ravel()[:length].tolist(),)


exercise = Exercise(
    chance_of_one,
    _cases,
    describe=lambda bits: f"the bits read so far are {' '.join(map(str, bits))}" if bits else "nothing has been read",
    mistakes=(
        (lambda bits: 0.5, "Two bits of a triple are random. The third is not: which bits fix it?"),
        (
            lambda bits: float(bits[0] != bits[1]) if len(bits) % 3 == 2 else 0.5,
            "Right in the first triple. Later triples have random bits of their own.",
        ),
        (
            lambda bits: float(bits[-2] == bits[-1]) if len(bits) % 3 == 2 else 0.5,
            "This gives 1 when the two bits are the same. XOR gives 1 when they differ.",
        ),
        (
            lambda bits: float(bits[-2] or bits[-1]) if len(bits) % 3 == 2 else 0.5,
            "This is OR: it gives 1 after 1 1 too.",
        ),
        (
            lambda bits: float(bits[-2] and bits[-1]) if len(bits) % 3 == 2 else 0.5,
            "This is AND: it gives 1 only after 1 1.",
        ),
        (
            lambda bits: float(bits[-1] != bits[-2]) if len(bits) > 1 and len(bits) % 3 == 1 else 0.5,
            "You give the XOR one bit too early: after the first bit of a triple the second is still random.",
        ),
        (
            lambda bits: float(bits[-1] != bits[-2]) if bits and len(bits) % 3 == 0 else 0.5,
            "You give the XOR one bit too late: it is the third bit, so it is predicted after two.",
        ),
        (
            lambda bits: float(bits[-2] != bits[-1]) if len(bits) % 3 == 2 else 0.0,
            "If the next bit is random, neither answer is certain: give the probability, not a guess.",
        ),
    ),
    hints=(
        "How many bits of the present triple have been read? The remainder of len(bits) divided by 3 says so.",
        "Only when two bits of the triple have been read is the next bit known. Otherwise it is a fair coin.",
        "The two bits of the triple are then bits[-2] and bits[-1]. The next bit is 1 if they differ.",
    ),
)

prediction = RightOption(
    "when_certain",
    "It depends on the text: a few after four bits, some not even after twelve",
    "A wrong idea of where the triples begin is ruled out when a bit is not the XOR that it predicts. Half of the time "
    "it passes that test by luck.",
)
