"""Rematerialisation: which values lie in memory where a program needs most of it.

In: a graph in its final form.  Out: an equal graph, in which some elementwise values that would be
kept from before the peak until after it are computed again after it.  In a training step the peak
is the border between forward and backward; typical is gelu(h), which the next product reads and,
later, the gradient of that product's weights.  h is kept anyway, for the gradient of gelu, and the
product that makes that gradient reads it as it stores its results: it can store gelu(h) as well.
So one more write buys the memory from the forward product to there.

What is computed again is computed from `again(value, late)`: the value, but another node, and one
that waits for `late`, that product.  Without it both would be one node, or be computed side by
side.

Why no minimum cut: one over the bytes that cross the peak, with products, reductions and the like
never done again, takes of the steps of a GPT (6 x 384) and a ViT-tiny the same values and besides
them the outputs of layer norms.  Those have no kernel near that reads all they are made from, and
cost more than they are worth: 35 MiB of 231 for 1.7 % of the GPT's time.  In ResNet-18 and a U-Net
it finds chains along residual connections and sigmoids that several kernels would compute again,
13 and 11 % more bytes to move, and no lower peak.
"""

from __future__ import annotations

from lazygrad_compiler import decisions
from lazygrad_compiler.fusion.partition import choose_roots, own_cost
from lazygrad_compiler.fusion.reads import reads
from lazygrad_compiler.ir.node import Graph, Node, node, rebuild, topological
from lazygrad_compiler.ir.ops import OPS

LEAST_BYTES = 1 << 20
"""Smaller values are no matter for memory."""
MOST_COST = 64
"""Instructions for a vector that are worth doing twice.  (The kernel that does them has computed
most of an activation for its gradient.)
"""

PASSED = frozenset({"elementwise", "movement", "marker", "leaf"})


def rematerialise(graph: Graph) -> Graph:
    order = topological(graph.outputs)
    if not any(_is_large(value) and OPS[value.op].kind == "elementwise" for value in order):
        return graph
    plan = _Plan(graph, order)
    again = plan.values_again()
    return plan.rewritten(again) if again else graph


def computed_again(graph: Graph) -> list[tuple[Node, list[Node]]]:
    """The values that a graph computes once more, and the kept values that each is computed from.
    """
    found: dict[Node, list[Node]] = {}
    sources: dict[Node, dict[Node, None]] = {}
    for value in topological(graph.outputs):
        if value.op == "again":
            sources[value] = {value.inputs[0]: None}
        elif _is_costly(value):
            for operand in value.inputs:
                while OPS[operand.op].kind == "movement":
                    operand = operand.inputs[0]
                if operand in sources:
                    found[operand] = list(sources[operand])
        elif inside := [operand for operand in value.inputs if operand in sources]:
            sources[value] = {source: None for operand in inside for source in sources[operand]}
    return list(found.items())


def _is_large(value: Node) -> bool:
    return value.nbytes >= LEAST_BYTES


def _is_costly(value: Node) -> bool:
    return OPS[value.op].kind not in PASSED


class _Plan:
    """Where values are computed and read, in time: the *level* of a value is how many costly
    operations lie on the longest way to it.  first, last: levels of the kernels that read it.
    """

    def __init__(self, graph: Graph, order: list[Node]) -> None:
        self.graph = graph
        self.order = order
        self.outputs = set(graph.outputs)
        self.roots = set(choose_roots(graph, order))
        self.level: dict[Node, int] = {}
        for value in order:
            before = max((self.level[operand] for operand in value.inputs), default=0)
            self.level[value] = before + _is_costly(value)
        self.first = dict.fromkeys(order, len(order))
        self.last = dict.fromkeys(order, -1)
        self.users: dict[Node, list[Node]] = {value: [] for value in order}
        for value in reversed(order):
            first, last = self.first[value], self.last[value]
            if value in self.roots:
                first = last = self.level[value]
            for operand in dict.fromkeys(value.inputs):
                self.first[operand] = min(self.first[operand], first)
                self.last[operand] = max(self.last[operand], last)
                self.users[operand].append(value)
        self.peak = self._peak()

    def _peak(self) -> int:
        """The level after which most bytes are still to be read."""
        changes: dict[int, int] = {}
        for value in self.roots - self.outputs:
            first, last = self.level[value], self.last[value]
            if last > first:
                changes[first] = changes.get(first, 0) + value.nbytes
                changes[last] = changes.get(last, 0) - value.nbytes
        live = most = peak = 0
        for level in sorted(changes):
            live += changes[level]
            if live > most:
                most, peak = live, level
        return peak

    def values_again(self) -> dict[Node, Node]:
        """For each value that is not to be kept over the peak, the one to be read after it."""
        asked = {value for value in self.order if self._may_go(value)}
        book = decisions.ledger()
        found: dict[Node, Node] = {}
        for value in self.order:
            if value not in asked:
                continue
            sources = reads(value, self._stored)
            there = all(source.op == "input" or not _is_large(source)
                        or (self._crosses(source) and source not in asked) for source in sources)
            late = self._beside(value, sources) if there else None
            if late is not None and self._cost(value, sources) <= MOST_COST and (
                    book is None or book.take(f"{value!r} computed again after the peak",
                                              value.location)):
                found[value] = _again(value, set(sources), late)
            else:
                asked.discard(value)
        return found

    def _may_go(self, value: Node) -> bool:
        """Large, kept over the peak, and read by nothing but products after it.  (What other
        kernels read need not be in memory: `shared.py` decides.)
        """
        return (_is_large(value) and OPS[value.op].kind == "elementwise"
                and value not in self.outputs and self._crosses(value)
                and self.first[value] <= self.peak
                and all(reader.op == "dot" for reader in self._late_readers(value)))

    def _crosses(self, value: Node) -> bool:
        """Whether it is kept over the peak."""
        return value in self.roots and self.level[value] <= self.peak < self.last[value]

    def _stored(self, value: Node) -> bool:
        return value.op == "input" or value in self.roots

    def _late_readers(self, value: Node) -> list[Node]:
        """The values of kernels after the peak that are computed from `value` directly."""
        found: dict[Node, None] = {}
        stack, seen = list(self.users[value]), set()
        while stack:
            current = stack.pop()
            if current in seen:
                continue
            seen.add(current)
            if current not in self.roots:
                stack += self.users[current]
            elif self.level[current] > self.peak:
                found[current] = None
        return sorted(found, key=self.level.__getitem__)

    def _beside(self, value: Node, sources: list[Node]) -> Node | None:
        """A product after the peak, of the value's shape, whose kernel reads what the value is made
        from, and which no later reader of the value is needed for.
        """
        limit = min(self.level[reader] for reader in self._late_readers(value))
        for source in sources:
            if source.size != value.size:
                continue
            for reader in self._late_readers(source):
                for late in reads(reader, self._stored):
                    if (late.op == "dot" and late.shape == value.shape
                            and self.peak < self.level[late] == self.level[reader] <= limit):
                        return late
        return None

    def _cost(self, value: Node, sources: list[Node]) -> int:
        region = topological([value], stop=set(sources).__contains__)
        return sum(own_cost(each) for each in region
                   if OPS[each.op].kind == "elementwise" and each not in sources)

    def rewritten(self, again: dict[Node, Node]) -> Graph:
        """The graph whose kernels after the peak read the values computed again."""
        late: dict[Node, Node] = {}
        for value in self.order:
            if value in again:
                late[value] = again[value]
            elif value in self.roots and self.level[value] <= self.peak:
                late[value] = value
            else:
                late[value] = rebuild(value, [late[operand] for operand in value.inputs])
        return Graph(tuple(late[output] for output in self.graph.outputs))


def _again(value: Node, sources: set[Node], late: Node) -> Node:
    """The value computed once more."""
    made: dict[Node, Node] = {}
    for current in topological([value], stop=sources.__contains__):
        if current in sources:
            made[current] = node("again", current, late, location=current.location)
        else:
            made[current] = rebuild(current, [made[operand] for operand in current.inputs])
    return made[value]
