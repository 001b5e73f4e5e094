"""Node functions recorded as one call: `Composite`.

A composite is called with nodes and plain values.  For each combination of plain values, dtypes and
shapes its function runs once, on placeholders, and leaves a template; every call after that records
one node for each result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lazygrad._core.context import now
from lazygrad_compiler.ir.composite import Template, apply, placeholder, template
from lazygrad_compiler.ir.node import Node

Places = tuple[int | None, ...]
"""For each result the number of the template's output that it is; None where it is None."""


def plain_key(value: Any) -> tuple[type, Any]:
    """What tells a plain value from all others: 0, 0.0, -0.0 and False are equal, and different
    constants; NaN does not equal itself.
    """
    kind = value.__class__
    if kind is float and not (value and value == value):
        value = repr(value)
    return kind, value


class Composite:
    """Wraps `function(*arguments) -> nodes`, whose arguments are nodes and hashable values.

    The function may build nodes only from its arguments.  A result may be None: then it is None
    for every call with the same plain values, dtypes and shapes.
    """

    def __init__(self, function: Callable[..., Sequence[Node | None]]) -> None:
        self.function = function
        self.name = function.__name__
        self._templates: dict[tuple, tuple[Template, Places]] = {}

    def __call__(self, *arguments: Any) -> list[Node | None]:
        key: list[Any] = []
        inputs: list[Node] = []
        for value in arguments:
            if isinstance(value, Node):
                inputs.append(value)
                key += (value.dtype, value.shape)
            else:
                key += plain_key(value)
        found = self._templates.get(tuple(key))
        if found is None:
            found = self._templates[tuple(key)] = self._trace(arguments)
        return placed(apply(found[0], tuple(inputs), now.location), found[1])

    def _trace(self, arguments: Sequence[Any]) -> tuple[Template, Places]:
        """Runs the function on placeholders, without a line: the lines are those of the calls."""
        given: list[Any] = []
        placeholders: list[Node] = []
        for value in arguments:
            if isinstance(value, Node):
                value = placeholder(len(placeholders), value.dtype, value.shape)
                placeholders.append(value)
            given.append(value)
        line, now.location = now.location, ()
        try:
            results = self.function(*given)
        finally:
            now.location = line
        return with_places(self.name, results, placeholders)


def with_places(
    name: str, results: Sequence[Node | None], placeholders: Sequence[Node]
) -> tuple[Template, Places]:
    """A template of the results that are nodes, and where among its outputs each result is."""
    nodes = [result for result in results if result is not None]
    numbers = iter(range(len(nodes)))
    places = tuple(None if result is None else next(numbers) for result in results)
    return template(name, nodes, placeholders), places


def placed(nodes: Sequence[Node], places: Places) -> list[Node | None]:
    """The results of a call as the function gave them."""
    return [None if place is None else nodes[place] for place in places]
