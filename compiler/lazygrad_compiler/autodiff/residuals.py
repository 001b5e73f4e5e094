"""Which forward values to keep for a backward pass that comes later: a minimum cut.

In: outputs that are computed now and may be differentiated afterwards.  Out: the values to keep
besides them, of least total size, such that backward needs no contraction, reduction, gather or
scatter done again; elementwise work on kept values is done again.

The graph is that of Chen et al. (2016) as a flow problem: costly values are sources, what backward
reads are sinks, the capacity of a value is its bytes, and inputs cost nothing since they are there
anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

from lazygrad_compiler.autodiff.backward import backward
from lazygrad_compiler.ir.loop import Key, Loop, siblings
from lazygrad_compiler.ir.minimum_cut import Network
from lazygrad_compiler.ir.node import IRError, Node, node, topological
from lazygrad_compiler.ir.ops import OPS

COSTLY_KINDS = frozenset(
    ("contraction", "reduction", "indexed", "library", "scan", "sort", "attention", "loop")
)


def known(value: Node) -> bool:
    return value.payload is not None or value.op in ("input", "const", "iota")


def residuals(outputs: Sequence[Node]) -> list[Node]:
    """The values to keep, in topological order; outputs themselves are not among them."""
    outputs = [output for output in dict.fromkeys(outputs) if output.differentiable]
    forward = _with_siblings(topological(outputs, stop=known))
    wanted = [value for value in forward if value.op == "variable"]
    wanted += [
        value for value in topological(outputs) if value.op == "variable" and value not in wanted
    ]
    if not wanted:
        return []
    first = -1
    cotangents = [
        node("input", index=first - number, dtype=output.dtype, shape=output.shape)
        for number, output in enumerate(outputs)
    ]
    try:
        found = backward(outputs, cotangents, wanted)
    except IRError:  # something has no gradient: backward says so, if it is ever called
        return []
    gradients = [gradient for gradient in found if gradient is not None]
    inside = set(forward)
    read = {
        value
        for current in topological(gradients, stop=lambda n: n in inside)
        if current not in inside
        for value in current.inputs
        if value in inside and not known(value)
    }
    if not read:
        return []
    return _cut(forward, read, set(outputs))


def _with_siblings(forward: Sequence[Node]) -> list[Node]:
    """And the results of loops that nobody has asked for yet: they could be kept as well."""
    found = dict.fromkeys(forward)
    seen: set[Key] = set()
    for value in forward:
        if value.op == "loop" and siblings(value) not in seen:
            seen.add(siblings(value))
            found.update(dict.fromkeys(Loop.of(value).parts()))
    return list(found)


def _cut(forward: Sequence[Node], read: set[Node], there: set[Node]) -> list[Node]:
    network = Network()
    for value in forward:
        if known(value):
            continue
        network.edge((value, "in"), (value, "out"), 0 if value in there else max(value.nbytes, 1))
        for source in value.inputs:
            if not known(source):
                network.edge((source, "out"), (value, "in"))
        if value in read:
            network.edge((value, "out"), "sink")
        if OPS[value.op].kind in COSTLY_KINDS or value.op == "transfer":
            network.edge("source", (value, "in"))
    before = network.before()
    return [
        value
        for value in forward
        if (value, "in") in before and (value, "out") not in before and value not in there
    ]
