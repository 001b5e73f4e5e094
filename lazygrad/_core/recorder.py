"""Recording a function: from what it reads, writes and gives back to an `Entry` that replays it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any
from weakref import ref

import numpy

from lazygrad._core import cell as cells
from lazygrad._core import replay
from lazygrad._core.cell import Cell
from lazygrad._core.context import now
from lazygrad._core.guards import NotCapturable, Recording, watch_function
from lazygrad._core.nests import replace, tensors_in
from lazygrad._core.replay import Argument, ArgumentView, Entry, Output, Same, Source, Target
from lazygrad._core.tensor import Tensor, raw_node, variables, wrap
from lazygrad_compiler.ir.node import Graph, Node
from lazygrad_runtime import program as programs


def _settle() -> tuple[dict[Node, Cell], set[Node]]:
    """Every living cell on a leaf of its own, so that a leaf tells which tensor was read.

    Also given: values with history that several cells share, which cannot be told apart.
    """
    cells.flush()
    owners: dict[Node, Cell] = {}
    shared: set[Node] = set()
    for cell in [thing for thing in gc.get_objects() if type(thing) is Cell]:
        if not hasattr(cell, "node"):  # another thread has just begun to make it
            continue
        node = cells._value_node(cell.node)
        if node.op != "const" and node.payload is None:
            continue
        if node.op != "const" and node not in owners:
            owners[node] = cell
            continue
        if node.differentiable:
            shared.add(node)
            continue
        own = cells.leaf(replay.payload(node), node.dtype, node.shape)
        cell.node = cells.mark(own, cells.FREED) if cells.is_freed(cell.node) else own
        cell.cache = None
        owners[own] = cell
    return owners, shared


class _Saved:
    """The state of a cell, to go back to."""

    __slots__ = ("node", "reference", "tracked", "version")

    def __init__(self, cell: Cell) -> None:
        self.reference = ref(cell)
        self.node, self.tracked, self.version = cell.node, cell.tracked, cell.version

    def restore(self) -> None:
        cell = self.reference()
        if cell is not None:
            cell.node, cell.tracked, cell.version = self.node, self.tracked, self.version
            cell.cache = cell.settled = None


def record(
    function: Callable[..., Any], arguments: Any, keywords: Any, tensors: Sequence[Tensor]
) -> Entry:
    """Runs the function once and makes an entry of what it recorded."""
    if now.grad and any(tensor.requires_grad for tensor in tensors):
        raise NotCapturable("an argument requires gradients")

    def entry() -> Entry:
        # Garbage that the function makes stays among the youngest objects, where the one
        # collection at the end finds it in milliseconds; a whole one walks over all that the
        # process holds.
        with programs.no_collections():
            return Recorder(tensors).run(function, arguments, keywords)

    return cells.alone(entry)


class Recorder:
    """The state outside before a recording, and what happens to it meanwhile."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tensors
        self.recorded = Recording()
        self.owners, self.shared = _settle()
        self.outside = {id(cell): cell for cell in self.owners.values()}
        self.written: dict[int, _Saved] = {}
        self.stand_ins: dict[int, Tensor] = {}
        self.positions: dict[Node, int] = {}
        self.position_of: dict[int, int] = {}
        self.position_of_cell: dict[int, int] = {}
        for position, tensor in enumerate(tensors):
            if id(tensor) not in self.stand_ins:
                leaf = cells.leaf(
                    replay.argument_buffer(tensor), tensor.dtype, tuple(tensor.shape)
                )
                self.positions[leaf] = position
                stand_in = self.stand_ins[id(tensor)] = wrap(leaf)
                self.position_of[id(stand_in)] = position
                self.position_of_cell[id(stand_in._cell)] = position
        self.gradients = {uid: tensor._grad for uid, tensor in list(variables.items())}
        self.gradient_owner = {
            id(gradient._cell): ref(variables[uid])
            for uid, gradient in self.gradients.items() if gradient is not None
        }
        self.begin = cells.leaf_of_array(numpy.zeros(1)).serial
        self.outputs: list[Node] = []
        self.number_of: dict[Node, int] = {}
        self.gradients_matter = False

    def begin_listening(self) -> None:
        now.recording = self.recorded
        cells.written_callbacks.append(self.on_write)
        cells.observation_callbacks.append(self.on_observation)

    def restore(self) -> None:
        """Ends the recording, with the state outside as it was before."""
        now.recording = None
        cells.written_callbacks.remove(self.on_write)
        cells.observation_callbacks.remove(self.on_observation)
        for saved in self.written.values():
            saved.restore()
        for uid, gradient in self.gradients.items():
            tensor = variables.get(uid)
            if tensor is not None:
                tensor._grad = gradient

    def run(self, function: Callable[..., Any], arguments: Any, keywords: Any) -> Entry:
        recorded, stand_ins = self.recorded, self.stand_ins
        watch_function(function, recorded)
        for value in (*arguments, *keywords.values()):
            if hasattr(value, "__dict__") and not isinstance(value, (Tensor, type)) \
                    and not callable(value):
                recorded.watch(value)
        self.begin_listening()
        try:
            result = function(
                *replace(list(arguments), lambda tensor: stand_ins[id(tensor)]),
                **replace(keywords, lambda tensor: stand_ins[id(tensor)]),
            )
            now.recording = None
            return self.entry(result)
        finally:
            self.restore()

    def on_write(self, cell: Cell, node: Node, tracked: bool) -> None:
        if now.recording is not self.recorded:
            return
        have = self.written.get(id(cell))
        if have is None or have.reference() is not cell:
            self.written[id(cell)] = _Saved(cell)

    def on_observation(self, where: str) -> None:
        if now.recording is self.recorded:
            raise NotCapturable(f"a value is needed while the function is recorded, at {where}")

    # ---- from what happened to an entry

    def number(self, node: Node) -> int:
        node = cells._value_node(node)
        if node not in self.number_of:
            self.number_of[node] = len(self.outputs)
            self.outputs.append(node)
        return self.number_of[node]

    def entry(self, result: Any) -> Entry:
        recorded = self.recorded
        returned = list(tensors_in(result))
        if now.grad and any(
            tensor.requires_grad and not tensor.is_leaf and not cells.is_freed(tensor._cell.node)
            for tensor in returned
        ):
            raise NotCapturable("a result carries autograd history")
        build = replay.builder(replace(result, self._slot))
        effects = self._gradient_effects()
        temporary = {id(tensor._cell) for tensor in returned} - set(self.outside) - set(
            self.position_of_cell)  # an argument that was written is, also where it is returned
        effects += self._cell_effects(temporary)
        program, graph, leaves = self._program()
        sources = [self._source(leaf) for leaf in leaves]
        touched = {id(self.owners[leaf]): self.owners[leaf] for leaf in leaves
                   if leaf in self.owners}
        outside_written = {identity: self.outside[identity] for identity in self.written
                           if identity in self.outside}
        touched.update(outside_written)
        writes_arguments = any(identity in self.position_of_cell for identity in self.written)
        conflicting = touched if writes_arguments else outside_written
        cells_of_arguments = [id(tensor._cell) for tensor in self.tensors]
        if any(identity in conflicting for identity in cells_of_arguments) or (
                writes_arguments and len(set(cells_of_arguments)) < len(self.stand_ins)):
            raise NotCapturable("a tensor is changed in place while an argument is a view of it")
        recorded.guards.append(self._handle_guard(set(touched)))
        if recorded.blocks:
            recorded.before.append(recorded.reserve)
        return Entry(program, graph, sources, build, self._kinds(), effects, recorded,
                     conflicting.values())

    def _program(self) -> tuple[programs.Program | None, Graph | None, list[Node]]:
        """The program of the outputs, its graph, and the leaves that it reads."""
        if not self.outputs:
            return None, None, []
        program, leaves = programs.program_for(self.outputs)
        return program, programs.pending_graph(self.outputs)[0], leaves

    def _kinds(self) -> list[tuple[Any, Any, Any]]:
        return [(node.dtype, node.shape, node.location) for node in self.outputs]

    def _slot(self, tensor: Tensor) -> Any:
        """Where a result comes from: an argument, a tensor outside, or an output."""
        if id(tensor) in self.position_of:
            return Argument(self.position_of[id(tensor)])
        if id(tensor._cell) in self.position_of_cell:
            return ArgumentView(self.position_of_cell[id(tensor._cell)], tensor._view)
        if id(tensor._cell) in self.outside:
            return Same(tensor)
        return Output(self.number(raw_node(tensor)), id(tensor))

    def _gradient_effects(self) -> list[tuple[int, Target]]:
        effects: list[tuple[int, Target]] = []
        for uid, tensor in list(variables.items()):
            before, after = self.gradients.get(uid), tensor._grad
            if after is not before:
                self.recorded.parameters.append(tensor)
                if after is None:
                    self.recorded.after.append(replay.drop_gradient(ref(tensor)))
                else:
                    effects.append((self.number(raw_node(after)), replay.new_gradient(ref(tensor))))
        return effects

    def _cell_effects(self, temporary: set[int]) -> list[tuple[int, Target]]:
        """What becomes of the cells outside that were written, and of those made that live on."""
        gc.collect(0)
        fresh_gradients = {
            id(tensor._grad._cell) for uid, tensor in list(variables.items())
            if tensor._grad is not None and tensor._grad is not self.gradients.get(uid)
        }
        references = [saved.reference for saved in self.written.values()] + self.recorded.made
        candidates = {id(cell): cell for reference in references
                      if (cell := reference()) is not None}
        effects: list[tuple[int, Target]] = []
        for identity, cell in candidates.items():
            if identity in temporary or identity in fresh_gradients:
                continue
            if cell.tracked and cell.node.differentiable and not cells.is_freed(cell.node):
                raise NotCapturable("a tensor outside is left with autograd history")
            target: Target = replay.SetCell(ref(cell))
            if identity in self.position_of_cell:
                if identity not in self.written:
                    continue
                target = replay.set_argument(self.position_of_cell[identity])
            elif identity in self.gradient_owner:
                self.gradients_matter = True
                target = replay.set_gradient(self.gradient_owner[identity])
            elif identity not in self.outside and not self._adopt(cell):
                continue
            effects.append((self.number(cell.node), target))
        for tensor in self.recorded.mirrors.values():
            self.owners[tensor._cell.node] = tensor._cell
        return effects

    def _adopt(self, cell: Cell) -> bool:
        """State made by the function (an optimiser's moments): later replays read it.

        Given back: whether replays write it.
        """
        saved = self.written.get(id(cell))
        first = cell.node if saved is None else saved.node
        if first.payload is not None:
            self.owners[first] = cell
        elif first.op == "const" and saved is not None:
            # Made as zeros and written at once: replays would start from zeros again.
            self.recorded.guards.append(lambda: False)
        return saved is not None or cell.node.payload is None

    def _source(self, leaf: Node) -> Source:
        """How a replay finds an input of the program."""
        if leaf in self.positions:
            position = self.positions[leaf]
            return replay.ArgumentSource(position)
        if leaf in self.recorded.draws:
            generator, earlier = self.recorded.draws[leaf]
            recorded = self.recorded
            return lambda tensors: recorded.drawn(generator, earlier)
        if leaf in self.shared:
            raise NotCapturable("two tensors outside share one value with autograd history")
        cell = self.owners.get(leaf)
        if cell is not None and id(cell) in self.gradient_owner:
            owner: Any = self.gradient_owner[id(cell)]
            self.gradients_matter = True
            return lambda tensors: replay.argument_buffer(owner()._grad)
        if cell is not None:
            return cell
        if leaf.serial < self.begin:
            raise NotCapturable("the function goes on from autograd history outside")
        return replay.KnownSource(leaf.payload)

    def _handle_guard(self, touched: set[int]) -> Callable[[], bool]:
        """Leaves read or written must stand for the same cells; where gradients matter, they must
        be there, or absent, as they were.
        """
        concerned = {id(tensor): tensor for tensor in variables.values()
                     if id(tensor._cell) in touched}
        if self.recorded.parameters:
            self.gradients_matter = True
            concerned.update({id(tensor): tensor for tensor in self.recorded.parameters})
        before = {id(variables[uid]): gradient for uid, gradient in self.gradients.items()
                  if uid in variables}
        expected = [(ref(tensor), tensor._cell, before.get(identity) is None)
                    for identity, tensor in concerned.items()]
        check_gradients = self.gradients_matter

        def holds() -> bool:
            for reference, cell, absent in expected:
                tensor = reference()
                if tensor is not None and (
                    tensor._cell is not cell
                    or (check_gradients and (tensor._grad is None) is not absent)
                ):
                    return False
            return True

        def changed() -> str:
            """What does not hold any more, for people."""
            for reference, cell, absent in expected:
                tensor = reference()
                if tensor is not None:
                    if tensor._cell is not cell:
                        return f"a tensor of shape {list(tensor.shape)} was replaced"
                    if check_gradients and (tensor._grad is None) is not absent:
                        state = "absent -> there" if absent else "there -> absent"
                        return f"the gradient of a tensor of shape {list(tensor.shape)}: {state}"
            return "a tensor outside"

        holds.changed = changed  # type: ignore[attr-defined]
        holds.checks = [("leaf", *each, check_gradients) for each in expected]  # type: ignore
        return holds
