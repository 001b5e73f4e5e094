"""`Parameter` and `Buffer`: tensors that a module files by itself when they are assigned to an
attribute.
"""

from __future__ import annotations

from typing import Any

from lazygrad import Tensor
from lazygrad._core.context import fail


class Parameter(Tensor):
    """A tensor that is trained: it requires gradients, and `module.parameters()` finds it.

    It shares memory with `data` and drops its history.
    """

    def __new__(cls, data: Any = None, requires_grad: bool = True) -> Parameter:
        return Tensor._make_subclass(cls, _checked("Parameter", data, requires_grad), requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        """As PyTorch has it, without the gradient."""
        result: Any = super().__deepcopy__(memo)
        result.grad = None
        return result


class Buffer(Tensor):
    """A tensor that is part of a module's state and not trained; `persistent`: whether `state_dict`
    has it.
    """

    persistent: bool

    def __new__(cls, data: Any = None, *, persistent: bool = True) -> Buffer:
        made = Tensor._make_subclass(cls, _checked("Buffer", data, False), False)
        made.persistent = persistent
        return made


def _checked(name: str, data: Any, requires_grad: bool) -> Tensor:
    if data is None:
        return Tensor()
    if not isinstance(data, Tensor):
        raise fail(name, f"takes a Tensor, not {type(data).__name__}",
                   "Convert it: lazygrad.tensor(x).", TypeError)
    if requires_grad and not (data.is_floating_point() or data.is_complex()):
        raise fail(name,
                   f"only floating-point tensors can be trained, and this one is {data.dtype}",
                   "Convert it with .float(), or pass requires_grad=False.")
    return data
