"""Storage cells, views on them, and the flush that computes what is pending.

A cell holds the current value of one base tensor: an immutable node.  A view is a list of movement
steps on the cell's value; it is read by applying them and written by undoing them, so that all
aliases of a cell see every write while the graph stays functional.

Cells with uncomputed values are registered weakly.  `flush` computes all that are still alive in
one program.  Values without autograd history then become fresh leaves, which frees their graph.
"""

from __future__ import annotations

import ctypes
import itertools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet, ref

import numpy

from lazygrad._core import graph
from lazygrad._core.context import TensorError, here, now
from lazygrad._core.native_record import PENDING_CHECKED
from lazygrad._core.recast import RECAST, recast
from lazygrad_compiler import forks
from lazygrad_compiler.ir import node as nodes
from lazygrad_compiler.ir.dtypes import DType, dtype_of_numpy
from lazygrad_compiler.ir.node import (
    Graph,
    IRError,
    Location,
    Node,
    Shape,
    build,
    fresh_input,
)
from lazygrad_compiler.ir.ops import OPS
from lazygrad_runtime import program
from lazygrad_runtime.memory import Buffer, allocate

if TYPE_CHECKING:
    from lazygrad_runtime.cuda.memory import DeviceBuffer

FREED = 0
"""The uid of the marker that stands where released history was."""

MOST_PENDING_NODES = 5000
MOST_PENDING_BYTES = 4 << 30

_VARIABLE = OPS["variable"]
_STOP = OPS["stop_gradient"]
_SLICE = OPS["slice"]

_PLACES = 5
"""Slices of one length that are parts of programs; further ones are inputs of one program."""


class View:
    """How a handle sees its cell: steps (definition, attrs, location), and its leaf marker.

    uid, depth: the variable marker is put after `depth` steps (uid None: there is none).
    dtype: what the bits are read as, where that is not the cell's dtype.
    """

    __slots__ = ("depth", "dtype", "shape", "steps", "strides", "uid")

    def __init__(self, steps: tuple, shape: Shape, strides: tuple[int, ...] | None,
                 uid: int | None = None, depth: int = 0, dtype: DType | None = None) -> None:
        self.steps = steps
        self.shape = shape
        self.strides = strides
        self.uid = uid
        self.depth = depth
        self.dtype = dtype

    def unmarked(self) -> View | None:
        """The same view without the leaf marker; None where that is the whole cell."""
        if not self.steps:
            return None
        return View(self.steps, self.shape, self.strides, dtype=self.dtype)


class Cell:
    """The current value of a base tensor.

    node: the value.  tracked: whether its history counts for autograd.  cache: nodes of views.
    """

    __slots__ = ("__weakref__", "cache", "node", "places", "settled", "tracked", "version")

    node: Node
    tracked: bool
    cache: dict[View, Node] | None
    version: int
    places: dict[int, set[int]] | None
    """Number of rows -> where slices of so many rows began."""
    settled: tuple[Node, bool] | None  # node and tracked before writes still pending

    def read(self, view: View) -> Node:
        """The value seen through a view, with the leaf marker where the view has one."""
        cache = self.cache
        if cache is None:
            cache = self.cache = {}
        found = cache.get(view)
        if found is None:
            found = cache[view] = self._apply(view)
        return found

    def _apply(self, view: View) -> Node:
        node, uid, depth = self.node, view.uid, view.depth
        position = 0
        for definition, attrs, location in view.steps:
            if uid is not None and position == depth:
                node = mark(node, uid)
            if definition is RECAST:
                node = recast(node, attrs[0])
                position += 1
                continue
            rows = None if node.payload is None or definition is not _SLICE \
                else self._moving_rows(node, attrs)
            node = build(definition, (node,), attrs, location) if rows is None else rows
            position += 1
        if uid is not None and position == depth:
            node = mark(node, uid)
        return node

    def _moving_rows(self, node: Node, attrs: tuple) -> Node | None:
        """Rows of a value that is there, if they are read again and again at other places.

        A slice is part of the program, so a loop over `data[i:i + 64]` would compile one for each
        `i`.  From the fifth place on the rows are gathered by an index that is an input.
        """
        starts, stops, steps = attrs
        count = stops[0] - starts[0] if starts else 0
        if count <= 0 or count == node.shape[0] or steps[0] != 1 \
                or now.recording is not None or now.traced is not None:
            return None
        if self.places is None:
            self.places = {}
        seen = self.places.setdefault(count, set())
        if len(seen) < _PLACES:
            seen.add(starts[0])
            if len(seen) < _PLACES:
                return None
        index = leaf_of_array(numpy.arange(starts[0], stops[0]))
        rows = graph.make("gather", node, index, attrs=((0,),))
        if all(stop - start == size for start, stop, size
               in zip(starts[1:], stops[1:], node.shape[1:], strict=True)) \
                and all(step == 1 for step in steps[1:]):
            return rows
        return build(_SLICE, (rows,), ((0, *starts[1:]), (count, *stops[1:]), steps), now.location)

    def set(self, node: Node, tracked: bool) -> None:
        """Replaces the value: an in-place write."""
        if _same_memory:
            self._tell_others(node)
        self._put(node, tracked)

    def _tell_others(self, node: Node) -> None:
        """Other cells of the same memory get the value, and keep what history they have."""
        others = [each for each in _same_memory.get(self, ()) if each is not self]
        if not others:
            _same_memory.pop(self, None)
        for other in others:
            if other.tracked:
                from lazygrad._core.engine import with_history
                other._put(with_history(node, other.node), True)
            else:
                other._put(graph.stop_gradient(node), False)

    def _put(self, node: Node, tracked: bool) -> None:
        for callback in written_callbacks:
            callback(self, node, tracked)
        if self.node.payload is not None or self.node.op == "const":
            self.settled = (self.node, self.tracked)
        self.node = node
        self.tracked = tracked
        self.cache = None
        self.version += 1
        register(self)

    def base_for_write(self) -> Node:
        """The current value, cut off from history that does not count."""
        return self.node if self.tracked else graph.stop_gradient(self.node)


_new = object.__new__

_same_memory: WeakKeyDictionary[Cell, WeakSet[Cell]] = WeakKeyDictionary()
"""Cells whose values are one memory, but whose histories differ."""


def cell_of(node: Node, tracked: bool = False) -> Cell:
    """A cell that holds a value.  (Faster than a constructor would be.)"""
    made = _new(Cell)
    made.node = node
    made.tracked = tracked
    made.cache = made.places = made.settled = None
    made.version = 0
    return made


def second_cell(cell: Cell) -> Cell:
    """Another cell of the same memory, without history: for a handle that is to get its own."""
    made = cell_of(graph.stop_gradient(cell.node))
    register(made)
    group = _same_memory.setdefault(cell, WeakSet((cell,)))
    group.add(made)
    _same_memory[made] = group
    return made


written_callbacks: list[Callable[[Cell, Node, bool], None]] = []
"""Called before a cell is written, as callback(cell, new_node, tracked): `compile` listens here."""

observation_callbacks: list[Callable[[str], None]] = []
"""Called with the user's line before values are computed: `compile` refuses or splits here."""

_lock = forks.rlock(forks.CELLS)
"""Taken by `alone`."""

computing = ctypes.c_int64()
"""Whether a thread is within `alone`: what native code looks at."""

_pending: list[Any] = []
_with_history: list[Any] = []


_SAMPLED = 32
"""Of so many flushes of one operation the last has native code do the same one from then on."""

flush_natively: Callable[[tuple[Node, ...]], bool] | None = None
"""Native code that computes one pending operation, if that is all there is (`native_flush`); put
there by `_core.plans`.
"""

_alone = itertools.count(1)
"""Numbers flushes of one operation."""

_MANY_FLUSHES = 64
"""After so many in Python a process has its blocks taken and its composites applied natively."""

_flushes = itertools.count(1)


def mark(node: Node, uid: int) -> Node:
    """The node as a variable that gradients can be asked for; gradients go no further."""
    if node.differentiable:
        node = build(_STOP, (node,), (), now.location or here())
    return build(_VARIABLE, (node,), (uid,), now.location or here())


def register(cell: Cell) -> None:
    """Notes a cell that has no value yet; flushes where too much is pending."""
    if now.traced is not None:
        now.traced.register(cell)
        return
    if observation_callbacks and now.recording is not None:
        now.recording.made.append(ref(cell))
        if now.recording.apart:
            return
    if cell.node.payload is None:
        _pending.append(ref(cell))
        if not len(_pending) % PENDING_CHECKED:
            _bound()
    elif cell.tracked:
        _with_history.append(ref(cell))


def _bound() -> None:
    """Flushes when too many nodes or bytes are pending."""
    if now.recording is not None:
        return
    if len(_pending) < MOST_PENDING_NODES:
        nodes = {cell.node for cell in map(_alive, _pending) if cell is not None}
        if sum(node.nbytes for node in nodes if node.op != "const") < MOST_PENDING_BYTES:
            return
    flush()


def _alive(reference: Any) -> Cell | None:
    return reference()


def live_cells() -> list[Cell]:
    """All living cells that are pending or have history."""
    found = {id(cell): cell for reference in (*_pending, *_with_history)
             if (cell := reference()) is not None}
    return list(found.values())


def leaf(
    payload: Buffer | DeviceBuffer, dtype: Any, shape: Shape, location: Location = ()
) -> Node:
    """A node for a value that is there, by default from the present line."""
    node = fresh_input(dtype, shape, location or now.location or here())
    node.payload = payload
    if nodes.placing and payload.device is not None:
        node.device = payload.device.label
    return node


def leaf_of_array(array: numpy.ndarray) -> Node:
    """A leaf over a C-contiguous array, without a copy."""
    return leaf(Buffer.from_numpy(array), dtype_of_numpy(array.dtype), array.shape)


def is_freed(node: Node) -> bool:
    return node.op == "variable" and node.attrs[0] == FREED


def _observe() -> None:
    for callback in observation_callbacks:
        callback("{}:{}".format(*(now.location or here())[0]))


def alone(action: Callable[..., Any], *arguments: Any) -> Any:
    """Calls it while no other thread computes."""
    outermost = not _lock._is_owned()
    with _lock:
        computing.value = 1
        try:
            return action(*arguments)
        finally:
            if outermost:
                computing.value = 0


def _computing_in_child() -> None:
    """Another thread of the parent may have been; it does not exist in the child."""
    if not _lock._is_owned():
        computing.value = 0


forks.in_child(_computing_in_child)

_COMPUTING_ERRORS = (*program.FAILURES, TensorError)


def _execute(outputs: list[Node], differentiable: list[Node]) -> None:
    """Runs the program of the outputs.  What the compiler cannot lower is the user's error, too: a
    node that it needs in between has, say, more elements than memory can hold.
    """
    try:
        program.execute(outputs, differentiable)
    except IRError as error:
        file, number = (outputs[0].location or now.location or here())[0]
        raise TensorError(f"{error}, in what was recorded at {os.path.basename(file)}:{number}. "
                          "Use smaller sizes.") from error


def flush(*required: Node) -> None:
    """Computes every live pending tensor, and the required nodes, in one program."""
    if flush_natively is not None and flush_natively(required):
        return
    if now.traced is not None:
        if required:
            now.traced.observed(required)
        return
    if observation_callbacks:
        _observe()
    alone(_flush, required)


def _flush(required: tuple[Node, ...]) -> None:
    wanted: dict[Node, None] = {}
    cells: dict[Cell, None] = {}
    tracked: list[Node] = []
    for reference in _pending:
        cell = reference()
        if cell is not None and cell not in cells:
            node = cell.node
            if node.payload is None and node.op != "const":
                cells[cell] = None
                wanted[_value_node(node)] = None
                if cell.tracked and _has_history(node):
                    tracked.append(node)
    for node in required:
        wanted[node] = None
    outputs = [node for node in wanted if node.payload is None]
    waiting = list(cells)
    _pending.clear()
    try:
        if outputs:
            _execute(outputs, tracked)
    except _COMPUTING_ERRORS:
        _recover(waiting)
        if not required:
            raise
        _execute(list(required), [])
    else:
        if len(waiting) == len(outputs) == 1 and not tracked and not next(_alone) % _SAMPLED:
            from lazygrad._core.plans import remember_single
            remember_single(outputs[0])
        _release(waiting)
        if next(_flushes) == _MANY_FLUSHES:
            from lazygrad._core.plans import native_functions
            native_functions()
    if len(_with_history) > 4096:
        _with_history[:] = [reference for reference in _with_history if reference() is not None]


def _has_history(node: Node) -> bool:
    """Whether a tracked value may be differentiated later."""
    return node.differentiable and not is_freed(node)


def _recover(cells: list[Cell]) -> None:
    """After a joint program failed: what can be computed by itself is.

    What cannot is pending no more: a tensor that was written in place goes back to its last known
    value (a failed step leaves the parameters as they were), any other raises again when looked at.
    """
    good = []
    for cell in cells:
        try:
            node = cell.node
            _execute([_value_node(node)],
                     [node] if cell.tracked and _has_history(node) else [])
            good.append(cell)
        except _COMPUTING_ERRORS:
            if cell.settled is not None:
                cell.node, cell.tracked = cell.settled
                cell.settled, cell.cache = None, None
                cell.version += 1
    _release(good)


def _value_node(node: Node) -> Node:
    return node.inputs[0] if is_freed(node) else node


def _release(cells: list[Cell]) -> None:
    """Turns values without history into leaves, so that their graph is freed."""
    fresh: dict[Node, Node] = {}
    for cell in cells:
        cell.settled = None
        value = _value_node(cell.node)
        freed = value is not cell.node
        if cell.tracked and not freed:
            _with_history.append(ref(cell))
            continue
        if value.op != "input":
            node = fresh.get(value)
            if node is None:
                node = fresh[value] = leaf(value.payload, value.dtype, value.shape, value.location)
            value = node
        cell.node = build(_VARIABLE, (value,), (FREED,), value.location) if freed else value
        cell.cache = None


def hold_as_data(cell: Cell) -> None:
    """Puts a constant value into memory.

    A constant is folded into the programs that read it.  State that starts as one (running
    statistics, a bias of zeros) would make the first training step a program of its own.
    """
    node = cell.node
    if node.op == "transfer" and node.inputs[0].op == "const":
        from lazygrad._core.placement import constant_buffer
        cell.node = leaf(constant_buffer(node), node.dtype, node.shape)
        cell.cache = None
    if node.op == "const":
        filled = numpy.full(node.shape, node.attrs[0], node.dtype.numpy)
        cell.node = leaf(Buffer.from_numpy(filled), node.dtype, node.shape)
        cell.cache = None


def computed(node: Node) -> Buffer:
    """The value of a node, computed if need be, with everything else that is pending."""
    node = _value_node(node)
    if node.payload is None:
        flush(node)
    return node.payload


def values(node: Node) -> numpy.ndarray:
    """The same as an array."""
    return computed(node).as_numpy(node.dtype.numpy, node.shape)


def _filled(node: Node) -> numpy.ndarray:
    """The array of a constant."""
    try:
        array = allocate(node.nbytes).as_numpy(node.dtype.numpy, node.shape)
    except MemoryError as error:
        raise program.out_of_memory(error, Graph((node,))) from None
    array[...] = node.attrs[0]
    return array


def cell_values(cell: Cell) -> numpy.ndarray:
    """The array of a cell's value.  A constant is not remembered: it stays foldable."""
    node = cell.node
    if node.op == "const":
        return _filled(node)
    if observation_callbacks:
        _observe()
    return values(node)
