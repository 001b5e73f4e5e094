"""Artifacts: compiled programs as plain data, and the canonical graphs that they are compiled from.

Apart from the driver, so that a process which finds its programs on disk never imports the
compiler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any

from lazygrad_compiler.ir.loop import Body, body_of, placeholders
from lazygrad_compiler.ir.node import (
    Graph,
    Location,
    Node,
    build,
    rebuild,
    separate_input,
    substitute,
    topological,
)
from lazygrad_compiler.ir.ops import OPS


@dataclass(frozen=True, slots=True)
class LibraryLaunch:
    """A launch that calls a row of `LIBRARY`.

    launch: its number.  call, options: of the row.  parts: which results are stored.  arguments:
    (dtype name, shape) of the operands, then of those results.
    """

    launch: int
    call: str
    options: tuple[Any, ...]
    parts: tuple[int, ...]
    arguments: tuple[tuple[str, tuple[int, ...]], ...]

    @staticmethod
    def from_list(described: list[Any]) -> LibraryLaunch:
        return LibraryLaunch(*(_as_tuple(item) for item in described))


PAGES_OF_AN_OBJECT = 3 << 14
"""Bytes that a loaded object takes beyond its code: pages by protection, and LLVM's tables
(measured: some 50 KiB an object of 1 to 4 KiB)."""

NEVER = -1
"""The launch that writes an output which may not take over any input."""


@dataclass(frozen=True, slots=True)
class Donations:
    """Which outputs may be written over which inputs, should the caller not need those any more.

    reads: for each input the last launch that reads it, or -1.  writes: for each output the
    launch that writes it first, or NEVER.  pairs: (input, output) where one launch does both and
    may do so in place.
    """

    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()
    pairs: frozenset[tuple[int, int]] = frozenset()

    def allowed(self, number: int, output: int) -> bool:
        """Whether the output may lie in the memory of the input.  Sizes are the caller's matter."""
        read, write = self.reads[number], self.writes[output]
        return write != NEVER and (read < write or (number, output) in self.pairs)

    def description(self) -> dict[str, Any]:
        return {
            "reads": list(self.reads),
            "writes": list(self.writes),
            "pairs": sorted(map(list, self.pairs)),
        }

    @staticmethod
    def from_description(described: dict[str, Any]) -> Donations:
        return Donations(
            tuple(described["reads"]),
            tuple(described["writes"]),
            frozenset((number, output) for number, output in described["pairs"]),
        )


@dataclass(frozen=True, slots=True)
class TensorMap:
    """What a GPU's copy engine has to know of an array: the runtime has the driver encode it.

    argument: of the launch; the array begins `offset` bytes behind it.  sizes: from the innermost
    axis out.  strides: in bytes, without that axis, which has no gaps.  box: what one copy takes;
    a row of it is 128 bytes, and is swizzled in shared memory.
    """

    argument: int
    offset: int
    dtype: str
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GridLaunch:
    """A launch on a GPU: a kernel's function, its arguments, and how many threads run it.

    kernel: name in `objects` and of the function in that PTX text; LIBRARY_SYMBOL for a library
    call.  arguments: (slot of the table, offset in bytes), one a buffer.  The function's parameters
    are those addresses, then the address of the error block (8 × i64, zeroed before a run), then
    the launch's number as i64, then the maps, encoded, 128 bytes each.  grid, block: x, y, z; a
    grid of 0 blocks is not launched.  shared: bytes of dynamic shared memory.  checks: whether the
    kernel can report to the error block.  number: the launch's, in `Artifact.launches`.
    """

    kernel: str
    arguments: tuple[tuple[int, int], ...]
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int = 0
    checks: bool = False
    number: int = 0
    maps: tuple[TensorMap, ...] = ()

    @staticmethod
    def from_list(described: list[Any]) -> GridLaunch:
        *fields, maps = (_as_tuple(item) for item in described)
        made = GridLaunch(*fields)
        return replace(made, maps=tuple(TensorMap(*each) for each in maps))


def _as_tuple(value: Any) -> Any:
    """Lists of JSON as the tuples that they were."""
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Tuned:
    """A kernel's schedule that was found by timing.

    schedule: as `loops.candidates.written` gives it.  speedup: the default's time over its own.
    """

    schedule: str
    speedup: float

    def __str__(self) -> str:
        return f"tuned, {self.speedup:.2f}x over the default"


Tuning = Mapping[str, Tuned]
"""Schedules by the name that the kernel has with its default one."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled program.

    objects: by name, object code of "program" and of each distinct kernel; for a GPU the PTX of
    each distinct kernel, text in UTF-8.  inputs: number of inputs.  outputs: (dtype name, shape) of
    each.  arena_bytes, scratch_bytes: memory to provide.  launches: (kernel name, what it computes,
    user lines) in order, for messages.  seconds: what compiling took.  library: the launches that
    are library calls.  donations: which outputs may be written over which inputs.  device: the kind
    of target, "cpu" or "cuda".  grid: of a GPU, the launches as they run, those of a loop once for
    each round; slots of its table are inputs, outputs, arena, each of which begins at a multiple of
    16 bytes.  tuning: schedules that are not the defaults.
    """

    objects: dict[str, bytes]
    inputs: int
    outputs: list[tuple[str, tuple[int, ...]]]
    arena_bytes: int
    scratch_bytes: int
    launches: list[tuple[str, str, Location]]
    seconds: float
    library: list[LibraryLaunch] = field(default_factory=list)
    donations: Donations = Donations()
    device: str = "cpu"
    grid: tuple[GridLaunch, ...] = ()
    tuning: Tuning = field(default_factory=dict)

    @property
    def code_bytes(self) -> int:
        """About what the program takes in memory once loaded: its objects as bytes, and each in
        pages of its own.
        """
        return sum(2 * len(code) + PAGES_OF_AN_OBJECT for code in self.objects.values())

    def description(self) -> dict[str, Any]:
        """All but the object code, for JSON."""
        return {
            "inputs": self.inputs,
            "outputs": [[name, list(shape)] for name, shape in self.outputs],
            "arena_bytes": self.arena_bytes,
            "scratch_bytes": self.scratch_bytes,
            "launches": [
                [kernel, about, [list(line) for line in where]]
                for kernel, about, where in self.launches
            ],
            "objects": list(self.objects),
            "seconds": self.seconds,
            "library": [list(astuple(launch)) for launch in self.library],
            "donations": self.donations.description(),
            "device": self.device,
            "grid": [list(astuple(launch)) for launch in self.grid],
            "tuning": described_tuning(self.tuning),
        }

    @staticmethod
    def from_description(described: dict[str, Any], objects: dict[str, bytes]) -> Artifact:
        return Artifact(
            objects,
            described["inputs"],
            [(name, tuple(shape)) for name, shape in described["outputs"]],
            described["arena_bytes"],
            described["scratch_bytes"],
            [
                (kernel, about, tuple((file, line) for file, line in where))
                for kernel, about, where in described["launches"]
            ],
            described["seconds"],
            [LibraryLaunch.from_list(launch) for launch in described["library"]],
            Donations.from_description(described["donations"]),
            described["device"],
            tuple(GridLaunch.from_list(launch) for launch in described["grid"]),
            tuning_of(described["tuning"]),
        )


def described_tuning(tuning: Tuning) -> list[list[Any]]:
    """For JSON, in an order of its own."""
    return [[name, tuned.schedule, tuned.speedup] for name, tuned in sorted(tuning.items())]


def tuning_of(described: list[list[Any]]) -> Tuning:
    return {name: Tuned(schedule, speedup) for name, schedule, speedup in described}


def canonical_graph(outputs: Sequence[Node], leaves: Sequence[Node]) -> Graph:
    """Recorded nodes as a graph of their own, with lines of its own: the leaves become inputs 0,
    1, …, autograd markers are gone.  Equal constants are one, in bodies of loops, too, and equal to
    those that passes make; one that is a result keeps its line.
    """
    result: dict[Node, Node] = {
        leaf: separate_input(number, leaf.dtype, leaf.shape, leaf.location)
        for number, leaf in enumerate(leaves)
    }
    constants: dict[tuple, Node] = {}
    for output in outputs:
        if output not in result and not output.inputs:
            constants.setdefault((output.op, output.identity), output)
    _unite(outputs, result, constants, {})
    return Graph(tuple(result[output] for output in outputs))


def _unite(outputs: Sequence[Node], result: dict[Node, Node], constants: dict[tuple, Node],
           bodies: dict[Body, Body]) -> None:
    """Adds to `result` what each node below the outputs becomes; what is in it already stays."""
    for current in topological(outputs, stop=lambda n: n in result):
        if current in result:
            continue
        inputs = [result[value] for value in current.inputs]
        if current.op in ("variable", "stop_gradient"):
            result[current] = inputs[0]
        elif not inputs:
            known = constants.get((current.op, current.identity))
            result[current] = known or build(OPS[current.op], (), current.attrs, current.location)
        elif current.op == "loop":
            body, *rest = current.attrs
            if body not in bodies:
                bodies[body] = _united(body, bodies)
            result[current] = build(OPS["loop"], tuple(inputs), (bodies[body], *rest),
                                    current.location)
        else:
            result[current] = rebuild(current, inputs)


def _united(body: Body, bodies: dict[Body, Body]) -> Body:
    """A loop's body in which equal constants are one: bodies that differ in their lines are one."""
    result = {each: each for each in placeholders(body)}
    _unite(body.outputs, result, {}, bodies)
    return body_of(body.name, [result[each] for each in body.outputs], body.inputs, body)


def pruned(graph: Graph, leaves: Sequence[Node]) -> tuple[Graph, list[Node]]:
    """The graph with its inputs numbered without gaps, and the leaves that it does read.

    A leaf may be an argument of a call whose results make no use of it.
    """
    inputs = graph.inputs()
    if len(inputs) == len(leaves):
        return graph, list(leaves)
    renumbered = {
        old: separate_input(new, old.dtype, old.shape, old.location)
        for new, old in enumerate(inputs)
    }
    outputs = substitute(graph.outputs, renumbered)
    return Graph(outputs), [leaves[old.attrs[0]] for old in inputs]
