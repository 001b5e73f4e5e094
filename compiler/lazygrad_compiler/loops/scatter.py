"""Lowering of scatters: a copy of the base, and the updates onto it, in row-major order.

Tasks share the elements of an update, and those axes of positions on which an index counts, since
no two positions of such an axis meet.  Where an index is a permutation or the places of a mask, no
two positions meet at all (`meets_nowhere`), and tasks share all of them.  Where there is none of
this, and the order of combining is free, the updates are cut into a fixed number of parts, each
with a copy of the target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from lazygrad_compiler.ir.node import Location, Node, merge_locations, node
from lazygrad_compiler.loops.arrays import temporary
from lazygrad_compiler.loops.index import Affine, Dyn, Var, linearize, variable
from lazygrad_compiler.loops.kernel import BufferRef, Instr, Launch, ScatterKernel
from lazygrad_compiler.loops.lower import Group, lower_rows
from lazygrad_compiler.loops.pull import Evaluator

COLUMNS_TOGETHER = 64
"""Neighbouring positions that a task takes where each of them is a column for itself."""
POSITIONS_TOGETHER = 1024
"""Neighbouring positions that a task takes where no two meet."""
SHARED_UPDATES = 1 << 16
"""Updates from which on it pays to let the threads share them."""


def _distinct_axis(index: Node) -> int | None:
    """The axis along which an index surely never repeats; -1 if it repeats nowhere at all."""
    if index.op == "compact":
        return -1
    if index.op in ("argsort", "top_k"):
        return index.ndim - 1
    if index.op not in ("permute", "slice", "flip", "reshape", "stop_gradient"):
        return None
    axis = _distinct_axis(index.inputs[0])
    if axis is None or axis == -1:
        return axis
    if index.op == "permute":
        return int(index.attrs[0].index(axis))
    if index.op == "reshape":  # axes of size 1 come and go
        before, after = index.inputs[0].shape, index.shape
        kept = [k for k, size in enumerate(after) if size != 1]
        if before[axis] == 1 or tuple(size for size in before if size != 1) != tuple(
                after[k] for k in kept):
            return None
        return kept[sum(size != 1 for size in before[:axis])]
    return axis


def meets_nowhere(indices: Sequence[Node], counted: Sequence[int]) -> bool:
    """Whether no two positions of a scatter write to one place: an index is distinct along an axis,
    and along all others (of more than one place) an index counts, or it is distinct everywhere.

    counted: the axes of positions on which an index counts.
    """
    for index in indices:
        axis = _distinct_axis(index)
        if axis is not None and (axis == -1 or all(
                k == axis or k in counted or size == 1 for k, size in enumerate(index.shape))):
            return True
    return False


def combines_freely(scatter: Node) -> bool:
    """Whether updates may go to copies of the target that are combined afterwards: their order is
    free, and no axis of the indices tells places apart.
    """
    combines = scatter.attrs[1] in ("add", "max", "min") and scatter.dtype.kind != "bool"
    halves = scatter.dtype.kind == "float" and scatter.dtype.bits == 16
    return combines and not halves and not any(
        index.op == "iota" for index in scatter.inputs[2:]
    )


def scatter_parts(scatter: Node) -> int:
    """Into how many pieces the updates of a scatter are cut, each with a copy of the target; 1:
    they are applied one after the other.

    Where the order of combining is free, the target has no elements that tasks could share
    instead, and the copies are small beside the updates.  Depends on the shapes only.
    """
    base, updates, *indices = scatter.inputs
    if not combines_freely(scatter) or updates.ndim != indices[0].ndim:
        return 1
    if updates.size < SHARED_UPDATES:
        return 1
    return next((parts for parts in (16, 4) if 2 * parts * base.size <= updates.size), 1)


def lower_updates(
    scatter: Node, stored: Callable[[Node], bool], copies: Node | None = None
) -> Launch:
    """The updates of a scatter, onto a buffer that holds the base already.

    copies: (parts, *shape), where the updates are cut into parts; nothing has been put there.
    """
    base, updates, *index_nodes = scatter.inputs
    axes, mode = scatter.attrs
    rank = index_nodes[0].ndim
    outer = tuple(Var(f"u{k}", size) for k, size in enumerate(index_nodes[0].shape))
    inner = tuple(Var(f"e{k}", size) for k, size in enumerate(updates.shape[rank:]))
    e = Evaluator(lambda other: other is not scatter and stored(other))
    e.start_stage({})
    indices = tuple(variable(v) for v in (*outer, *inner))
    place: list[Affine | None] = [None] * base.ndim
    apart: list[Var] = []
    for index_node, axis in zip(index_nodes, axes, strict=True):
        raw = e.pull(index_node, indices[:rank])
        counted = _counted_by(e.values[raw], outer) if copies is None else None
        if counted is not None and counted.extent <= base.shape[axis]:
            place[axis] = variable(counted)
            apart.append(counted)
            continue
        checked = e.check((raw,), base.shape[axis], axis, scatter)
        place[axis] = variable(Dyn(checked, base.shape[axis]))
    rest = iter(indices[rank:])
    target_place = linearize([next(rest) if i is None else i for i in place], base.shape)
    update = e.pull(updates, indices)
    target = e.buffer(scatter if copies is None else copies, True)
    locations: Location = merge_locations(
        scatter.location, tuple([line for source in e.sources for line in source.location]))
    buffers = tuple(BufferRef(other.dtype, other.size, written) for other, written in e.buffers)
    block = 0
    counted_axes = [number for number, axis in enumerate(outer) if axis in apart]
    if copies is None and outer and meets_nowhere(index_nodes, counted_axes):
        block, apart = POSITIONS_TOGETHER, list(outer[:-1])
    elif not inner and apart and outer[-1] in apart and len(set(apart)) < len(outer):
        # the fastest axis of the indices: neighbours stay with one task
        block = COLUMNS_TOGETHER
        apart = [axis for axis in apart if axis is not outer[-1]]
    kernel = ScatterKernel(
        tuple(axis for axis in outer if axis not in apart),
        inner,
        update,
        target_place,
        target,
        mode,
        tuple(e.values),
        buffers,
        apart=tuple(dict.fromkeys(apart)),
        block=block,
        parts=1 if copies is None else copies.shape[0],
    )
    arguments = tuple(other for other, _ in e.buffers)
    return Launch(kernel, arguments, locations, f"scatter_{mode}",
                  checks=tuple([reader.location for reader in e.checked]))


def _counted_by(index: Instr, axes: Sequence[Var]) -> Var | None:
    """The axis whose number the index is, if it is one."""
    if index.op != "index":
        return None
    return next((axis for axis in axes if index.data[0] == variable(axis)), None)


Ordered = Callable[[Node, Launch, Callable[[Node], bool]], list[Launch]]
"""(scatter, the launch of its updates, what is stored) -> launches that do the same."""


def in_turn(scatter: Node, updates: Launch, stored: Callable[[Node], bool]) -> list[Launch]:
    """Positions are taken as they come."""
    return [updates]


def lower_scatter(
    group: Group, stored: Callable[[Node], bool], parts_of: Callable[[Node], int] = scatter_parts,
    ordered: Ordered = in_turn,
) -> list[Launch]:
    """A copy of the base, then the updates; or, where these come in parts, each part into a copy
    of its own, then all together.  ordered: gives the launches for the updates of one launch.
    """
    target = group.anchor
    assert target is not None
    base = target.inputs[0]
    parts = parts_of(target)
    if parts > 1:
        return _lower_shared(target, parts, stored)
    # a marker, since optimised graphs have none: no other node can be this copy
    copy = node("stop_gradient", base, location=target.location)
    filled = lower_rows(Group("loops", [copy], {copy}, rows=base.size), stored)
    arguments = tuple(target if argument is copy else argument for argument in filled.arguments)
    result = [replace(filled, arguments=arguments, about="scatter base")]
    if target.inputs[1].size:
        result += ordered(target, lower_updates(target, stored), stored)
    return result


COMBINE_COPIES = {"add": ("sum", "add"), "max": ("max", "maximum"), "min": ("min", "minimum")}


def _lower_shared(
    target: Node, parts: int, stored: Callable[[Node], bool]
) -> list[Launch]:
    """Each part of the updates into a copy of its own, then base and copies together."""
    base, reduce_name, combine_name = target.inputs[0], *COMBINE_COPIES[target.attrs[1]]
    copies = temporary(target.dtype, (parts, *target.shape))
    updates = lower_updates(target, stored, copies)
    total = node(reduce_name, copies, axes=(0,), location=target.location)
    result = node(combine_name, base, total, location=target.location)
    together = Group("loops", [total, result], {result}, rows=target.size, inner=parts)
    joined = lower_rows(together, stored)
    arguments = tuple(target if argument is result else argument for argument in joined.arguments)
    return [updates, replace(joined, arguments=arguments, about="scatter copies")]
