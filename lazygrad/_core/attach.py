"""Puts the functions of `lazygrad.functional` on Tensor: operators, methods, in-place variants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lazygrad._core.context import METHODS, operation
from lazygrad._core.tensor import Tensor, node_of, write
from lazygrad.functional import elementwise


def in_place(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The variant of a method that writes its result into the tensor."""

    def apply(self: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        return write(self, name, node_of(function(self, *arguments, **keywords)))

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"{name[:-1]}, written into this tensor."
    return operation(apply)


_AUGMENTED = {"add": "add_", "sub": "sub_", "mul": "mul_", "truediv": "div_",
              "floordiv": "floor_divide_", "mod": "remainder_", "pow": "pow_",
              "and": "bitwise_and_", "or": "bitwise_or_", "xor": "bitwise_xor_",
              "lshift": "bitwise_left_shift_", "rshift": "bitwise_right_shift_"}


def attach(in_place_names: list[str]) -> None:
    """Called once, when all operations are defined."""
    for name in in_place_names:
        if name + "_" not in METHODS:
            METHODS[name + "_"] = in_place(name + "_", METHODS[name])
    for name, function in METHODS.items():
        setattr(Tensor, name, function)
    for name, function in elementwise.OPERATORS.items():
        setattr(Tensor, name, function)
    for python, name in _AUGMENTED.items():
        setattr(Tensor, f"__i{python}__", METHODS[name])
    for dunder, name in (("__neg__", "neg"), ("__pos__", "positive"), ("__abs__", "abs"),
                         ("__invert__", "bitwise_not"), ("__matmul__", "matmul")):
        setattr(Tensor, dunder, METHODS[name])
    setattr(Tensor, "__rmatmul__", lambda self, other: METHODS["matmul"](other, self))  # noqa: B010
