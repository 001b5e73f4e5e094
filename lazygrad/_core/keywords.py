"""Arguments under PyTorch's names where a function here calls them otherwise.

`operation` (context.py) asks only if a call has a keyword that is no parameter of the function.
What may then be meant: NumPy's name for it, which PyTorch takes everywhere; PyTorch's own, by the
table below; a sequence that is a row of arguments otherwise, as in `x.permute(dims=(1, 0))`; or,
where memory is made, a wish about memory that changes no value.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import Any

NUMPY = {"axis": "dim", "keepdims": "keepdim", "x": "input", "a": "input", "x1": "input",
         "x2": "other", "self": "input", "input": "self"}
"""In any function; the last two are this package's two names for a first argument."""

PYTORCH: dict[str, dict[str, str]] = {
    "alpha_dropout": {"train": "training"},
    "cholesky_inverse": {"input": "L"},
    "cholesky_solve": {"input": "B", "input2": "L"},
    "copy_": {"other": "src"},
    "det": {"input": "A"},
    "dropout": {"train": "training"},
    "dsplit": {"sections": "indices_or_sections", "indices": "indices_or_sections"},
    "feature_alpha_dropout": {"train": "training"},
    "feature_dropout": {"train": "training"},
    "hsplit": {"sections": "indices_or_sections", "indices": "indices_or_sections"},
    "isin": {"element": "elements", "test_element": "test_elements"},
    "lu_solve": {"input": "b"},
    "map_": {"other": "tensor"},
    "matrix_exp": {"input": "A"},
    "matrix_power": {"input": "A"},
    "pow": {"exponent": "other"},
    "pow_": {"exponent": "other"},
    "record_stream": {"s": "stream"},
    "requires_grad_": {"mode": "requires_grad"},
    "resize_": {"size": "sizes"},
    "result_type": {"tensor": "tensor1", "other": "tensor2", "scalar1": "tensor1",
                    "scalar2": "tensor2"},
    "split": {"tensor": "input", "split_size": "split_size_or_sections"},
    "tensor_split": {"sections": "indices_or_sections", "indices": "indices_or_sections",
                     "tensor_indices_or_sections": "indices_or_sections"},
    "transpose": {"axis0": "dim0", "axis1": "dim1"},
    "transpose_": {"axis0": "dim0", "axis1": "dim1"},
    "triangular_solve": {"input": "b"},
    "view": {"size": "shape", "dtype": "shape"},
    "vsplit": {"sections": "indices_or_sections", "indices": "indices_or_sections"},
}

ABOUT_MEMORY = frozenset(("pin_memory", "layout", "memory_format"))
"""Taken by whatever takes a device: there is one layout, and host memory is the CPU's."""


class Parameters:
    """names: what a function takes by keyword.  placed: what it takes by position.  spread: the
    parameter that takes a row of arguments, "" for none.
    """

    __slots__ = ("function", "names", "placed", "spread")

    def __init__(self, function: Callable[..., Any], code: CodeType) -> None:
        self.function = function.__name__
        count = code.co_argcount + code.co_kwonlyargcount
        self.placed = code.co_varnames[: code.co_argcount]
        self.names = frozenset((*code.co_varnames[code.co_posonlyargcount:count], "out"))
        self.spread = code.co_varnames[count] if code.co_flags & 0x04 else ""

    def respelled(self, arguments: tuple, keywords: dict[str, Any]
                  ) -> tuple[tuple, dict[str, Any]]:
        """The call in the function's own words; what is not understood stays as it is."""
        known: dict[str, Any] = {}
        row: tuple = ()
        for word, value in keywords.items():
            meant = self._meant(word)
            if not meant:
                continue
            if meant == self.spread:
                row = (value,)
            elif meant in known or (meant in keywords and meant != word):
                raise TypeError(f"[{self.function}] got {meant!r} and {word!r}, which are the same")
            else:
                known[meant] = value
        if row:  # whatever comes before it goes by position, too
            before = self.placed[len(arguments):]
            arguments = (*arguments, *(known.pop(name) for name in before if name in known), *row)
        return arguments, known

    def _meant(self, word: str) -> str:
        """The parameter, or what nobody takes; "" for what makes no difference."""
        if word in self.names or word == self.spread:
            return word
        for table in (PYTORCH.get(self.function, {}), NUMPY):
            meant = table.get(word, "")
            if meant and (meant in self.names or meant == self.spread):
                return meant
        return "" if word in ABOUT_MEMORY and "device" in self.names else word


def parameters_of(function: Callable[..., Any]) -> Parameters | None:
    """None for a function that takes any keyword."""
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType) or code.co_flags & 0x08:
        return None
    return Parameters(function, code)
