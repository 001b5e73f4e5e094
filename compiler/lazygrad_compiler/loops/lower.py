"""Lowering: a group of graph nodes becomes one kernel of the loop IR.

In: a group from `fusion/partition.py`.  Out: a `Launch`. The one idea: values are pulled.  Starting
at an output element, `Evaluator.pull(node, indices)` asks each input for the element it needs;
movement ops only rewrite the indices, so a chain of reshapes, slices, pads and broadcasts costs an
index expression.

A row kernel has two linear variables, the row and the position within it.  They start as the axes
of the group's first root and are split further where a quotient or remainder remains, then
neighbours that no access tells apart are merged again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import ARRAY_KINDS, OPS
from lazygrad_compiler.loops.coalesce import coalesce
from lazygrad_compiler.loops.index import (
    ZERO,
    Affine,
    Var,
    delinearize,
    digits,
    linearize,
    split_points,
    variable,
)
from lazygrad_compiler.loops.kernel import (
    BufferRef,
    ColumnReduction,
    ContractionKernel,
    Instr,
    Launch,
    LoopKernel,
    Reduction,
    Stage,
    Store,
    needed,
)
from lazygrad_compiler.loops.picks import pick_elements
from lazygrad_compiler.loops.pull import Evaluator, Indices, NotAligned
from lazygrad_compiler.loops.row_buffers import keep_values

# ---- row kernels


@dataclass(slots=True)
class Group:
    """What one kernel computes.

    kind: "loops", "contraction", "scatter", "joined" (`concat.py`) or one of ARRAY_KINDS.  roots:
    nodes computed here, inputs before users; those in `outputs` are stored, the rest is used inside
    only.  row_axes: for each root of a row kernel, which axes of its domain count rows (a
    reduction's domain is its input).  columns: roots that are reduced over the rows; they are
    finished by another launch (`columns.py`).  anchor: the dot, scatter or array op.  placed:
    outputs that are a part of another node: that node, the axis along which they are a part, and
    where on it they start.
    """

    kind: str
    roots: list[Node]
    outputs: set[Node] = field(default_factory=set)
    rows: int = 1
    inner: int = 1
    anchor: Node | None = None
    columns: frozenset[Node] = frozenset()
    placed: dict[Node, tuple[Node, int, int]] = field(default_factory=dict)


LEAST_BLOCK = 16
MOST_BLOCKS = 128


def block_rows(rows: int) -> int:
    """Of a kernel that reduces over rows: how many rows share their sums, by the shape alone."""
    return max(LEAST_BLOCK, -(-rows // (4 * MOST_BLOCKS)) * 4)


NEVER_PULLED = ARRAY_KINDS | {"reduction", "contraction"}


def is_reduction(node: Node) -> bool:
    return OPS[node.op].kind == "reduction"


def is_woven(node: Node) -> bool:
    """Two values side by side along a new last axis, as the parts of complex numbers are.

    As a root it runs over the positions and stores both, where pulled like any other concat it
    would run over the elements and choose.
    """
    return (
        node.op == "concat"
        and node.attrs[0] == node.ndim - 1
        and [value.shape[-1] for value in node.inputs] == [1, 1]
    )


def domain_of(node: Node) -> tuple[int, ...]:
    """The shape that the node's loop runs over: of a reduction, its input's."""
    if is_woven(node):
        return node.shape[:-1]
    return node.inputs[0].shape if is_reduction(node) else node.shape


def positions(node: Node) -> int:
    """How many positions a root that is no reduction runs over: its elements, unless woven."""
    return node.size // 2 if is_woven(node) else node.size


ACROSS_AXES = (-1,)
"""In the place of a map's row axes: its rows are runs of its elements that end within an axis, as
those of a group norm do.  Group norm of 16 x 320 x 64 x 64 takes 2.3 ms in one kernel on two cores
of Zen 5 instead of 2.9 in two; within the caches it is the same.
"""


def row_axes_choices(
    node: Node, group: Group, hints: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]
) -> list[tuple[int, ...]]:
    """Which axes of the node's domain may count the rows: forced for a reduction, several guesses
    for a map.
    """
    shape, rows, inner = domain_of(node), group.rows, group.inner
    if is_reduction(node):
        return [_rows_of_reduction(node, group)]
    if math.prod(shape) == rows and inner != 1:
        return [tuple(range(len(shape)))]
    choices = [axes for hinted, axes in hints if hinted == shape]
    for cut in range(len(shape) + 1):
        if math.prod(shape[:cut]) == rows:
            choices.append(tuple(range(cut)))
        if math.prod(shape[cut:]) == rows:
            choices.append(tuple(range(cut, len(shape))))
    unique = list(dict.fromkeys(choices))
    if inner == 1:
        return [tuple(range(len(shape)))]
    if not unique and math.prod(shape) == rows * inner:
        return [ACROSS_AXES]
    return unique


def _rows_of_reduction(node: Node, group: Group) -> tuple[int, ...]:
    over_rows = node in group.columns
    axes = range(len(domain_of(node)))
    return tuple(axis for axis in axes if (axis in node.attrs[0]) == over_rows)


def _domain_indices(
    shape: tuple[int, ...], row_axes: tuple[int, ...], row: Affine, position: Affine, inner: int
) -> Indices:
    """Indices of a domain from the linear row and the linear position within the row, which has
    `inner` elements.
    """
    if row_axes == ACROSS_AXES:
        return delinearize(row * inner + position, shape)
    inner_axes = [axis for axis in range(len(shape)) if axis not in row_axes]
    from_row = delinearize(row, [shape[axis] for axis in row_axes])
    from_position = delinearize(position, [shape[axis] for axis in inner_axes])
    result: list[Affine] = [ZERO] * len(shape)
    for axis, index in zip(row_axes, from_row, strict=True):
        result[axis] = index
    for axis, index in zip(inner_axes, from_position, strict=True):
        result[axis] = index
    return tuple(result)


def _variables(prefix: str, sizes: Sequence[int]) -> tuple[tuple[Var, ...], Affine]:
    """One variable a size, and the linear position that they make."""
    variables = tuple(Var(f"{prefix}{k}", size) for k, size in enumerate(sizes))
    return variables, linearize([variable(v) for v in variables], sizes)


class _RowLowering:
    """One attempt at a row kernel with given sizes of the row and inner variables."""

    def __init__(
        self,
        group: Group,
        stored: Callable[[Node], bool],
        axes: dict[Node, tuple[int, ...]],
        row_sizes: Sequence[int],
        inner_sizes: Sequence[int],
        partials: Mapping[Node, Node],
    ) -> None:
        self.group = group
        self.partials = partials
        self.axes = axes
        self.row_axes, self.row = _variables("r", row_sizes)
        self.inner_sizes = inner_sizes
        self.evaluator = Evaluator(stored)

    def stage_of(self, root: Node, level: dict[Node, int], below: dict[Node, set[Node]]) -> int:
        result = 0
        for other in below[root]:
            result = max(result, level[other] + (1 if is_reduction(other) else 0))
        return result

    def run(self) -> tuple[LoopKernel, list[tuple[Node, bool]], list[Affine]]:
        group, e = self.group, self.evaluator
        below = _roots_below(group.roots, e.stored)
        level: dict[Node, int] = {}
        for root in group.roots:
            level[root] = self.stage_of(root, level, below)
        # a map that nothing in the group waits for runs with the latest stage it can share: keep
        # its own level
        stages = []
        for number in sorted(set(level.values())):
            members = [root for root in group.roots if level[root] == number]
            pointwise = [root for root in members if not self._is_inner(root)]
            inside = [root for root in members if self._is_inner(root)]
            if pointwise:
                stages.append(self._stage(pointwise, (), ZERO, number))
            if inside:
                axes, position = _variables(f"s{number}_", self.inner_sizes)
                stages.append(self._stage(inside, axes, position, number))
        buffers = tuple(BufferRef(node.dtype, node.size, written) for node, written in e.buffers)
        block = block_rows(group.rows) if group.columns else 0
        kernel = LoopKernel(
            self.row_axes, tuple(stages), tuple(e.values), buffers, block=block
        )
        return kernel, e.buffers, e.affines()

    def _is_inner(self, root: Node) -> bool:
        shape = domain_of(root)
        return (
            is_reduction(root)
            or len(self.axes[root]) < len(shape)
            or math.prod(shape) != self.group.rows
        )

    def _stage(
        self, members: list[Node], axes: tuple[Var, ...], position: Affine, number: int
    ) -> Stage:
        e, group = self.evaluator, self.group
        places, indices_of = {}, {}
        for root in members:
            indices = _domain_indices(
                domain_of(root), self.axes[root], self.row, position, group.inner
            )
            indices_of[root] = indices
            if is_woven(root):
                e.forbid(root)
            elif not is_reduction(root):
                places[root] = linearize(indices, root.shape)
        for root in group.roots:
            # values of other stages: maps may be computed again at the same place, reductions must
            # be there
            if is_woven(root):
                e.forbid(root)
            elif root not in places and not is_reduction(root) and root not in e._seeds:
                indices = _domain_indices(
                    domain_of(root),
                    self.axes[root],
                    self.row,
                    position if self._is_inner(root) else ZERO,
                    group.inner,
                )
                places[root] = linearize(indices, root.shape)
        e.start_stage(places)
        for root in group.roots:
            if is_reduction(root) and root not in e._seeds:
                e.forbid(root)
        reductions, stores, columns = [], [], []
        for root in members:
            if root in group.columns:
                e.sources[root] = None
                value = e.pull(root.inputs[0], indices_of[root])
                columns.append((root, value))
            elif is_reduction(root):
                value = e.pull(root.inputs[0], indices_of[root])
                spot = e.note(position) if root.op in ("argmax", "argmin") else None
                result = len(e.values)
                e.values.append(Instr("row", root.dtype, (), (result,)))
                reductions.append(Reduction(root.op, value, result, spot))
                e._pending.pop(root, None)
                e.sources[root] = None
                row_place = self.row
                e.seed(root, row_place, result)
                if root in group.outputs:
                    stores.append((root, row_place, result))
            elif is_woven(root):
                e.sources[root] = None
                pair = linearize(indices_of[root], root.shape[:-1]) * 2
                for number, part in enumerate(root.inputs):
                    value = e.pull(part, (*indices_of[root], ZERO))
                    if root in group.outputs:
                        stores.append((root, pair + number, value))
            else:
                value = e.pull(root, indices_of[root])
                if root in group.placed:
                    whole, axis, start = group.placed[root]
                    shifted = list(indices_of[root])
                    shifted[axis] = shifted[axis] + start
                    stores.append((whole, linearize(shifted, whole.shape), value))
                elif root in group.outputs:
                    stores.append((root, places[root], value))
        listed = tuple(
            Store(e.buffer(root, True), e.note(place), value) for root, place, value in stores
        )
        numbers = needed(
            e.values,
            [r.value for r in reductions]
            + [value for _, value in columns]
            + [
                store.value
                for store in listed
                if not any(store.value == r.result for r in reductions)
            ],
            [store.index for store in listed],
        )
        over_rows = tuple(
            ColumnReduction(root.op, value, e.buffer(self.partials[root], True), e.note(position))
            for root, value in columns
        )
        return Stage(axes, numbers, tuple(reductions), listed, columns=over_rows)


def _roots_below(
    roots: Sequence[Node], stored: Callable[[Node], bool]
) -> dict[Node, set[Node]]:
    """For each root, the roots that its value is made from.  No value in memory is made from any:
    kernels that need each other are none.
    """
    members = set(roots)
    reach: dict[Node, set[Node]] = {}
    result = {}
    for root in roots:
        stack, seen, found = list(root.inputs), set(), set()
        while stack:
            current = stack.pop()
            if current in seen:
                continue
            seen.add(current)
            if current in members:
                found.add(current)
                found |= reach.get(current, set())
                continue
            if stored(current) or OPS[current.op].kind in NEVER_PULLED:
                continue
            stack += current.inputs
        reach[root] = found
        result[root] = found
    return result


def lower_rows(
    group: Group,
    stored: Callable[[Node], bool],
    trial: bool = False,
    keeps: bool = False,
    partials: Mapping[Node, Node] | None = None,
) -> Launch:
    """A row kernel for the group; NotAligned where its members do not fit together.

    trial: only to see whether they do; the loops stay as they are found.  keeps: with row buffers.
    partials: where the results of blocks of rows go, for each of the group's columns (in a trial:
    anywhere).
    """
    partials = partials or {root: root for root in group.columns}
    reductions = [root for root in group.roots if is_reduction(root)]
    hints = [
        (domain_of(r), _rows_of_reduction(r, group))
        for r in reductions
    ]
    first = (
        reductions[0]
        if reductions
        else max(group.roots, key=lambda root: (positions(root), -group.roots.index(root)))
    )
    first_axes = row_axes_choices(first, group, hints)
    last_error: NotAligned | None = None
    for choice in first_axes:
        axes = {first: choice}
        try:
            for root in group.roots:
                if root is not first:
                    options = row_axes_choices(root, group, hints)
                    if not options:
                        raise NotAligned
                    axes[root] = options[0]
            return _lower_with_axes(group, stored, axes, partials, trial, keeps)
        except NotAligned as error:
            last_error = error
    raise last_error or NotAligned


def _lower_with_axes(
    group: Group,
    stored: Callable[[Node], bool],
    axes: dict[Node, tuple[int, ...]],
    partials: Mapping[Node, Node],
    trial: bool,
    keeps: bool,
) -> Launch:
    row_sizes, inner_sizes = [max(group.rows, 1)], [max(group.inner, 1)]
    good: tuple[_RowLowering, LoopKernel, list[tuple[Node, bool]]] | None = None
    for _ in range(6):
        attempt = _RowLowering(group, stored, axes, row_sizes, inner_sizes, partials)
        try:
            kernel, bound, affines = attempt.run()
        except NotAligned:
            # places that were equal as they stood can look different once split: keep the former
            if good is None:
                raise
            break
        good = attempt, kernel, bound
        if trial:
            return Launch(kernel, tuple(node for node, _ in bound), (), "")
        points = split_points(affines)
        finer_rows, finer_inner = [], []
        for var in attempt.row_axes:
            finer_rows += _split(var.extent, points.get(var, set()))
        merged: dict[int, set[int]] = {}
        for var, cuts in points.items():
            if "_" in var.name:
                merged.setdefault(int(var.name.split("_")[1]), set()).update(cuts)
        for k, size in enumerate(inner_sizes):
            finer_inner += _split(size, merged.get(k, set()))
        if finer_rows == list(row_sizes) and finer_inner == list(inner_sizes):
            break
        row_sizes, inner_sizes = finer_rows, finer_inner
    assert good is not None
    attempt, kernel, bound = good
    kernel = pick_elements(kernel)
    return Launch(
        coalesce(keep_values(kernel) if keeps else kernel),
        tuple(node for node, _ in bound),
        (),
        _about(group),
        sources=tuple(attempt.evaluator.sources),
        checked=attempt.evaluator.checked,
    ).located()


def _split(extent: int, points: set[int]) -> list[int]:
    """The sizes that a variable splits into, without digits too short for a vector: along those the
    lanes keep a quotient or remainder, which is a constant pattern.
    """
    for chosen in ({p for p in points if p >= SHORTEST_DIGIT}, points):
        found = digits(extent, chosen)
        if found is not None:
            return found
    return [extent]


SHORTEST_DIGIT = 16


def _about(group: Group) -> str:
    return "+".join(root.op for root in group.roots[:4]) + ("+…" if len(group.roots) > 4 else "")


# ---- contractions


def lower_contraction(group: Group, stored: Callable[[Node], bool]) -> Launch:
    """The dot of the group with its epilogue; NotAligned where a root is not an elementwise image
    of the dot.
    """
    dot = group.anchor
    assert dot is not None
    left, right = dot.inputs
    left_batch, right_batch, left_contract, right_contract = dot.attrs
    left_free = [a for a in range(left.ndim) if a not in left_batch and a not in left_contract]
    right_free = [a for a in range(right.ndim) if a not in right_batch and a not in right_contract]
    sizes = {
        "b": [left.shape[a] for a in left_batch],
        "m": [left.shape[a] for a in left_free],
        "n": [right.shape[a] for a in right_free],
        "k": [left.shape[a] for a in left_contract],
    }
    variables = {name: Var(name, math.prod(shape)) for name, shape in sizes.items()}
    index = {name: delinearize(variable(var), sizes[name]) for name, var in variables.items()}
    e = Evaluator(stored)
    e.start_stage({})
    for root in group.roots:
        e.forbid(root)

    def operand(
        node: Node, batch: Sequence[int], free: Sequence[int], contract: Sequence[int], name: str
    ) -> int:
        place: list[Affine] = [ZERO] * node.ndim
        for axes, part in ((batch, index["b"]), (free, index[name]), (contract, index["k"])):
            for axis, item in zip(axes, part, strict=True):
                place[axis] = item
        return e.pull(node, tuple(place))

    left_value = operand(left, left_batch, left_free, left_contract, "m")
    right_value = operand(right, right_batch, right_free, right_contract, "n")
    accumulator = e.add("accumulator", dot.dtype)
    dot_indices = (*index["b"], *index["m"], *index["n"])
    e._pending.clear()
    e.seed(dot, linearize(dot_indices, dot.shape), accumulator)
    places: dict[Node, Indices] = {dot: dot_indices}
    for root in group.roots:
        if root is not dot:
            places[root] = forward_indices(root, places)
    e.start_stage(
        {
            root: linearize(indices, root.shape)
            for root, indices in places.items()
            if root is not dot
        }
    )
    stores = []
    for root in group.roots:
        value = accumulator if root is dot else e.pull(root, places[root])
        e.sources[root] = None
        if root in group.outputs:
            stores.append(Store(e.buffer(root, True), linearize(places[root], root.shape), value))
    epilogue_values = needed(
        e.values, [store.value for store in stores], [store.index for store in stores]
    )
    epilogue = Stage(
        (variables["b"], variables["m"], variables["n"]), epilogue_values, (), tuple(stores)
    )
    buffers = tuple(BufferRef(node.dtype, node.size, written) for node, written in e.buffers)
    kernel = ContractionKernel(
        variables["b"],
        variables["m"],
        variables["n"],
        variables["k"],
        left_value,
        right_value,
        needed(e.values, [left_value]),
        needed(e.values, [right_value]),
        epilogue,
        tuple(e.values),
        buffers,
        dot.dtype,
    )
    arguments = tuple(node for node, _ in e.buffers)
    return Launch(
        kernel, arguments, (), _about(group), sources=tuple(e.sources), checked=e.checked
    ).located()


def forward_indices(root: Node, places: dict[Node, Indices]) -> Indices:
    """Where a root's element lies, given where one of its ancestors' does: bijective movement
    followed forwards.
    """
    path = path_to(root, places)
    if path is None:
        raise NotAligned
    source, *steps = path
    indices = places[source]
    for step in steps:
        if OPS[step.op].kind == "elementwise" or step.op in ("variable", "stop_gradient"):
            continue
        if step.op == "again" and len({value.shape for value in step.inputs}) == 1:
            continue
        if step.op == "reshape":
            indices = delinearize(linearize(indices, step.inputs[0].shape), step.shape)
        elif step.op == "permute":
            indices = tuple(indices[axis] for axis in step.attrs[0])
        elif step.op == "flip":
            indices = tuple(
                i * -1 + (step.shape[k] - 1) if k in step.attrs[0] else i
                for k, i in enumerate(indices)
            )
        else:
            raise NotAligned
    return indices


def path_to(root: Node, sources: dict[Node, Indices]) -> list[Node] | None:
    """A chain of nodes from a source to the root, each an input of the next, all of one size."""
    parent: dict[Node, Node] = {}
    stack = [root]
    seen = {root}
    while stack:
        current = stack.pop()
        for value in current.inputs:
            if value in seen or value.size != root.size:
                continue
            seen.add(value)
            parent[value] = current
            if value in sources:
                path = [value]
                while path[-1] is not root:
                    path.append(parent[path[-1]])
                return path
            kind = OPS[value.op].kind
            if kind == "elementwise" or value.op in ("reshape", "permute", "flip", "again"):
                stack.append(value)
    return None
