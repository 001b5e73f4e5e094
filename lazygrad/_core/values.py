"""Small values that tensors hand out: Size, Device, GradFunction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lazygrad._core.context import fail
from lazygrad_compiler.ir.node import Node


class Size(tuple):
    """A shape: a tuple of sizes."""

    __slots__ = ()

    def numel(self) -> int:
        return math.prod(self)

    def __repr__(self) -> str:
        return f"Size([{', '.join(map(str, self))}])"

    def __getitem__(self, index: Any) -> Any:
        value = tuple.__getitem__(self, index)
        return Size(value) if isinstance(index, slice) else value

    def __add__(self, other: Any) -> Any:
        return Size(tuple.__add__(self, tuple(other)))


@dataclass(frozen=True, slots=True)
class Device:
    """Where values live: type "cpu" or "cuda", and a number."""

    type: str
    index: int | None = None

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return f"device(type={self.type!r}" + \
            (")" if self.index is None else f", index={self.index})")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return str(self) == other
        return isinstance(other, Device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash(str(self))

    def __enter__(self) -> Device:
        """Within the block, tensors are made here where nothing else is said."""
        from lazygrad._core.placement import enter_default
        enter_default(self)
        return self

    def __exit__(self, *_: object) -> None:
        from lazygrad._core.placement import leave_default
        leave_default()

    def __reduce__(self) -> Any:
        return Device, (self.type, self.index)


CPU = Device("cpu")

placing = False
"""Whether another device than the CPU is in use (`placement.start`)."""


@dataclass(frozen=True, slots=True)
class MemoryFormat:
    """A name that PyTorch scripts pass as memory_format=; accepted, and changes nothing: how values
    lie in memory is the compiler's choice.
    """

    name: str

    def __repr__(self) -> str:
        return f"lazygrad.{self.name}"


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tensor is stored; all are strided."""

    name: str

    def __repr__(self) -> str:
        return f"lazygrad.{self.name}"


STRIDED = Layout("strided")


def device(type: Any, index: int | None = None) -> Device:
    """The device of a name, "cpu" or "cuda:0", or of a number of a CUDA device."""
    if isinstance(type, Device):
        return type
    if isinstance(type, int) and not isinstance(type, bool):
        return Device("cuda", type)
    name, _, number = str(type).partition(":")
    if number and not number.isdecimal():
        raise fail("device", f"{type!r} names no device", "Say 'cpu', 'cuda' or 'cuda:0'.")
    return Device(name, int(number) if number else index)


def check_device(where: Any, name: str) -> None:
    """The device that an operation is asked to make its result on; refuses those that hold no
    tensors.
    """
    if placing or (where is not None and device(where).type != "cpu"):
        from lazygrad._core.placement import choose
        choose(where, name)


class GradFunction:
    """What computed a tensor, to be read by people: the operation and its line."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def name(self) -> str:
        return f"{self._node.op.title().replace('_', '')}Backward0"

    @property
    def next_functions(self) -> tuple[tuple[GradFunction, int], ...]:
        return tuple(
            (GradFunction(value), 0) for value in self._node.inputs if value.differentiable
        )

    @property
    def location(self) -> tuple[tuple[str, int], ...]:
        return self._node.location

    def __repr__(self) -> str:
        return f"<{self.name()}>"
