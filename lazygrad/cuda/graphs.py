"""torch.cuda's graphs, by what does their work here.

PyTorch captures the calls of a stream, and replays them on the same memory.  Here `lg.compile`
records values, and the runtime makes a graph of the driver from a program that has run twice
(`lazygrad_runtime/cuda/graph.py`): nothing has to be captured, no memory has to stay in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lazygrad._core.capture import compile
from lazygrad._core.context import fail

__all__ = ["CUDAGraph", "graph", "graph_pool_handle", "make_graphed_callables"]

WAY_OUT = ("Decorate the step with lazygrad.compile: it is replayed with new values, on a GPU as a "
           "graph of the driver.")  # fmt: skip


def make_graphed_callables(
    callables: Any, sample_args: Any, num_warmup_iters: int = 3, allow_unused_input: bool = False,
    pool: Any = None,
) -> Any:  # fmt: skip
    """Functions and modules that are recorded at their first call and replayed from then on
    (`lazygrad.compile`); modules stay themselves.  A tuple gives a tuple.

    sample_args: a tuple of tensors for each of them; other shapes may come later, each has a
    recording of its own.  The other arguments are accepted for PyTorch's sake.
    """
    if not isinstance(callables, tuple):
        if not isinstance(sample_args, tuple):
            raise fail("cuda.make_graphed_callables", "sample_args of one callable are a tuple of "
                       f"its arguments, not {type(sample_args).__name__}", kind=TypeError)
        return _graphed(callables)
    if not isinstance(sample_args, tuple) or len(sample_args) != len(callables):
        raise fail("cuda.make_graphed_callables", f"{len(callables)} callables need a tuple of as "
                   "many tuples of arguments")
    return tuple(_graphed(each) for each in callables)


def _graphed(function: Callable[..., Any]) -> Any:
    from lazygrad.nn import Module

    if not isinstance(function, Module):
        return compile(function)
    function.compile()
    return function


class CUDAGraph:
    """Not there: TensorError says what is."""

    def __init__(self, keep_graph: bool = False) -> None:
        raise fail("cuda.CUDAGraph", "the calls of a stream are not captured", WAY_OUT)


class graph:
    """Not there: TensorError says what is."""

    def __init__(self, cuda_graph: Any, *_: Any, **__: Any) -> None:
        raise fail("cuda.graph", "the calls of a stream are not captured", WAY_OUT)


def graph_pool_handle() -> tuple[int, int]:
    """A token for arguments named `pool`, which are not needed: programs plan their memory."""
    return (0, 0)
