"""Which shortcuts of arithmetic were asked for by name.  None are, unless somebody does."""

from __future__ import annotations


class Precision:
    """tf32: whether products of float32 may be computed of operands rounded to 11 bits (tf32),
    where a device has the units for it.
    """

    __slots__ = ("tf32",)

    def __init__(self) -> None:
        self.tf32 = False


precision = Precision()


def allow_tf32(allowed: bool) -> None:
    """From now on; programs that were compiled for a device are forgotten where that changes."""
    if precision.tf32 is bool(allowed):
        return
    precision.tf32 = bool(allowed)
    from lazygrad_runtime.program import forget_placed

    forget_placed()
