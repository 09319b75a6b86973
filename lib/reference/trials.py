"""Which parts of a step are tried by finite edits; without torch, since plans count them."""

FIRST = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Parts of the first step, whose length is a guess; if an end is best, the same beyond it."""
LATER = (0.25, 0.5, 1.0, 1.5)
"""Parts of every later step."""


def trials(rounds: int) -> int:
    """Finite edits of so many rounds, if the first guess is not far off."""
    return len(FIRST) + len(LATER) * (rounds - 1)
