"""Attention made ready for its kernel: operands read where they lie, small ones taken apart.

- An operand that is a permuted, cut or reshaped part of an array, as heads of a projection are, is
  given as a view of that array, so that it is not copied.
- Few scores, or few queries, do not fill the kernel's vectors: the products and reductions that
  attention consists of do better.  Few queries to many keys have a kernel of their own, forward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from lazygrad_compiler.autodiff.attention_parts import composed
from lazygrad_compiler.ir.inference_attention import operand_shapes
from lazygrad_compiler.ir.node import Graph, Node, node, rebuild, topological
from lazygrad_compiler.ir.ops import OPS
from lazygrad_compiler.loops.attention import decodes, row_major

FEWEST_QUERIES = 24
FEWEST_SCORES = 1 << 10
"""Queries of a head, and scores, from which on the kernel is the faster way: 64 heads of 64 took
135 us with 32 queries and 32 keys (taken apart 164), but 3.8 ms with 8 and 1024 (3.0)."""
LARGEST_PART = 4
"""An array is stored for the sake of a part of it if it is at most so many times as large."""


def small(attention: Node) -> bool:
    """Whether attention is taken apart."""
    q, k, v = operand_shapes(attention.inputs, attention.attrs[3])[:3]
    queries, keys = q[2], k[2]
    if 0 in (*q, *k, *v):
        return True
    return queries < FEWEST_QUERIES or queries * keys < FEWEST_SCORES


def _decodes(attention: Node) -> bool:
    q, k, v = operand_shapes(attention.inputs, attention.attrs[3])[:3]
    if attention.op != "attention" or attention.attrs[4] or 0 in (*q, *v):
        return False
    return decodes(q, k, attention.attrs[1])


def apart_where(
    small: Callable[[Node], bool], decodes: Callable[[Node], bool] = lambda attention: False
) -> Callable[[Graph], Graph]:
    """A pass that writes attention as products and reductions where it is small, or where the
    program has the scores anyway, since something else reads them.

    decodes: whether there is a kernel for it although it is small.  Such a kernel has no
    statistics: what asks for them, or for gradients, shares scores.
    """

    def take_apart(graph: Graph) -> Graph:
        order = topological(graph.outputs)
        found = [each for each in order if OPS[each.op].kind == "attention"]
        if not found:
            return graph
        products = {(origin(a), origin(b)) for a, b in (d.inputs for d in order if d.op == "dot")}
        readers = Counter(each.inputs[:3] for each in found)
        apart = {
            each
            for each in found
            if (small(each) and not (decodes(each) and readers[each.inputs[:3]] == 1))
            or (origin(each.inputs[0]), origin(each.inputs[1])) in products
        }
        return _composed(graph, apart)

    return take_apart


take_apart = apart_where(small, _decodes)
"""For a CPU."""


def _composed(graph: Graph, apart: set[Node]) -> Graph:
    if not apart:
        return graph
    result: dict[Node, Node] = {}
    for current in topological(graph.outputs):
        made = rebuild(current, [result[value] for value in current.inputs])
        if current in apart:
            made = composed(made, made.inputs)
        result[current] = made
    return Graph(tuple(result[output] for output in graph.outputs))


def origin(value: Node) -> Node:
    """What index maps and markers take a value from."""
    while OPS[value.op].kind in ("movement", "marker") and len(value.inputs) == 1:
        value = value.inputs[0]
    return value


def with_views(attention: Node) -> Node:
    """The op on views of stored arrays."""
    if attention.attrs[3]:
        return attention
    inputs: list[Node] = []
    views: list[tuple | None] = []
    for number, value in enumerate(attention.inputs):
        found = None
        if number < (4 if attention.op == "attention_grad" else 3):
            found = part_of_array(value)
        if found is None:
            inputs.append(value)
            views.append(None)
            continue
        base, offset, strides = found
        inputs.append(base)
        views.append((offset, value.shape, strides))
    if not any(views):
        return attention
    scale, causal, empty_is_zero, _, dropout, *part = attention.attrs
    attrs = {"part": part[0]} if part else {}
    return node(
        attention.op,
        *inputs,
        scale=scale,
        causal=causal,
        empty_is_zero=empty_is_zero,
        views=tuple(views),
        dropout=dropout,
        location=attention.location,
        **attrs,
    )


def part_of_array(value: Node) -> tuple[Node, int, tuple[int, ...]] | None:
    """(array, offset, strides) for a value that index maps take from an array; None where it had
    better be stored by itself.
    """
    base, offset, strides = strided(value)
    if base is value or base.op in ("const", "iota"):
        return None
    if value.shape[-1] > 1 and strides[-1] != 1:
        return None
    if base.op != "input" and base.size > LARGEST_PART * value.size:
        return None
    return base, offset, strides


def strided(value: Node) -> tuple[Node, int, tuple[int, ...]]:
    """The array that a value is a part of, where its first element lies, and the step of each of
    its axes; the value itself where it is no such part.
    """
    chain = []
    base = value
    while base.op in ("permute", "reshape", "slice", "expand"):
        chain.append(base)
        base = base.inputs[0]
    if OPS[base.op].kind == "movement":
        chain, base = [], value
    offset, strides = 0, row_major(base.shape)
    for step in reversed(chain):
        if step.op == "permute":
            strides = tuple(strides[axis] for axis in step.attrs[0])
        elif step.op == "slice":
            starts, _, steps = step.attrs
            offset += sum(start * s for start, s in zip(starts, strides, strict=True))
            strides = tuple(s * each for s, each in zip(strides, steps, strict=True))
        elif step.op == "expand":
            sizes = zip(strides, step.inputs[0].shape, step.shape, strict=True)
            strides = tuple(s if size == new else 0 for s, size, new in sizes)
        else:
            reshaped = reshaped_strides(step.inputs[0].shape, strides, step.shape)
            if reshaped is None:  # not a view: the array begins here
                base, offset, reshaped = step, 0, row_major(step.shape)
            strides = reshaped
    return base, offset, strides


def reshaped_strides(
    old: tuple[int, ...], strides: tuple[int, ...], new: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Strides after a reshape; None where no strides say it.

    Runs of old axes that lie in one piece are cut into new axes from the last one on.
    """
    pieces: list[tuple[int, int]] = []  # (size, step of its last element), last axis first
    for size, step in zip(reversed(old), reversed(strides), strict=True):
        if size == 1:
            continue
        if pieces and step == pieces[-1][0] * pieces[-1][1]:
            pieces[-1] = (pieces[-1][0] * size, pieces[-1][1])
        else:
            pieces.append((size, step))
    result = []
    left, step = pieces.pop(0) if pieces else (1, 1)
    for size in reversed(new):
        if size == 1:
            result.append(0)
            continue
        if left == 1:
            left, step = pieces.pop(0)
        if left % size:
            return None
        result.append(step)
        left //= size
        step *= size
    return tuple(reversed(result))
