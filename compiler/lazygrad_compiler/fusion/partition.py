"""The stage `fused`: which nodes share a kernel, and which values go through memory.

In: an optimised graph.  Out: groups in the order they run. First it is decided which nodes are
roots, that is, computed by a kernel of their own making: outputs, reductions, contractions,
scatters, and elementwise values that are too dear to compute again for each of their users.  All
else is pulled into its users. Then roots are merged into groups, greedily in order: an epilogue
into its contraction, maps and reductions over the same rows into one row kernel.  A merge is legal
if it makes no cycle and the group still lowers to one kernel; lowering itself is asked. Every
refused merge leaves a reason, one of `Reason`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from lazygrad_compiler import decisions
from lazygrad_compiler.fusion.order import in_order
from lazygrad_compiler.fusion.reads import reads as values_read
from lazygrad_compiler.fusion.reads import waits_for
from lazygrad_compiler.fusion.shared import instead_of_products, is_large, not_stored
from lazygrad_compiler.ir.loop import siblings
from lazygrad_compiler.ir.node import Graph, Node, topological
from lazygrad_compiler.ir.ops import ARRAY_KINDS, OPS
from lazygrad_compiler.loops.alike import structure
from lazygrad_compiler.loops.columns import (
    column_group,
    rows_and_columns,
    statistics_of_columns,
)
from lazygrad_compiler.loops.concat import LARGE_PIECE, is_joined, placed_pieces
from lazygrad_compiler.loops.lower import (
    Group,
    NotAligned,
    is_reduction,
    is_woven,
    lower_contraction,
    lower_rows,
    positions,
)
from lazygrad_compiler.loops.schedule import COSTS

CHEAP = 6
"""An elementwise value of this cost or less is computed again for each user rather than stored."""
MOST_PACKED = 2
"""What an operand of a contraction may cost: packing reads it more than once."""
LARGE = 100
"""Instrs pulled into one value before it is stored, to bound compile time."""
MOST_ROOTS = 24


class Reason(enum.Enum):
    """Why two neighbours are not one kernel."""

    CYCLE = "fusing them would need a value before it exists"
    SIZE = "they run over different numbers of elements"
    NOT_ALIGNED = "one reads the other at another place than where it is computed"
    KIND = "the kernel kinds do not combine"
    SERIAL = "a whole-array result would make the other one serial"
    TAKEN = "the reader is fused with another of the values that it reads"
    LIMIT = "the kernel would become too large"
    HELD_BACK = "a search for a wrong decision keeps them apart"
    ATTENTION_SMALL = "attention of few queries or keys: products and a softmax are the faster way"
    ATTENTION_READ = "attention whose scores or weights are wanted, too: they are stored anyway"
    ATTENTION_TARGET = "attention of heads for which this target has no kernel"
    ATTENTION_DROPOUT = "attention with dropout, for which this target has no kernel"
    ATTENTION_SCORES = "nearly attention, but its scores are no product that is scaled, then masked"
    ATTENTION_WEIGHTS = "nearly attention, but its weights are changed before they meet the values"
    ATTENTION_FORM = "nearly attention, but not in a form that is recognised"


@dataclass(slots=True)
class Partition:
    """groups: in execution order.  refused: (producer root, consumer root, reason).  again: shared
    values that no kernel stores, though they take more than a few instructions.  bodies: of the
    groups that are loops, once they are lowered.
    """

    groups: list[Group]
    stored: set[Node]
    refused: list[tuple[Node, Node, Reason]] = field(default_factory=list)
    again: list[Node] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Body:
    """What is done in each step of a loop.  group: the loop's."""

    group: Group
    graph: Graph
    parts: Partition


def is_free(node: Node) -> bool:
    """Never computed by itself: an index map or a constant."""
    return OPS[node.op].kind in ("movement", "marker") or node.op in ("const", "iota")


def own_cost(node: Node) -> int:
    """Instructions for a vector of an elementwise value, without its operands'."""
    if node.op == "random_bits":
        return COSTS["philox"]
    if node.op == "gather":
        return COSTS["dynamic"]
    return COSTS.get(node.op, 1)


def choose_roots(
    graph: Graph, order: list[Node], unstored: list[Node] | None = None
) -> list[Node]:
    """The nodes that are computed by kernels, inputs before users.  unstored: gets the shared
    values that are computed in each reader instead.
    """
    outputs = {output for output in graph.outputs if output.op != "input"}
    # users through index maps: (how many, whether one of them repeats elements, whether one is a
    # contraction, …)
    users: dict[Node, list[tuple[Node, int, bool]]] = {node: [] for node in order}
    for node in reversed(order):
        if is_free(node):
            grows = node.op == "window" or (
                node.op == "expand" and node.size >= 4 * max(node.inputs[0].size, 1)
            )
            through = [(user, place, grown or grows) for user, place, grown in users[node]]
            if node in outputs:
                through.append((node, 0, grows))
            for value in dict.fromkeys(node.inputs):
                users[value] += through
        else:
            for place, value in enumerate(node.inputs):
                users[value].append((node, place, False))
    forced = reordered_operands(order) | joined_operands(order) | array_operands(order)
    forced |= turned_images(order)
    forced |= {node.inputs[0] for node in order if node.op == "again"}
    forced |= {piece for node in order if is_joined(node) for piece in node.inputs}
    book = decisions.ledger()
    roots: list[Node] = []
    shared: list[Node] = []  # those that are stored because several want them, and for nothing else
    again: dict[Node, int] = {}  # what they cost
    cost: dict[Node, int] = {}
    whole: dict[Node, int] = {}  # the same if no large shared value is stored in the end
    size: dict[Node, int] = {}
    for node in order:
        kind = OPS[node.op].kind
        if node.op in ("input", "const", "iota"):
            cost[node] = whole[node] = size[node] = 0
            root = node in outputs or (node in forced and node.op != "input")
        else:
            own = 0 if is_free(node) else own_cost(node)
            cost[node] = sum(cost[v] for v in node.inputs) + own
            whole[node] = sum(whole[v] for v in node.inputs) + own
            size[node] = sum(size[v] for v in node.inputs) + (0 if is_free(node) else 1)
            root = node in outputs or kind in ("reduction", "contraction") or node.op == "scatter"
            root = root or kind in ARRAY_KINDS
            root = root or node in forced
            if not root and not is_free(node):
                root = _worth_storing(node, cost[node], size[node], users[node])
                packed = any(user.op == "dot" for user, _, _ in users[node])
                if packed and whole[node] > MOST_PACKED:
                    root = True
                elif root and not _worth_storing(
                    node, cost[node], size[node], users[node], False
                ):
                    shared.append(node)
                    again[node] = cost[node]
                if not root and book is not None:
                    root = not book.take(f"{node!r} computed inside its readers", node.location)
        if root:
            roots.append(node)
            cost[node] = size[node] = 0
            if node not in again or not is_large(node):
                whole[node] = 0
    added = instead_of_products(
        roots, lambda value: {user for user, _, _ in users[value]}, outputs)
    if added:
        kept = added.union(roots)
        roots = [node for node in order if node in kept]
    computed = not_stored(
        shared, roots, again,
        lambda v: book is None or book.take(f"{v!r} computed again in its readers", v.location))
    if unstored is not None:
        unstored += [root for root in roots if root in computed]
    return [root for root in roots if root not in computed]


def array_operands(order: Iterable[Node]) -> set[Node]:
    """What kernels over whole arrays read: it has to lie in memory."""
    return {value for node in order if OPS[node.op].kind in ARRAY_KINDS for value in node.inputs}


def reordered_operands(order: Iterable[Node]) -> set[Node]:
    """Operands of contractions that are repeated along the batch and lie in another order in
    memory; and those of which a part is taken at steps, whether repeated or not.

    Each batch packs them again; put in order once, they pack as plain copies, or need not be
    packed.  (The flipped, transposed weights of a convolution's input gradient are the case in
    point, and every second tap of those for one phase of a strided one's: the gradient of
    32x128x16x16 to 256 at a stride of 2 takes 2.5 ms instead of 4.4.)
    """
    found: set[Node] = set()
    for node in order:
        if node.op != "dot":
            continue
        for operand in node.inputs:
            current, repeated = operand, 1
            while current.op in ("expand", "reshape"):
                if current.op == "expand":
                    repeated *= current.size // max(current.inputs[0].size, 1)
                current = current.inputs[0]
            some = current.op == "slice" and max(current.attrs[2]) > 1
            whole = current.inputs[0] if some else current
            turned = whole.op in ("permute", "flip")
            if turned and (repeated >= 4 or some or _goes_with_windows(operand, node)):
                found.add(current)
    return found


def _goes_with_windows(operand: Node, dot: Node) -> bool:
    """Whether the other operand is made of windows, many of them."""
    other = dot.inputs[dot.inputs[0] is operand]
    while is_free(other) and other.op != "window" and other.op != "concat":
        other = other.inputs[0]
    return other.op == "window" and other.size > other.inputs[0].size


def joined_operands(order: Iterable[Node]) -> set[Node]:
    """Concatenations that contractions read through windows, or that are large.

    Packing would ask at every element which piece it lies in, and windows ask many times.  (The
    skip connections of a U-Net, 3x3 over 4x(32 + 32)x64x64 to 32 channels: 3.2 ms instead of 11.6,
    the gradient of the weights 3.4 instead of 21.5, with about one core of Zen 5.)
    """
    found: set[Node] = set()
    for node in order:
        if node.op != "dot":
            continue
        stack = [(operand, False) for operand in node.inputs]
        while stack:
            current, windowed = stack.pop()
            if current.op == "concat":
                if (windowed or current.size >= LARGE_PIECE) and not is_woven(current):
                    found.add(current)
            elif OPS[current.op].kind == "movement":
                windowed |= current.op == "window" and current.size > current.inputs[0].size
                stack += [(value, windowed) for value in current.inputs]
    return found


def turned_images(order: Iterable[Node]) -> set[Node]:
    """What windows would go through at large steps: arrays whose last axis lies elsewhere in
    memory, as in images with their channels last, and in planes (`conv_planes.py`); and every
    so many-th element of rows.
    """
    found: set[Node] = set()
    for node in order:
        if node.op != "window":
            continue
        several, current = node.size > node.inputs[0].size, node.inputs[0]
        while current.op in ("pad", "slice", "permute"):
            turned = current.op == "permute" and current.attrs[0][-1] != current.ndim - 1
            if (turned and several) or (current.op == "slice" and current.attrs[2][-1] > 1):
                found.add(current)
                break
            current = current.inputs[0]
    return found


def _worth_storing(
    node: Node, cost: int, size: int, users: Iterable[tuple[Node, int, bool]], shared: bool = True
) -> bool:
    """shared: whether several users are a reason."""
    users = list(users)
    if size > LARGE:
        return True
    distinct = {user for user, _, _ in users}
    if shared and len(distinct) > 1 and cost > CHEAP:
        return True
    for user, place, grows in users:
        if user.op == "dot" and cost > MOST_PACKED:
            return True
        if user.op == "gather" and place == 0 and cost > 1:
            return True
        if user.op == "scatter" and place >= 1 and cost > CHEAP:
            return True
        if grows and cost > 3:
            return True
    return False


class _Merger:
    """The state of greedy merging: groups, their mutual dependences as bit masks, who computes
    what.
    """

    def __init__(self, graph: Graph, roots: list[Node], may_reduce_rows: set[Node]) -> None:
        self.graph = graph
        self.roots = set(roots)
        self.may_reduce_rows = may_reduce_rows
        self.over_rows: set[Node] = set()
        self.groups: list[Group] = []
        self.ancestors: list[int] = []
        self.group_of: dict[Node, int] = {}
        self.readers: dict[Node, list[int]] = {}
        self.refused: list[tuple[Node, Node, Reason]] = []
        self.calls: dict[tuple, int] = {}
        self.tried: dict[tuple, Reason | None] = {}
        self.ledger = decisions.ledger()

    def stored(self, node: Node) -> bool:
        return node.op == "input" or node in self.roots

    def place(self, root: Node) -> None:
        """Puts the root into a group: an existing one where that works, else its own."""
        reads = values_read(root, self.stored)
        needed = [self.group_of[value] for value in waits_for(root, self.stored)
                  if value in self.group_of]
        if root.op in CALLS and _call_of(root) in self.calls:
            # another result of the same call: same inputs, hence no cycle
            number = self.calls[_call_of(root)]
            self.groups[number].roots.append(root)
            self.refused += [(value, root, Reason.KIND) for value in reads
                             if self.group_of.get(value, number) != number]
            self._note(root, number, reads, needed)
            return
        if is_joined(root):
            self.groups.append(Group("joined", [root]))
            self.ancestors.append(0)
            self.refused += [(value, root, Reason.KIND) for value in reads]
            self._note(root, len(self.groups) - 1, reads, needed)
            return
        alone = _alone(root, self.stored, root in self.may_reduce_rows)
        if alone.columns:
            self.over_rows.add(root)
        candidates = list(dict.fromkeys(sorted(needed, reverse=True)))
        for value in reads:
            candidates += [g for g in self.readers.get(value, [])[-4:] if g not in candidates]
        for number in candidates:
            before = self.groups[number]
            reason = self._try(root, number, needed)
            if reason is None and self.ledger is not None and not self.ledger.take(
                f"{root!r} into the kernel of {before.roots[0]!r}", root.location
            ):
                self.groups[number], reason = before, Reason.HELD_BACK
            if reason is None:
                tried = {value for value, reader, _ in self.refused if reader is root}
                for value in reads:
                    if self.group_of.get(value, number) != number and value not in tried:
                        self.refused.append((value, root, Reason.TAKEN))
                self._note(root, number, reads, needed)
                return
            for value in reads:
                if self.group_of.get(value) == number:
                    self.refused.append((value, root, reason))
        self.groups.append(alone)
        self.ancestors.append(0)
        self._note(root, len(self.groups) - 1, reads, needed)
        if root.op in CALLS:
            self.calls[_call_of(root)] = len(self.groups) - 1

    def _note(self, root: Node, number: int, reads: list[Node], needed: list[int]) -> None:
        self.group_of[root] = number
        more = 0
        for other in needed:
            if other != number:
                more |= (1 << other) | self.ancestors[other]
        self.ancestors[number] |= more
        for value in reads:
            listed = self.readers.setdefault(value, [])
            if number not in listed:
                listed.append(number)
        for other in range(len(self.groups)):
            if self.ancestors[other] >> number & 1:
                self.ancestors[other] |= self.ancestors[number]

    def _try(self, root: Node, number: int, needed: list[int]) -> Reason | None:
        """Adds the root to the group if that is legal; otherwise says why not and leaves the group
        as it was.
        """
        group = self.groups[number]
        if any(other != number and self.ancestors[other] >> number & 1 for other in needed):
            return Reason.CYCLE
        if len(group.roots) >= MOST_ROOTS:
            return Reason.LIMIT
        if group.kind == "joined":
            return Reason.KIND
        if OPS[root.op].kind == "contraction" or root.op == "scatter" or group.kind == "scatter":
            return Reason.KIND
        if root.op == "sort_values" and _same_sort(group, root):
            self.groups[number] = Group("sort", [*group.roots, root], anchor=group.anchor)
            return None
        if group.kind == "attention" and _same_attention(group, root):
            self.groups[number] = Group("attention", [*group.roots, root], anchor=group.anchor)
            return None
        if OPS[root.op].kind in ARRAY_KINDS or group.kind in ARRAY_KINDS:
            return Reason.KIND
        if root.size == 0:
            return Reason.SIZE
        if group.kind == "contraction":
            if is_reduction(root) or root.op == "stop_gradient":
                return Reason.KIND
            if group.anchor is not None and root.size != group.anchor.size:
                return Reason.SIZE
            return self._lowers(
                Group("contraction", [*group.roots, root], anchor=group.anchor), number
            )
        shaped = _reshaped(group, root, root in self.over_rows)
        if isinstance(shaped, Reason):
            return shaped
        return self._lowers(shaped, number)

    def _lowers(self, proposal: Group, number: int) -> Reason | None:
        members = set(proposal.roots)

        def stored(node: Node) -> bool:
            return self.stored(node) and node not in members

        key = structure(proposal, stored)[0]
        if key not in self.tried:
            self.tried[key] = _refusal(proposal, stored)
        reason = self.tried[key]
        if reason is None:
            self.groups[number] = proposal
        return reason


def _refusal(group: Group, stored: Callable[[Node], bool]) -> Reason | None:
    """Why a group is not one kernel, if it is not."""
    try:
        if group.kind == "contraction":
            lower_contraction(group, stored)
        else:
            launch = lower_rows(group, stored, trial=True)
            if len(launch.kernel.values) > 3 * LARGE:
                return Reason.LIMIT
    except NotAligned:
        return Reason.NOT_ALIGNED
    return None


CALLS = frozenset({"library", "loop"})
"""Ops with several results, which are nodes that differ in their last attribute."""


def _call_of(root: Node) -> tuple:
    """What the results of one library call, or of one loop, have in common."""
    if root.op == "loop":
        return siblings(root)
    name, options, _ = root.attrs
    return name, options, root.inputs


def _same_sort(group: Group, root: Node) -> bool:
    """Whether the values are those whose order the group computes: the kernel has both at hand."""
    value, order = root.inputs
    return order is group.anchor and order.op == "argsort" and order.inputs[0] is value


def _same_attention(group: Group, root: Node) -> bool:
    """Output and statistics of one attention, or gradients of one: one pass computes them all."""
    anchor = group.anchor
    assert anchor is not None
    if OPS[root.op].kind != "attention" or root.inputs != anchor.inputs:
        return False
    gradients = [each.op == "attention_grad" for each in (root, anchor)]
    return gradients[0] == gradients[1] and root.attrs[:5] == anchor.attrs[:5]


def _alone(root: Node, stored: Callable[[Node], bool], columns: bool) -> Group:
    if OPS[root.op].kind == "contraction":
        return Group("contraction", [root], anchor=root)
    if root.op == "scatter":
        return Group("scatter", [root], anchor=root)
    if OPS[root.op].kind in ARRAY_KINDS:
        return Group(OPS[root.op].kind, [root], anchor=root)
    over_rows = column_group(root, stored) if columns else None
    if over_rows is not None:
        return over_rows
    if is_reduction(root):
        length = math.prod(root.inputs[0].shape[axis] for axis in root.attrs[0])
        return Group("loops", [root], rows=root.size, inner=length)
    return Group("loops", [root], rows=positions(root), inner=1)


def _reshaped(group: Group, root: Node, over_rows: bool) -> Group | Reason:
    """The row group with the root added, its rows and inner length settled; or why they
    do not fit.  over_rows: the root is a reduction over the rows.
    """
    roots = [*group.roots, root]
    has_reduction = any(is_reduction(member) for member in group.roots)
    if over_rows:
        rows, inner = rows_and_columns(root)
        fits = group.rows == rows * inner
        if has_reduction or group.inner != 1:
            fits = (group.rows, group.inner) == (rows, inner)
        columns = group.columns | {root}
        if not fits:
            return Reason.SIZE
        return Group("loops", roots, rows=rows, inner=inner, columns=columns)
    if is_reduction(root):
        rows, inner = root.size, root.inputs[0].size // max(root.size, 1)
        if has_reduction or group.inner != 1:
            return (
                Group("loops", roots, rows=rows, inner=inner, columns=group.columns)
                if (group.rows, group.inner) == (rows, inner)
                else Reason.SIZE
            )
        if group.rows != rows * inner:
            return Reason.SIZE
        if rows < 8 and inner > 4096:
            return Reason.SERIAL
        return Group("loops", roots, rows=rows, inner=inner)
    if positions(root) == group.rows * group.inner:
        if has_reduction and group.rows < 8 and group.inner > 16384:
            return Reason.SERIAL
        return replace(group, roots=roots)
    if has_reduction and positions(root) == group.rows:
        return replace(group, roots=roots)
    return Reason.SIZE


def _may_reduce_rows(order: list[Node], roots: list[Node]) -> set[Node]:
    """The reductions that need not be done column by column."""
    users: dict[Node, list[Node]] = {}
    for user in order:
        for value in user.inputs:
            users.setdefault(value, []).append(user)
    reductions = {root for root in roots if is_reduction(root)}
    return reductions - statistics_of_columns(reductions, users)


def partition(graph: Graph, columns: bool = True) -> Partition:
    """Groups in execution order; every group's outputs are set.  columns: row kernels may reduce
    over their rows, too.
    """
    order = topological(graph.outputs)
    book = decisions.ledger()
    if book is not None:
        book.step = "fuse"
    again: list[Node] = []
    roots = choose_roots(graph, order, again)
    may_reduce_rows = _may_reduce_rows(order, roots) if columns else set()
    merger = _Merger(graph, roots, may_reduce_rows)
    for root in roots:
        merger.place(root)
    outputs = set(graph.outputs)
    placed = {piece: place for root in roots if is_joined(root)
              for piece, place in placed_pieces(root).items()}
    used_by: dict[Node, set[int]] = {}
    for root in roots:
        for value in values_read(root, merger.stored):
            used_by.setdefault(value, set()).add(merger.group_of[root])
    for number, group in enumerate(merger.groups):
        group.outputs = {
            root for root in group.roots if root in outputs or used_by.get(root, set()) - {number}
        }
        group.placed = {root: placed[root] for root in group.roots if root in placed}
    ordered = [merger.groups[number] for number in in_order(
        [group.outputs - outputs for group in merger.groups], merger.ancestors, used_by,
        _replaced(merger.groups, outputs, used_by))]
    stored = set().union(*(group.outputs for group in ordered)) if ordered else set()
    return Partition(ordered, stored, merger.refused, again)


def _replaced(
    groups: list[Group], outputs: set[Node], used_by: dict[Node, set[int]]
) -> dict[int, set[Node]]:
    """The inputs that a group reads and that an output of the program it writes is like."""
    like = [{(value.dtype, value.shape) for value in group.outputs & outputs} for group in groups]
    found: dict[int, set[Node]] = {}
    for value, numbers in used_by.items():
        if value.op == "input":
            for number in numbers:
                if (value.dtype, value.shape) in like[number]:
                    found.setdefault(number, set()).add(value)
    return found
