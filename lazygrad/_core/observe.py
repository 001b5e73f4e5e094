"""Looking at values: what makes a tensor compute, as a base class of Tensor."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lazygrad._core import cell as cells
from lazygrad._core.context import fail
from lazygrad._core.steps import view_array
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.ops import listed


def shape_of(tensor: Any) -> tuple[int, ...]:
    """The shape as a plain tuple."""
    view = tensor._view
    return tensor._cell.node.shape if view is None else view.shape


def array_of(tensor: Any) -> np.ndarray:
    """The value as a read-only array."""
    array = cells.cell_values(tensor._cell)
    if tensor._view is not None:
        array = view_array(array, tensor._view.steps)
    array = array.view()
    array.flags.writeable = False
    return array


_NUMBERS: dict[DType, Any] = {
    dtypes.float32: ctypes.c_float, dtypes.float64: ctypes.c_double, dtypes.int64: ctypes.c_int64,
    dtypes.int32: ctypes.c_int32, dtypes.bool_: ctypes.c_bool,
}
"""What reads a number from memory, four times as fast as by way of an array."""


class Observed:
    """The methods that look at values; all of Tensor."""

    if TYPE_CHECKING:
        def __getattr__(self, name: str) -> Any: ...

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """The value as an array without a copy, read-only: values never change in place."""
        if self.requires_grad and not force:
            raise fail("numpy", "this tensor requires gradients, which NumPy would lose",
                       "Use x.detach().numpy().")
        if not force and self.device.type != "cpu":
            raise fail("numpy", f"a tensor on {self.device} cannot share its memory with NumPy",
                       "Copy it first: x.cpu().numpy().", TypeError)
        return array_of(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def item(self) -> Any:
        """The value of a one-element tensor as a Python number."""
        node = self._cell.node
        if self._view is None and node.shape == () and node.op != "const" \
                and not cells.observation_callbacks:
            number = _NUMBERS.get(node.dtype)
            if number is not None and (value := cells.computed(node)).device is None:
                return number.from_address(value.pointer).value
        if self.numel() != 1:
            raise fail(
                "item",
                f"only one-element tensors are numbers, this one is {listed(self.shape)}",
                "Reduce it first, or use .tolist().",
            )
        value = array_of(self).reshape(()).item()
        return float(value) if self.dtype.is_floating else value

    def tolist(self) -> Any:
        """The values as nested lists, or a number for a 0-d tensor."""
        array = array_of(self)
        return (array.astype(np.float32) if self.dtype.numpy.kind == "V" else array).tolist()

    def __bool__(self) -> bool:
        if self.numel() != 1:
            raise fail("bool", f"the truth of a tensor {listed(self.shape)} is not one value",
                       "Use .any() or .all().")
        return bool(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if not (self.dtype.is_integer or self.dtype.kind == "bool"):
            raise fail("index", f"only integer tensors are indices, not {self.dtype.name}",
                       kind=TypeError)
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        from lazygrad._core.show import show
        return show(cast(Any, self))

    def __format__(self, specification: str) -> str:
        if self.numel() == 1 and not shape_of(self):
            return format(self.item(), specification)
        return object.__format__(self, specification)
