"""What values an operation takes, checked while the program runs.

A requirement rides in the graph as the check of an index: where a value breaks it, an index into a
table of one element is that requirement's number, and where not, 0.  Numbers are far beyond any
array and nowhere near a round one, so that no index that a program comes by is taken for one.  So
it costs a comparison, needs no op of its own, and is reported as an index out of range is: by the
thread that meets it first, with the operation and the user's line.
"""

from __future__ import annotations

WEIGHTS = "a weight is negative, infinite or NaN. Weights are finite numbers from 0 up."
SUM = "the weights of a row are all 0. Draw from rows with a weight above 0."
PROBABILITIES = "a probability lies outside of 0 to 1, or is NaN."
RATES = "a rate is negative or NaN. Rates are numbers from 0 up."
DEVIATIONS = "a standard deviation is negative."
INPUTS = (
    "an input lies outside of 0 to 1, or is NaN. Put it through a sigmoid, or use "
    "binary_cross_entropy_with_logits."
)
TARGETS = "a target lies outside of 0 to 1, or is NaN."
VARIANCES = "a variance is negative."
DIVISORS = "an integer is divided by zero."
OFFSETS = "the first offset is not 0."
PARAMETERS = "a parameter is none that the distribution takes."
RANGE = "the range of the values is not finite. Give a range, or take NaN and infinity out."

REQUIREMENTS = (
    WEIGHTS, SUM, PROBABILITIES, RATES, DEVIATIONS, INPUTS, TARGETS, VARIANCES, DIVISORS, OFFSETS,
    PARAMETERS, RANGE,
)
"""What may be wrong, and the way out, as sentences after the operation's name.  New ones go to the
end: their numbers are in programs on disk.
"""

_FIRST = -(2**62) - 0x2B6C_9F13_5A81


def index_of(requirement: str) -> int:
    """The index that stands for a broken requirement."""
    return _FIRST - REQUIREMENTS.index(requirement)


def broken_by(index: int, size: int) -> str | None:
    """The requirement that an index out of range, of an axis of that size, stands for; None where
    it is an index.
    """
    number = _FIRST - index
    return REQUIREMENTS[number] if size == 1 and 0 <= number < len(REQUIREMENTS) else None
