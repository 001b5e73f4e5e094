"""The batching rule of loops: one loop whose body is batched, for all items at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lazygrad_compiler.autodiff.vjp_build import Builder
from lazygrad_compiler.batching.rules import Flags, Inputs, Rule, front, repeated
from lazygrad_compiler.ir.loop import Loop, make_loop
from lazygrad_compiler.ir.node import Node, fresh_input


def loop(at: Builder, node: Node, inputs: Inputs, flags: Flags, size: int) -> Node:
    """States have the items in front, whether they began alike or not; series have them behind the
    steps.
    """
    from lazygrad_compiler.batching.batch import batch

    one = Loop.of(node)
    body = one.opened()

    def stand_in(value: Node) -> Node:
        return fresh_input(value.dtype, (size, *value.shape), ())

    def of_all(values: Sequence[Node], items: Mapping[Node, Node]) -> list[Node]:
        found = batch(values, items, size)
        return [value if flag else repeated(at, value, size) for value, flag in found]

    items: dict[Node, Node] = {}
    states, series, constants = [], [], []
    for number, (inner, value, flag) in enumerate(zip(body.inputs, inputs, flags, strict=True)):
        if number < one.carried:
            items[inner] = stand_in(inner)
            states.append((items[inner], value if flag else repeated(at, value, size)))
            continue
        if flag:
            items[inner] = stand_in(inner)
        of_body = items.get(inner, inner)
        if number >= one.carried + one.stepped:
            constants.append((of_body, value))
        elif flag:
            steps_first = at.op("permute", value, attrs=((1, 0, *range(2, value.ndim)),))
            series.append((of_body, steps_first))
        else:
            series.append((of_body, value))
    outputs = of_all(body.outputs, items)
    made = make_loop(
        one.body.name,
        [(inside, first, later)
         for (inside, first), later in zip(states, outputs[: one.carried], strict=True)],
        series,
        constants,
        outputs[one.carried :],
        one.length,
        one.reverse,
        one.location,
        one.body,
    )
    part = node.attr("part")
    result = made.part(part)
    return result if part < one.carried else front(at, result, 1)


RULES: dict[str, Rule] = {"loop": loop}
