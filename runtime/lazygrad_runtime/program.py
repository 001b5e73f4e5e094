"""Programs: compiled graphs that run, and the flush that turns pending nodes into values.

`execute(nodes)` is the whole way from recorded nodes to values:
  find the pending graph and its leaves -> its structural key -> a program (from memory, from disk,
  or compiled) -> one native call.
A `Program` owns the loaded code; a run allocates the outputs and the arena, fills a table of
addresses and calls the entry.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from lazygrad_compiler import forks
from lazygrad_compiler.artifact import Artifact, canonical_graph, pruned
from lazygrad_compiler.ir import node as nodes
from lazygrad_compiler.ir.composite import unfold
from lazygrad_compiler.ir.loop import Loop, siblings
from lazygrad_compiler.ir.node import Graph, Location, Named, Node, device_of
from lazygrad_compiler.ir.ops import OPS
from lazygrad_compiler.ir.requirements import broken_by
from lazygrad_runtime import library_calls, recordings, store
from lazygrad_runtime.library_calls import LibraryCaller, LibraryError, LinAlgError
from lazygrad_runtime.loader import load_object
from lazygrad_runtime.memory import Buffer, allocate, list_for
from lazygrad_runtime.pool import MINIMUM_SCRATCH, get_pool, prepare

if TYPE_CHECKING:
    from lazygrad_compiler.loops.kernel import Launch

_Entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
ERROR_WORDS = 8
LIBRARY_UNDER_WAY = -1
"""In the error block after a run: a library call began and did not end well."""

SIGN_TAKEN_OFF = 2**63 - 2**61
"""From here on an index was negative where that is out of range: its sign bit was cleared."""


class RequirementBroken(RuntimeError, ValueError):
    """A value is none that the operation takes; see `ir/requirements.py`."""


FAILURES = (IndexError, MemoryError, LinAlgError, RequirementBroken)
"""What a program may raise because of its values; the state is usable afterwards."""

LARGEST_KEPT_ARENA = 1 << 18
"""Bytes.  A small arena stays with its program, since asking for one costs as much as a kernel."""

LARGEST_KEPT_CODE = 1 << 28
"""Bytes of machine code, about, that programs in memory may hold before the ones that were not
asked for longest go; the disk cache has them still.  So a script whose shapes never repeat grows
no further.
"""

run_callbacks: list[Callable[[Any], None]] = []
"""Called with each program just before it runs."""


class Program:
    """A compiled graph, loaded and ready to run.  places: the devices of the inputs, where the
    graph was compiled for several (`placed.py`).  found_long: how often the flush of one operation
    was looked at since the program was found too long for native code to run (`remember_single`).
    """

    places: Sequence[str | None] | None = None
    found_long = 0

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.input_count = artifact.inputs
        self._sizes = []
        from lazygrad_compiler.ir.dtypes import DTYPES

        for name, shape in artifact.outputs:
            size = DTYPES[name].itemsize
            for extent in shape:
                size *= extent
            self._sizes.append(size)
        self._lists = [list_for(size) for size in self._sizes]
        self._arena_bytes = artifact.arena_bytes
        self._kept_arena: Buffer | None = None
        self._scratch_bytes = artifact.scratch_bytes
        kernels = [
            store.load_kernel(name, code)
            for name, code in artifact.objects.items()
            if name != "program"
        ]
        symbols = {name: code.address(name) for name, code in kernels}
        self._library: LibraryCaller | None = None
        if artifact.library:
            self._library = LibraryCaller(artifact.library, artifact.launches)
            symbols[library_calls.SYMBOL] = self._library.address
        self._code = [code for _, code in kernels]
        main = load_object(artifact.objects["program"], symbols)
        self._code.append(main)
        self._entry = _Entry(main.address("program"))
        outputs = len(self._sizes)
        self._pack = struct.Struct(f"{self.input_count + outputs}P").pack_into
        self._error = (ctypes.c_int64 * ERROR_WORDS)()
        self._table = (ctypes.c_void_p * (self.input_count + outputs + 2))()
        self._table[self.input_count + outputs + 1] = ctypes.addressof(self._error)
        self._table_address = ctypes.addressof(self._table)

    def run(
        self, inputs: Sequence[Buffer], donated: Mapping[int, Buffer] | None = None
    ) -> list[Buffer]:
        """The outputs for these inputs (row-major, in the order of the graph's inputs).

        donated: by number of an output the buffer that it is written into: that of an input which
        is not wanted any more, and which `artifact.donations` allows.

        Raises IndexError with the user's line where an index is out of range, MemoryError where
        memory runs out, LibraryError where a library call fails.
        """
        if len(inputs) != self.input_count:
            raise ValueError(f"[program] takes {self.input_count} inputs, not {len(inputs)}")
        for callback in run_callbacks:
            callback(self)
        if donated:
            outputs = [
                donated[number] if number in donated else free.take(size)
                for number, (free, size) in enumerate(zip(self._lists, self._sizes, strict=True))
            ]
        else:
            outputs = [free.take(size) for free, size in zip(self._lists, self._sizes)]
        pool = get_pool()
        with pool.lock:
            if self._arena_bytes and self._kept_arena is None:
                arena = allocate(self._arena_bytes)
                if self._arena_bytes <= LARGEST_KEPT_ARENA:
                    self._kept_arena = arena
                self._table[len(inputs) + len(outputs)] = arena.pointer
            if self._scratch_bytes > MINIMUM_SCRATCH:
                pool.ensure_scratch(self._scratch_bytes)
            self._pack(self._table, 0, *[buffer.pointer for buffer in inputs],
                       *[buffer.pointer for buffer in outputs])
            self._entry(self._table_address, pool.pointer)
            if self._error[0]:
                report = list(self._error)
                self._error[0] = 0
                if report[0] == LIBRARY_UNDER_WAY and self._library is not None:
                    raise self._library.take()
                raise IndexOutOfRange(report, self.artifact.launches)
        return outputs


class LaunchError(RuntimeError):
    """A launch was refused, or ended in a fault."""

    def recorded(self, launches: Sequence[Launch]) -> Exception:
        """The error with the lines of the present recording."""
        raise NotImplementedError


class IndexOutOfRange(IndexError):
    """A gather or scatter met an index beyond its axis.

    report: the error block (set, index, size, axis, launch, check).  launches: of the artifact; its
    lines are those of the program's first recording, and the public operation is not known.
    `recorded` knows better.
    """

    def __init__(
        self, report: Sequence[int], launches: Sequence[tuple[str, str, Location]]
    ) -> None:
        self.report = report
        _, about, location = launches[report[4]]
        self.op = about if about.startswith("scatter") else "gather"
        super().__init__(self._message(self.op, location))

    def recorded(self, launches: Sequence[Launch]) -> Exception:
        """The error with the name and the lines of the present recording."""
        launch, check = self.report[4:6]
        location = launches[launch].checks[check]
        name = location.operation if isinstance(location, Named) else self.op
        kind = IndexError if broken_by(*self.report[1:3]) is None else RequirementBroken
        return kind(self._message(name, location))

    def _message(self, name: str, location: Location) -> str:
        _, index, size, axis = self.report[:4]
        lines = ", ".join(f"{file.rsplit('/', 1)[-1]}:{line}" for file, line in location)
        broken = broken_by(index, size)
        if broken is not None:
            return f"[{name}] " + broken.replace(".", f" ({lines}).", 1)
        legal = f"The largest is {size - 1}."
        if index >= SIGN_TAKEN_OFF:
            index, legal = index - 2**63, f"Indices run from 0 to {size - 1}."
        elif index < 0:
            legal = f"Indices run from {-size} to {size - 1}."
        return (
            f"[{name}] index {index} is out of range for axis {axis} of size {size}"
            + (f" ({lines}). " if lines else ". ")
            + (legal if size else "The axis is empty.")
        )


FAILED_LAUNCHES = (IndexOutOfRange, LibraryError, LaunchError)
"""Errors that name a launch; `recorded` gives them the lines of the present recording."""


def pending_key(outputs: Sequence[Node]) -> tuple[tuple, list[Node], dict[Node, int]]:
    """What identifies the pending graph, its leaves in order, and the number of each node in the
    key.

    Two graphs of one key are the same program: equal ops, attributes and shapes, wired alike.
    Known values are leaves, whatever made them; autograd's markers do not count.  Results of a
    composite are numbered after its call, without unfolding it.
    """
    key: list[Any] = []
    leaves: list[Node] = []
    number: dict[Node, int] = {}
    number_of = number.__getitem__
    calls: dict[Any, int] = {}
    placing = nodes.placing
    for output in outputs:
        stack = [output]
        while stack:
            node = stack[-1]
            if node in number:
                stack.pop()
                continue
            if node.payload is not None or node.op == "input":
                number[node] = len(key)
                key.append((node.dtype, node.shape, device_of(node)) if placing
                           else (node.dtype, node.shape))
                leaves.append(node)
                stack.pop()
                continue
            call = node.call
            inputs = node.inputs if call is None else () if call in calls else call.inputs
            ready = True
            for value in inputs[::-1]:
                if value not in number:
                    if value.payload is None and value.op != "input":
                        ready = False
                        break
                    number[value] = len(key)
                    key.append((value.dtype, value.shape, device_of(value)) if placing
                               else (value.dtype, value.shape))
                    leaves.append(value)
            if not ready:
                for value in inputs:
                    if value not in number:
                        stack.append(value)
                continue
            stack.pop()
            if call is not None:
                if call not in calls:
                    calls[call] = len(key)
                    key.append((call.template, *map(number_of, inputs)))
                number[node] = len(key)
                key.append((calls[call], node.part))
            elif node.op == "variable" or node.op == "stop_gradient":
                number[node] = number[inputs[0]]
            else:
                number[node] = len(key)
                key.append((node.op, node.identity, *map(number_of, inputs)))
    key.append(tuple(map(number_of, outputs)))
    return tuple(key), leaves, number


def pending_graph(outputs: Sequence[Node]) -> tuple[Graph, list[Node]]:
    """The canonical graph of the pending nodes, and the leaves that are its inputs, in order."""
    leaves = pending_key(outputs)[1]
    return pruned(canonical_graph(outputs, leaves), leaves)


@dataclass(slots=True)
class _Kept:
    """A program in memory.  read: the places of the leaves that it reads.  stamp: the number of
    the look-up that found it last.
    """

    program: Any
    read: tuple[int, ...]
    stamp: int


singles: dict[tuple, Any] = {}
"""Programs for one node over known values, as native code finds them.  Emptied whenever a program
is dropped.
"""

_programs: dict[tuple, _Kept] = {}
_stamps = itertools.count()
_keeping = forks.lock()
_kept_code = 0
"""Bytes of machine code of `_programs`, about."""


def program_in_memory(outputs: Sequence[Node]) -> tuple[Any, list[Node]] | None:
    """The program that computes the nodes and the leaves that it reads, if a flush has made it."""
    key, leaves, _ = pending_key(outputs)
    found = _programs.get(key)
    return None if found is None else _with_read(found, leaves)


def _with_read(kept: _Kept, leaves: list[Node]) -> tuple[Any, list[Node]]:
    """A kept program and those of the leaves that it reads."""
    read = kept.read
    return (kept.program,
            leaves if len(read) == len(leaves) else [leaves[place] for place in read])


def program_for(outputs: Sequence[Node]) -> tuple[Any, list[Node]]:
    """The program that computes the nodes, compiled if need be, and the leaves that it reads."""
    key, leaves, _ = pending_key(outputs)
    found = _programs.get(key)
    if found is not None:
        store.counters.memory_hits += 1
        found.stamp = next(_stamps)
        return _with_read(found, leaves)
    prepare()
    with no_collections():
        program, read = _program_of(key, outputs, leaves)
    kept = _Kept(program, tuple(read), next(_stamps))
    _keep(key, kept)
    return _with_read(kept, leaves)


def _program_of(
    key: tuple, outputs: Sequence[Node], leaves: list[Node]
) -> tuple[Any, Sequence[int]]:
    """A program that is new to this process, and the places of the leaves that it reads."""
    recording = None if nodes.placing else recordings.written(key)
    found = None if recording is None else recordings.find(recording)
    if found is not None:
        return Program(found[0]), found[1]
    graph, used = pruned(canonical_graph(outputs, leaves), leaves)
    place = {leaf: number for number, leaf in enumerate(leaves)}
    read = [place[leaf] for leaf in used]
    if nodes.placing:
        return _placed(graph, used), read
    artifact = store.artifact_for(graph)
    if recording is not None:
        recordings.note(recording, graph, read)
    return Program(artifact), read


def _keep(key: tuple, kept: _Kept) -> None:
    """Keeps a program for the next flush of its structure; past the limit the quarter of the code
    that was not asked for longest goes.
    """
    global _kept_code
    with _keeping:
        _drop(key)  # another thread may have made it meanwhile
        _programs[key] = kept
        _kept_code += kept.program.artifact.code_bytes
        if _kept_code <= LARGEST_KEPT_CODE:
            return
        for old, _ in sorted(_programs.items(), key=lambda item: item[1].stamp):
            if old is not key:
                _drop(old)
            if _kept_code <= LARGEST_KEPT_CODE * 3 // 4:
                return


_not_collecting: set[int] = set()
"""The threads within `no_collections`."""


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
    """Within, nobody looks for garbage: what a compilation makes lives until its end, and hundreds
    of looks at all of it take 60 to 90 ms for a small GPT.
    """
    enabled = gc.isenabled()
    thread = threading.get_ident()
    try:
        if enabled:
            _not_collecting.add(thread)
            gc.disable()
        yield
    finally:
        if enabled:
            gc.enable()
            _not_collecting.discard(thread)


def _collect_in_child() -> None:
    """Another thread of the parent would have seen to it; it does not exist in the child."""
    if _not_collecting - {threading.get_ident()}:
        gc.enable()
    _not_collecting.clear()


forks.in_child(_collect_in_child)


def _drop(key: tuple) -> None:
    """Takes a program out of the table.  Call with `_keeping` held."""
    global _kept_code
    kept = _programs.pop(key, None)
    if kept is not None:
        singles.clear()
        _kept_code -= kept.program.artifact.code_bytes


def _placed(graph: Graph, leaves: Sequence[Node]) -> Any:
    """The program of a graph that may be on several devices."""
    from lazygrad_runtime import placed

    return placed.program_of(graph, [device_of(leaf) for leaf in leaves])


def recorded(error: Any, program: Any, graph: Graph) -> Exception:
    """The error of a failed launch with the lines of the present recording, which `graph` has."""
    if program.places is None:
        return error.recorded(store.launches_of(graph))
    from lazygrad_runtime import placed

    return error.recorded(placed.launches_of(graph, program.places, getattr(error, "step", 0)))


def execute(outputs: Sequence[Node], tracked: Sequence[Node] = ()) -> None:
    """Computes the nodes and attaches their values: afterwards each `node.payload` is a Buffer
    (row-major contiguous).

    tracked: those of the outputs that may be differentiated later; what their backward pass will
    want is computed and kept along.
    """
    wanted = [node for node in dict.fromkeys(outputs) if node.payload is None]
    if not wanted:
        return
    if tracked:
        wanted += [node for node in residuals_of(tracked) if node not in wanted]
    program, leaves = program_for(wanted)
    try:
        buffers = program.run([leaf.payload for leaf in leaves])
    except FAILED_LAUNCHES as error:
        raise recorded(error, program, pending_graph(wanted)[0]) from None
    except MemoryError as error:
        raise out_of_memory(error, pending_graph(wanted)[0]) from None
    for node, buffer in zip(wanted, buffers):
        node.payload = buffer
        if buffer.device is not None:
            node.device = buffer.device.label


def out_of_memory(error: MemoryError, graph: Graph) -> MemoryError:
    """The error with the user's line of the largest value that the graph computes; what only moves
    data takes no memory of its own, unless it is asked for.
    """
    moving = ("leaf", "movement")
    values = [node for node in graph.nodes() if OPS[node.op].kind not in moving]
    largest = max([*graph.outputs, *values], key=lambda node: node.nbytes)
    lines = ", ".join(f"{file.rsplit('/', 1)[-1]}:{line}" for file, line in largest.location)
    return MemoryError(
        f"{error} The largest value is {largest.op} of {largest.nbytes} bytes ({lines})."
    )


_residuals: dict[tuple, list[tuple[int, int]]] = {}

kept_with: WeakKeyDictionary[Node, dict[int, Node]] = WeakKeyDictionary()
"""Results of loops that are kept for backward, by a result that the forward graph has: they live
as long.
"""


def residuals_of(tracked: Sequence[Node]) -> list[Node]:
    """The values to keep for a later backward pass; found once for each structure of the graph.

    They may lie inside composites, which are plain nodes from then on.  A result of a loop that
    nobody has asked for so far is named by one that is there.
    """
    unfold(tracked)
    key, _, number = pending_key(tracked)
    places = _residuals.get(key)
    if places is None:
        from lazygrad_compiler.autodiff.residuals import residuals

        found = residuals(tracked)
        loops = {siblings(node): place for node, place in number.items() if node.op == "loop"}
        places = _residuals[key] = sorted(
            {
                (number[node], -1)
                if node in number
                else (loops[siblings(node)], node.attr("part"))
                for node in found
            }
        )
        if not places:
            return []
    nodes: dict[int, Node] = {}
    for node, place in number.items():
        if node.op not in ("variable", "stop_gradient"):
            nodes[place] = node
    kept = []
    for place, part in places:
        node = nodes[place]
        if part >= 0:
            result = Loop.of(node).part(part)
            kept_with.setdefault(node, {})[part] = result
            node = result
        kept.append(node)
    return kept


def forget_placed() -> None:
    """The same for programs that are on a device, in this process alone."""
    with _keeping:
        for key in [key for key, kept in _programs.items() if kept.program.places is not None]:
            _drop(key)


def forget_programs() -> None:
    """Empties the in-memory caches: the next flush compiles, or reads the disk, again."""
    global _kept_code
    with _keeping:
        _programs.clear()
        singles.clear()
        _kept_code = 0
    _residuals.clear()
    store.forget_kernels()
