"""`compile`: a function recorded once for each signature, then replayed without recording.

The first call with a signature runs the function with everything that it reads held apart: each
argument and each living tensor outside stands on a leaf of its own.  What the function returns and
what it writes (parameters, optimiser state, buffers, gradients) becomes the outputs of one program;
the leaves that it reads become the inputs.  A replay looks up the leaves' present values, runs the
program, and puts the results where they belong.  Results are new tensors each time, never
overwritten.

A function is recorded anew where a guard fails: another shape, dtype or Python argument, another
grad mode, gradients that are there where there were none, a module switched between training and
evaluation.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Sequence
from typing import Any
from weakref import ref

import numpy

from lazygrad._core import cell as cells
from lazygrad._core.cell import Cell
from lazygrad._core.context import fail, now
from lazygrad._core.tensor import Tensor, raw_node, variables, wrap
from lazygrad.functional import random
from lazygrad_compiler.ir.node import Node
from lazygrad_runtime import program as programs
from lazygrad_runtime.memory import Buffer

MOST_ENTRIES = 64
"""Recordings kept for one function; past that the oldest goes."""


class Recording:
    """What a function under capture reports: state that replays must look at again.

    guards: callables that must give True for a recording to be replayed.  before: called ahead of
    each replay, to refresh tensors that mirror Python state (an optimiser's learning rate).  draws:
    leaves that hold the state of the random generator, each with the blocks that were drawn before
    it; a replay moves the generator on by `blocks` in all.
    """

    def __init__(self) -> None:
        self.guards: list[Callable[[], bool]] = []
        self.before: list[Callable[[], None]] = []
        self.draws: dict[Node, int] = {}
        self.blocks = 0
        self.first_block = 0

    def draw(self, blocks: int) -> Node:
        """The generator's state for one random call, as an input of the program."""
        leaf = cells.leaf_of_array(random.generator._state())
        self.draws[leaf] = self.blocks
        self.blocks += blocks
        return leaf

    def reserve(self) -> None:
        """Ahead of a replay: takes the numbers that it will use."""
        generator = random.generator
        with generator._lock:
            self.first_block = generator._offset
            generator._offset += self.blocks

    def drawn(self, earlier: int) -> Buffer:
        state = random.generator._state()
        state[1] = self.first_block + earlier
        return Buffer.from_numpy(state)


class _State:
    recording: Recording | None = None


state = _State()


def recording() -> Recording | None:
    """The recording under way, or None."""
    return state.recording


class NotCapturable(Exception):
    """Something in the function needs a value, or a result carries history; the function then runs
    without replay.
    """


def compile(model: Any = None, **options: Any) -> Any:
    """A function (or module) that is recorded once per signature and then replayed as one native
    program.

    model: the function or `nn.Module`; without it, a decorator.  options: accepted for PyTorch's
    sake and ignored.  Tensor arguments are told apart by shape, dtype and whether they require
    gradients, all others by value (or identity, where they have no hash). A function that looks at
    values (`.item()`, `print`) or returns tensors with autograd history runs as recorded code each
    time: right, with cached programs, but without replay.
    """
    if model is None:
        return functools.partial(compile, **options)
    return CompiledFunction(model)


class CompiledFunction:
    """See `compile`.  `.recordings`: how many signatures are kept; `.reasons`: why calls were not
    replayed, with the line.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._entries: dict[Any, list[_Entry]] = {}
        self.reasons: list[str] = []
        self._plain: set[Any] = set()

    @property
    def recordings(self) -> int:
        return sum(map(len, self._entries.values()))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._function, name)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        if state.recording is not None:
            return self._function(*arguments, **keywords)
        tensors: list[Tensor] = []
        key = _signature(arguments, tensors)
        if keywords:
            key = (key, _signature(keywords, tensors))
        key = (key, now.grad)
        for entry in self._entries.get(key, ()):
            if entry.holds():
                return entry.replay(tensors)
        if key in self._plain:
            return self._function(*arguments, **keywords)
        try:
            entry = _record(self._function, arguments, keywords, tensors)
        except NotCapturable as reason:
            self.reasons.append(str(reason))
            self._plain.add(key)
            return self._function(*arguments, **keywords)
        kept = self._entries.setdefault(key, [])
        kept.append(entry)
        while self.recordings > MOST_ENTRIES:
            oldest = next(iter(self._entries))
            del self._entries[oldest][0]
            if not self._entries[oldest]:
                del self._entries[oldest]
        return entry.replay(tensors)


def _signature(value: Any, tensors: list[Tensor]) -> Any:
    """What a recording depends on in an argument; tensors met are collected."""
    if isinstance(value, Tensor):
        tensors.append(value)
        cell, view = value._cell, value._view
        if view is None:
            return (cell.node.dtype, cell.node.shape, cell.tracked and not value._detached)
        return (cell.node.dtype, view.shape, value.requires_grad)
    kind = type(value)
    if kind is tuple or kind is list:
        return (kind, *[_signature(item, tensors) for item in value])
    if kind is dict:
        return (kind, *[(name, _signature(item, tensors)) for name, item in value.items()])
    try:
        hash(value)
    except TypeError:
        return (kind, id(value))
    return (kind, value, repr(value)) if kind is float else (kind, value)


def _replace(value: Any, replacement: Callable[[Tensor], Any]) -> Any:
    """The same nest of tuples, lists and dicts with every tensor replaced."""
    if isinstance(value, Tensor):
        return replacement(value)
    kind = type(value)
    if kind in (tuple, list):
        return kind(_replace(item, replacement) for item in value)
    if kind is dict:
        return {name: _replace(item, replacement) for name, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return kind(*[_replace(item, replacement) for item in value])
    return value


class _Entry:
    """One recording: the program, where its inputs come from, where its outputs go."""

    def __init__(
        self,
        program: programs.Program,
        sources: list[Callable[[Sequence[Tensor]], Buffer]],
        result: Any,
        outputs: list[tuple[Any, Any]],
        effects: list[Any],
        gradients: list[tuple[Any, int | None]],
        recorded: Recording,
    ) -> None:
        self.program = program
        self.sources = sources
        self.result = result
        self.outputs = outputs  # (dtype, shape) of each
        self.effects = effects  # (output number, weak reference to a cell)
        self.gradients = gradients  # (weak reference to a parameter, output number or None)
        self.guards = recorded.guards
        self.before = recorded.before

    def holds(self) -> bool:
        return all(guard() for guard in self.guards)

    def replay(self, tensors: Sequence[Tensor]) -> Any:
        for refresh in self.before:
            refresh()
        buffers = [source(tensors) for source in self.sources]
        made = self.program.run(buffers)
        leaves = [
            cells.leaf(buffer, *kind) for buffer, kind in zip(made, self.outputs, strict=True)
        ]
        for number, reference in self.effects:
            cell = reference()
            if cell is not None:
                cell.node = leaves[number]
                cell.tracked = False
                cell.cache = None
                cell.version += 1
        for reference, number in self.gradients:
            tensor = reference()
            if tensor is not None:
                tensor._grad = wrap(leaves[number]) if number is not None else None
        return self.result(leaves)


def _buffer_of(cell: Cell) -> Buffer:
    """The present value of a cell, computed if it is pending."""
    node = cells._value_node(cell.node)
    if node.payload is None:
        cells.flush(node)
        node = cells._value_node(cell.node)
    return node.payload


def _argument_buffer(tensor: Tensor) -> Buffer:
    """The present value of a tensor, row-major."""
    if tensor._view is None:
        return _buffer_of(tensor._cell)
    node = raw_node(tensor)
    if node.payload is None:
        cells.flush(node)
    return node.payload


def _settle() -> dict[Node, Cell]:
    """Every living cell on a leaf of its own, so that a leaf tells which tensor was read."""
    cells.flush()
    owners: dict[Node, Cell] = {}
    for cell in [thing for thing in gc.get_objects() if type(thing) is Cell]:
        node = getattr(cell, "node", None)
        if node is None or cells.is_freed(node):
            continue
        if node.op == "const":
            payload = Buffer.from_numpy(numpy.full(node.shape, node.attrs[0], node.dtype.numpy))
        elif node.payload is not None and node in owners:
            payload = node.payload
        else:
            if node.payload is not None:
                owners[node] = cell
            continue
        cell.node = cells.leaf(payload, node.dtype, node.shape)
        cell.cache = None
        owners[cell.node] = cell
    return owners


def _record(
    function: Callable[..., Any], arguments: Any, keywords: Any, tensors: Sequence[Tensor]
) -> _Entry:
    """Runs the function once and makes an entry of what it recorded."""
    if any(tensor.requires_grad for tensor in tensors) and now.grad:
        raise NotCapturable("an argument requires gradients")
    owners = _settle()
    stand_ins: dict[int, Tensor] = {}
    positions: dict[Node, int] = {}
    for position, tensor in enumerate(tensors):
        if id(tensor) not in stand_ins:
            leaf = cells.leaf(
                _argument_buffer(tensor), tensor._cell.node.dtype, tuple(tensor.shape)
            )
            positions[leaf] = position
            stand_ins[id(tensor)] = wrap(leaf)
    recorded = Recording()
    gradients_before = {uid: tensor._grad for uid, tensor in list(variables.items())}
    written: dict[int, Cell] = {}

    def on_write(cell: Cell, node: Node, tracked: bool) -> None:
        written[id(cell)] = cell

    def on_observation(line: str) -> None:
        raise NotCapturable(f"a value is needed while the function is recorded, at {line}")

    state.recording = recorded
    random.draw_callback = recorded.draw
    cells.written_callbacks.append(on_write)
    cells.observation_callbacks.append(on_observation)
    saved = {id(cell): (cell, cell.node, cell.tracked, cell.version) for cell in owners.values()}
    try:
        result = function(
            *_replace(arguments, lambda t: stand_ins[id(t)]),
            **_replace(keywords, lambda t: stand_ins[id(t)]),
        )
        returned: list[Tensor] = []
        _replace(result, lambda t: returned.append(t))
        if now.grad and any(
            tensor.requires_grad and not tensor.is_leaf and not cells.is_freed(tensor._cell.node)
            for tensor in returned
        ):
            raise NotCapturable("a result carries autograd history")
    except BaseException:
        for cell, node, tracked, version in saved.values():
            cell.node, cell.tracked, cell.version, cell.cache = node, tracked, version, None
        for uid, tensor in list(variables.items()):
            if uid in gradients_before:
                tensor._grad = gradients_before[uid]
        raise
    finally:
        state.recording = None
        random.draw_callback = None
        cells.written_callbacks.remove(on_write)
        cells.observation_callbacks.remove(on_observation)
    return _entry(result, returned, written, owners, positions, gradients_before, recorded, saved)


def _entry(
    result: Any,
    returned: list[Tensor],
    written: dict[int, Cell],
    owners: dict[Node, Cell],
    positions: dict[Node, int],
    gradients_before: dict[int, Tensor | None],
    recorded: Recording,
    saved: dict[int, tuple[Cell, Node, bool, int]],
) -> _Entry:
    outputs: list[Node] = []
    number_of: dict[Node, int] = {}

    def number(node: Node) -> int:
        if node not in number_of:
            number_of[node] = len(outputs)
            outputs.append(node)
        return number_of[node]

    result_numbers = [number(cells._value_node(raw_node(tensor))) for tensor in returned]
    gradients: list[tuple[Any, int | None]] = []
    gradient_cells: set[int] = set()
    for uid, tensor in list(variables.items()):
        before, after = gradients_before.get(uid), tensor._grad
        if after is not before:
            gradients.append((ref(tensor), number(raw_node(after)) if after is not None else None))
            if after is not None:
                gradient_cells.add(id(after._cell))
            recorded.guards.append(_gradient_guard(ref(tensor), before is None))
    effects = []
    touched = dict(written)
    for cell in (reference() for reference in list(cells._pending)):
        if cell is not None:
            touched[id(cell)] = cell
    temporary = {id(tensor._cell) for tensor in returned} - set(saved)
    for identity, cell in touched.items():
        if identity not in temporary and identity not in gradient_cells:
            node = cells._value_node(cell.node)
            if node.op == "const" and identity not in saved:
                continue
            effects.append((number(node), ref(cell)))
    gradient_of = {
        id(g._cell): ref(variables[uid])
        for uid, g in gradients_before.items()
        if g is not None and uid in variables
    }
    program, leaves = programs.program_for(outputs)
    sources = [_source(leaf, owners, positions, recorded, gradient_of) for leaf in leaves]
    if recorded.draws:
        recorded.before.append(recorded.reserve)
    kinds = [(node.dtype, node.shape) for node in outputs]
    template = iter(result_numbers)
    shaped = _replace(result, lambda t: _Slot(next(template)))
    # the call itself is the first replay: state goes back to what it was before recording
    for cell, node, tracked, version in saved.values():
        if id(cell) in written:
            cell.node, cell.tracked, cell.version, cell.cache = node, tracked, version, None
    for uid, tensor in list(variables.items()):
        if uid in gradients_before:
            tensor._grad = gradients_before[uid]
    return _Entry(program, sources, _builder(shaped), kinds, effects, gradients, recorded)


class _Slot:
    """Where a result's tensor goes, by output number."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


def _builder(shaped: Any) -> Callable[[list[Node]], Any]:
    """Makes a function from output leaves to the result's nest."""
    if isinstance(shaped, _Slot):
        position = shaped.number
        return lambda leaves: wrap(leaves[position])
    if type(shaped) in (tuple, list):
        kind, parts = type(shaped), [_builder(item) for item in shaped]
        return lambda leaves: kind(part(leaves) for part in parts)
    if type(shaped) is dict:
        named = {name: _builder(item) for name, item in shaped.items()}
        return lambda leaves: {name: part(leaves) for name, part in named.items()}
    if isinstance(shaped, tuple) and hasattr(shaped, "_fields"):
        kind, parts = type(shaped), [_builder(item) for item in shaped]
        return lambda leaves: kind(*[part(leaves) for part in parts])
    return lambda leaves: shaped


def _gradient_guard(reference: Any, absent: bool) -> Callable[[], bool]:
    def holds() -> bool:
        tensor = reference()
        return tensor is None or (tensor._grad is None) == absent

    return holds


def _source(
    leaf: Node,
    owners: dict[Node, Cell],
    positions: dict[Node, int],
    recorded: Recording,
    gradient_of: dict[int, Any],
) -> Callable[[Sequence[Tensor]], Buffer]:
    """How a replay finds an input of the program."""
    if leaf in positions:
        position = positions[leaf]
        return lambda tensors: _argument_buffer(tensors[position])
    if leaf in recorded.draws:
        earlier = recorded.draws[leaf]
        return lambda tensors: recorded.drawn(earlier)
    cell = owners.get(leaf)
    if cell is not None and id(cell) in gradient_of:
        owner = gradient_of[id(cell)]
        return lambda tensors: _argument_buffer(owner()._grad)
    if cell is not None:
        return lambda tensors: _buffer_of(cell)
    payload = leaf.payload
    return lambda tensors: payload


__all__ = ["CompiledFunction", "NotCapturable", "Recording", "compile", "fail", "recording"]
