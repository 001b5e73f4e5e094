"""Padding as modules: constant, zero, reflection, replication, circular, over one to three axes."""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad.nn import functional as F
from lazygrad.nn.module import Module


class _Pad(Module):
    """padding: a number for all sides, or (before, after) an axis, the last axis first."""

    rank = 0
    mode = "constant"

    def __init__(self, padding: Any) -> None:
        super().__init__()
        amounts = (padding,) * (2 * self.rank) if hasattr(padding, "__index__") else tuple(padding)
        if len(amounts) != 2 * self.rank:
            raise ValueError(f"{self._get_name()}: padding is a number or {2 * self.rank} of them, "
                             f"not {padding!r}")
        self.padding = amounts

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: lg.Tensor) -> lg.Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """`value` around the last axis."""

    rank = 1


class ConstantPad2d(_ConstantPad):
    """`value` around the last two axes."""

    rank = 2


class ConstantPad3d(_ConstantPad):
    """`value` around the last three axes."""

    rank = 3


class ZeroPad1d(ConstantPad1d):
    """Zeros around the last axis."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad2d(ConstantPad2d):
    """Zeros around the last two axes."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad3d(ConstantPad3d):
    """Zeros around the last three axes."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ReflectionPad1d(_Pad):
    """The last axis mirrored at its ends, which are not repeated."""

    rank, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """The last two axes mirrored at their ends, which are not repeated."""

    rank, mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """The last three axes mirrored at their ends, which are not repeated."""

    rank, mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """The ends of the last axis repeated."""

    rank, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """The ends of the last two axes repeated."""

    rank, mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """The ends of the last three axes repeated."""

    rank, mode = 3, "replicate"


class CircularPad1d(_Pad):
    """The last axis continued from its other end."""

    rank, mode = 1, "circular"


class CircularPad2d(_Pad):
    """The last two axes continued from their other ends."""

    rank, mode = 2, "circular"


class CircularPad3d(_Pad):
    """The last three axes continued from their other ends."""

    rank, mode = 3, "circular"
