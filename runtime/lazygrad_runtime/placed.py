"""Programs of a graph on several devices: one for each device and stage, with copies in between.

In: a canonical graph with `transfer` nodes, and the devices of its inputs.  Out: something that
runs like a `Program`.  The one idea: only explicit transfers lead from device to device, so a
node's device follows from its inputs, and its stage is the number of transfers before it.  All
nodes of one device and stage are one program; a value that crosses over is an output of one
program, a copy, and an input of another.

Values of no device (constants, random numbers, what the CPU holds and no transfer names) are made
where they are used.  A transfer without a source says just that: computed there, not copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lazygrad_compiler.artifact import NEVER, Donations
from lazygrad_compiler.ir.node import Graph, Node, node, rebuild, topological
from lazygrad_compiler.target import host
from lazygrad_runtime import store
from lazygrad_runtime.memory import Buffer

if TYPE_CHECKING:
    from lazygrad_compiler.loops.kernel import Launch

CPU = "cpu"


@dataclass(frozen=True, slots=True)
class ProgramStep:
    """Runs a program.  inputs, results: places in the table of values."""

    device: str
    graph: Graph
    inputs: tuple[int, ...]
    results: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CopyStep:
    """Copies a value to a device."""

    device: str
    value: int
    result: int


Step = ProgramStep | CopyStep


@dataclass(frozen=True, slots=True)
class Plan:
    """steps: in order.  values: size of the table, whose first places are the inputs.  outputs:
    their places in it.
    """

    steps: tuple[Step, ...]
    values: int
    outputs: tuple[int, ...]


def devices_of(graph: Graph, inputs: Sequence[str | None]) -> dict[Node, str | None]:
    """The device of each node; None: made where it is used."""
    found: dict[Node, str | None] = {}
    for current in graph.nodes():
        if current.op == "input":
            found[current] = inputs[current.attrs[0]]
        elif current.op == "transfer":
            found[current] = current.attrs[0]
        else:
            found[current] = next(
                (found[value] for value in current.inputs if found[value] is not None), None
            )
    return found


def plan(graph: Graph, inputs: Sequence[str | None]) -> Plan:
    """How a graph is computed.  inputs: the device of each input, None for the CPU's."""
    return _Planner(graph, inputs).plan()


class _Planner:
    """The work of `plan`.

    A key is a node and the device on which its value is wanted; `place` gives values their places.
    """

    def __init__(self, graph: Graph, inputs: Sequence[str | None]) -> None:
        self.graph = graph
        self.devices = devices_of(graph, inputs)
        self.count = len(inputs)
        self.stages: dict[Node, int] = {}
        self.place: dict[tuple[Node, str], int] = {}
        self.wanted: dict[tuple[int, str], dict[Node, None]] = {}
        self.copies: dict[tuple[Node, str], tuple[Node, str]] = {}

    def cut(self, current: Node) -> bool:
        """Whether a value crosses over here."""
        return current.op == "transfer" and current.attrs[1] not in ("", current.attrs[0])

    def plan(self) -> Plan:
        for current in self.graph.nodes():
            stage = max((self.stages[value] for value in current.inputs), default=0)
            if self.cut(current) and current.inputs[0].op != "input":
                stage += 1
            self.stages[current] = stage
        for output in self.graph.outputs:
            self.want(output, self.devices[output] or CPU)
        programs: list[tuple[tuple[int, str], Graph, list[tuple[Node, str]], list[Node]]] = []
        for key in self.order():
            programs.append((key, *self.program(*key)))
        programs.reverse()
        return self.steps(programs)

    def order(self) -> Any:
        """Stages and devices from the last stage to the first; more are wanted as one goes."""
        for stage in range(max(self.stages.values(), default=0), -1, -1):
            yield from sorted(key for key in self.wanted if key[0] == stage)

    def want(self, current: Node, device: str) -> None:
        """Asks for a value on a device: of a program, or by a copy of another value."""
        if current.op == "input" and (self.devices[current] or CPU) == device:
            return
        if current.op == "input" and self.devices[current] is None:
            self.copies[current, device] = current, CPU
        elif self.cut(current):
            value, source = current.inputs[0], current.attrs[1]
            self.copies[current, device] = value, source
            self.want(value, source)
        else:
            stage = self.stages[current] if self.devices[current] is not None else 0
            self.wanted.setdefault((stage, device), {})[current] = None

    def program(
        self, stage: int, device: str
    ) -> tuple[Graph, list[tuple[Node, str]], list[Node]]:
        """The graph of what is wanted of one program, its inputs (values by node and device), and
        its results.
        """
        results = list(self.wanted[stage, device])
        inputs: list[tuple[Node, str]] = []
        made: dict[Node, Node] = {}

        def given(current: Node) -> bool:
            """Whether the value comes from outside this program."""
            if current.op == "transfer":
                return self.cut(current)
            return current.op == "input" or (
                self.devices[current] is not None and self.stages[current] < stage
            )

        for current in topological(results, stop=given):
            if given(current):
                if current.op != "input":  # what the host holds, a program brings over itself
                    self.want(current, device)
                made[current] = node(
                    "input", index=len(inputs), dtype=current.dtype, shape=current.shape,
                    location=current.location,
                )  # fmt: skip
                inputs.append((current, device))
            elif current.op == "transfer":
                made[current] = made[current.inputs[0]]
            else:
                made[current] = rebuild(current, [made[value] for value in current.inputs])
        return Graph(tuple(made[result] for result in results)), inputs, results

    def steps(self, programs: Any) -> Plan:
        places: dict[tuple[Node, str], int] = {}
        count = self.count
        steps: list[Step] = []

        def place(current: Node, device: str) -> int:
            """Where a value is; copies are made when they are first asked for."""
            nonlocal count
            if current.op == "input" and (current, device) not in self.copies:
                return current.attrs[0]
            found = places.get((current, device))
            if found is None:
                value, source = self.copies[current, device]
                origin = place(value, source)
                found = places[current, device] = count
                count += 1
                steps.append(CopyStep(device, origin, found))
            return found

        for (_, device), graph, inputs, results in programs:
            taken = tuple(place(current, where) for current, where in inputs)
            given = []
            for result in results:
                places[result, device] = count
                given.append(count)
                count += 1
            steps.append(ProgramStep(device, graph, taken, tuple(given)))
        outputs = tuple(
            place(output, self.devices[output] or CPU) for output in self.graph.outputs
        )
        return Plan(tuple(steps), count, outputs)


# ---- running


@dataclass(frozen=True, slots=True)
class _Artifact:
    """What replays and the table of programs ask of an artifact."""

    donations: Donations
    code_bytes: int
    launches: tuple = ()


class PlacedProgram:
    """A plan with its programs; `run` is that of `program.Program`."""

    places: Sequence[str | None] | None = None

    def __init__(self, plan: Plan, inputs: int) -> None:
        self.plan = plan
        self.input_count = inputs
        self.programs: list[Any] = [
            compiled(step.graph, step.device) if isinstance(step, ProgramStep) else None
            for step in plan.steps
        ]
        self.artifact = _Artifact(
            self._donations(),
            sum(program.artifact.code_bytes for program in self.programs if program is not None),
        )

    def graph_at_once(self) -> None:
        """See `CudaProgram`."""
        for program in self.programs:
            if hasattr(program, "graph_at_once"):
                program.graph_at_once()

    def _donations(self) -> Donations:
        """Those of the program, where there is one only; what it writes over must be its own."""
        outputs, inputs = len(self.plan.outputs), self.input_count
        nothing = Donations((-1,) * inputs, (NEVER,) * outputs)
        steps = [step for step in self.plan.steps if isinstance(step, ProgramStep)]
        if len(steps) != 1 or any(
            isinstance(step, CopyStep) and step.value in steps[0].inputs for step in self.plan.steps
        ):
            return nothing
        program = next(program for program in self.programs if program is not None)
        inner: Donations = program.artifact.donations
        reads, writes = list(nothing.reads), list(nothing.writes)
        for number, value in enumerate(steps[0].inputs):
            if value < inputs:
                reads[value] = inner.reads[number]
        for number, value in enumerate(self.plan.outputs):
            if value in steps[0].results:
                writes[number] = inner.writes[steps[0].results.index(value)]
        pairs = frozenset(
            (steps[0].inputs[taken], self.plan.outputs.index(steps[0].results[output]))
            for taken, output in inner.pairs
            if steps[0].results[output] in self.plan.outputs
        )
        return Donations(tuple(reads), tuple(writes), pairs)

    def run(self, inputs: Sequence[Any], donated: Mapping[int, Any] | None = None) -> list[Any]:
        """See `Program.run`.  Inputs lie on the devices that the plan was made for."""
        values = [*inputs, *[None] * (self.plan.values - len(inputs))]
        for number, (step, program) in enumerate(
            zip(self.plan.steps, self.programs, strict=True)
        ):
            if isinstance(step, CopyStep):
                values[step.result] = copied(values[step.value], step.device)
                continue
            over = {}
            for output, buffer in (donated or {}).items():
                if self.plan.outputs[output] in step.results:
                    over[step.results.index(self.plan.outputs[output])] = buffer
            try:
                results = program.run([values[place] for place in step.inputs], over or None)
            except (IndexError, RuntimeError) as error:
                error.step = number  # type: ignore[union-attr]
                raise
            for place, result in zip(step.results, results, strict=True):
                values[place] = result
        return [values[place] for place in self.plan.outputs]


def launches_of(graph: Graph, inputs: Sequence[str | None], step: int) -> list[Launch]:
    """The launches of one step of a graph's plan, with the lines that the graph has."""
    made = plan(graph, inputs).steps[step]
    assert isinstance(made, ProgramStep)
    return store.launches_of(made.graph, target_of(made.device))


def target_of(device: str) -> Any:
    """What code for a device is generated for."""
    if device == CPU:
        return host()
    from lazygrad_runtime.cuda.context import device_at

    return device_at(device).target


def compiled(graph: Graph, device: str) -> Any:
    """The program of a graph on one device."""
    from lazygrad_runtime.program import Program

    if device == CPU:
        return Program(store.artifact_for(graph))
    from lazygrad_runtime.cuda.context import device_at
    from lazygrad_runtime.cuda.program import CudaProgram

    found = device_at(device)
    return CudaProgram(store.artifact_for(graph, found.target), found)


def copied(value: Any, device: str) -> Any:
    """A copy of a value on a device."""
    if device == CPU:
        import numpy

        if value.device is None:
            return value
        return Buffer.from_numpy(value.as_numpy(numpy.uint8, (value.nbytes,)))
    from lazygrad_runtime.cuda.context import device_at
    from lazygrad_runtime.cuda.transfer import copy_between

    found = device_at(device)
    if value.device is None:
        return found.staging.upload(value)
    return copy_between(value, found)


def program_of(graph: Graph, inputs: Sequence[str | None]) -> Any:
    """The program of a graph whose inputs lie on these devices."""
    made = plan(graph, inputs)
    step = made.steps[0] if len(made.steps) == 1 else None
    alone = isinstance(step, ProgramStep) and step.results == made.outputs and (
        step.inputs == tuple(range(len(inputs))))
    program: Any
    if isinstance(step, ProgramStep) and alone:
        program = compiled(step.graph, step.device)
    else:
        program = PlacedProgram(made, len(inputs))
    program.places = tuple(inputs)
    return program
