"""`cond` and `while_loop`: branches and loops that depend on values.

They look at the predicate, as an `if` or `while` in Python would, and record what is run.  So each
branch may be any Python, gradients flow through the one that was taken, and the work between two
looks is one program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor

__all__ = ["cond", "while_loop"]


def _truth(name: str, value: Any) -> bool:
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise fail(name, f"the predicate has {value.numel()} elements", "It is one bool.")
        return bool(value)
    if not isinstance(value, bool):
        raise fail(name, f"the predicate is a bool or a tensor of one, not {type(value).__name__}",
                   kind=TypeError)
    return value


@operation
def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any],
         operands: Sequence[Any] = ()) -> Any:
    """true_fn(*operands) where the predicate holds, else false_fn(*operands); looks at it."""
    return true_fn(*operands) if _truth("cond", pred) else false_fn(*operands)


@operation
def while_loop(cond_fn: Callable[..., Any], body_fn: Callable[..., Any],
               carried_inputs: Sequence[Any]) -> Any:
    """Applies body_fn to the carried values as long as cond_fn of them holds; looks at it.

    body_fn returns as many values as it takes, of the same shapes and dtypes.
    """
    carried = tuple(carried_inputs)
    while _truth("while_loop", cond_fn(*carried)):
        result = body_fn(*carried)
        following = tuple(result) if isinstance(result, (tuple, list)) else (result,)
        if len(following) != len(carried):
            raise fail("while_loop", f"body_fn takes {len(carried)} values and returns "
                       f"{len(following)}")
        for number, (before, after) in enumerate(zip(carried, following, strict=True)):
            if isinstance(before, Tensor) and isinstance(after, Tensor) and (
                    before.shape != after.shape or before.dtype is not after.dtype):
                raise fail("while_loop", f"value {number} goes in as {before.dtype.name} "
                           f"{tuple(before.shape)} and comes out as {after.dtype.name} "
                           f"{tuple(after.shape)}")
        carried = following
    return carried
