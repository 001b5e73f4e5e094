"""torch.cuda's graphs: work that is captured once and replayed on the same tensors.

    graph = lg.cuda.CUDAGraph()
    with lg.cuda.graph(graph):
        static_output = model(static_input)
    static_input.copy_(batch)
    graph.replay()                       # static_output holds the batch's results

What is captured are values, not the calls of a stream (`_core/graph_capture.py`); a replay launches
each row of kernels as a graph of the driver (`lazygrad_runtime/cuda/graph.py`), on the stream that
is current by then.  Memory is the runtime's: no warm-up on another stream is needed, and no pool.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from lazygrad._core import placement
from lazygrad._core.capture import compile
from lazygrad._core.context import fail, now, warn
from lazygrad._core.graph_capture import GraphCapture
from lazygrad._core.replay import Entry

__all__ = ["CUDAGraph", "graph", "graph_pool_handle", "is_current_stream_capturing",
           "make_graphed_callables"]


class CUDAGraph:
    """Captured work of a device.  keep_graph: accepted for PyTorch's sake."""

    def __init__(self, keep_graph: bool = False) -> None:
        self._device = placement.runtime_device(None, "cuda.CUDAGraph")
        self._capture: GraphCapture | None = None
        self._entry: Entry | None = None

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        """From here on this thread's work is captured instead of done, until `capture_end`."""
        if self._entry is not None:
            raise fail("cuda.CUDAGraph", "this graph was captured before",
                       "Make another one, or call reset() first.")
        if now.recording is not None or now.traced is not None:
            raise fail("cuda.CUDAGraph", "a capture begins within another one, or within a "
                       "compiled function", "Captures do not nest: end the first one, or call the "
                       "function without lazygrad.compile.")
        self._capture = GraphCapture(self._device)

    def capture_end(self) -> None:
        """Ends the capture; nothing was computed."""
        capture, self._capture = self._capture, None
        if capture is None:
            raise fail("cuda.CUDAGraph", "capture_end() without capture_begin()")
        self._entry = capture.finish()
        if self._entry.program is None:
            warn("[cuda.CUDAGraph] the captured graph is empty: nothing that the block computed is "
                 "left")

    def _give_up(self) -> None:
        """Ends a capture that went wrong, with everything as it was before."""
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.restore()

    def replay(self) -> None:
        """Does the captured work with the present values of the tensors that it reads."""
        if self._entry is None:
            raise fail("cuda.CUDAGraph", "replay() of a graph that was not captured",
                       "Capture it with `with lazygrad.cuda.graph(graph):`.")
        if now.recording is not None or now.traced is not None:
            raise fail("cuda.CUDAGraph", "a replay within a capture or a compiled function",
                       "Replay it outside.")
        self._entry.replay(())

    def reset(self) -> None:
        """Forgets the captured work; results keep their last values."""
        self._give_up()
        self._entry = None

    def instantiate(self) -> None:
        """Nothing to do: the first replay makes the driver's graph."""

    def pool(self) -> tuple[int, int]:
        """A token for arguments named `pool`."""
        return graph_pool_handle()

    def enable_debug_mode(self) -> None:
        """Nothing to switch on: `debug_dump` works in any case."""

    def debug_dump(self, debug_path: str | os.PathLike[str]) -> None:
        """Writes the captured work as text of the graph IR."""
        if self._entry is None:
            raise fail("cuda.CUDAGraph", "debug_dump() of a graph that was not captured")
        with open(debug_path, "w", encoding="utf-8") as file:
            file.write(f"{self._entry.graph or 'nothing'}\n")


class graph:
    """Captures the work of the block into a `CUDAGraph`.  The other arguments are accepted for
    PyTorch's sake: replays run on the stream that is current by then, in the device's memory.

    Raises TensorError where the block looks at a value, takes tensors of the CPU, or waits.
    """

    def __init__(self, cuda_graph: CUDAGraph, pool: Any = None, stream: Any = None,
                 capture_error_mode: str = "global") -> None:
        if not isinstance(cuda_graph, CUDAGraph):
            raise fail("cuda.graph", f"takes a CUDAGraph, not {type(cuda_graph).__name__}",
                       "Make one with lazygrad.cuda.CUDAGraph().", TypeError)
        self.cuda_graph = cuda_graph

    def __enter__(self) -> None:
        self.cuda_graph.capture_begin()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.cuda_graph.capture_end()
        else:
            self.cuda_graph._give_up()


def is_current_stream_capturing() -> bool:
    """Whether this thread is within `cuda.graph`."""
    return now.recording is not None and now.recording.apart


def not_in_captures(name: str) -> None:
    """For what waits: nothing runs while a graph is captured, and replays do not wait."""
    if is_current_stream_capturing():
        raise fail(name, "nothing can be waited for while a graph is captured",
                   "Wait after graph.replay().")


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


def graph_pool_handle() -> tuple[int, int]:
    """A token for arguments named `pool`, which are not needed: programs plan their memory."""
    return (0, 0)
