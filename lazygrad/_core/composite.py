"""Node functions recorded as one call: `Composite`.

A composite is called with nodes and plain values.  For each combination of plain values, dtypes and
shapes its function runs once, on placeholders, and leaves a template; every call after that records
one node, plus one for each result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lazygrad._core.context import now
from lazygrad_compiler.ir.composite import Lines, Template, placeholder, template
from lazygrad_compiler.ir.node import Location, Node, build
from lazygrad_compiler.ir.ops import OPS

_CALL, _RESULT = OPS["call"], OPS["result"]


class Composite:
    """Wraps `function(*arguments) -> nodes`, whose arguments are nodes and hashable values.

    The function may build nodes only from its arguments.  A result may be None: then it is None
    for every call with the same plain values, dtypes and shapes.
    """

    def __init__(self, function: Callable[..., Sequence[Node | None]]) -> None:
        self.function = function
        self.name = function.__name__
        self._templates: dict[tuple, tuple[Template, tuple[int | None, ...]]] = {}

    def __call__(self, *arguments: Any) -> list[Node | None]:
        key: list[Any] = []
        inputs: list[Node] = []
        for value in arguments:
            if value.__class__ is Node:
                inputs.append(value)
                key.append((value.dtype, value.shape))
            else:
                # 0, 0.0 and False are equal, and different constants
                key.append((value.__class__, repr(value) if value.__class__ is float else value))
        found = self._templates.get(tuple(key))
        if found is None:
            found = self._templates[tuple(key)] = self._trace(arguments)
        return apply(found[0], inputs, found[1])

    def _trace(self, arguments: Sequence[Any]) -> tuple[Template, tuple[int | None, ...]]:
        """Runs the function on placeholders, without a line: the lines are those of the calls."""
        placeholders: list[Any] = []
        signature: list[tuple[Any, Any]] = []
        for value in arguments:
            if value.__class__ is Node:
                value = placeholder(len(signature), value.dtype, value.shape)
                signature.append((value.dtype, value.shape))
            placeholders.append(value)
        line, now.location = now.location, ()
        try:
            results = self.function(*placeholders)
        finally:
            now.location = line
        return with_places(self.name, results, tuple(signature))


def with_places(
    name: str, results: Sequence[Node | None], signature: tuple
) -> tuple[Template, tuple[int | None, ...]]:
    """A template of the results that are nodes, and for each result its number (None: no node)."""
    nodes = [result for result in results if result is not None]
    numbers = iter(range(len(nodes)))
    places = tuple(None if result is None else next(numbers) for result in results)
    return template(name, nodes, signature), places


def apply(
    applied: Template,
    inputs: Sequence[Node],
    places: Sequence[int | None],
    inside: tuple[Location, ...] = (),
) -> list[Node | None]:
    """Records a call of a template, and the results at the places; inside: the template's lines."""
    line = now.location
    if inside:
        line = Lines(line)
        line.inside = inside
    call = build(_CALL, tuple(inputs), (applied,), line)
    return [None if place is None else build(_RESULT, (call,), (place,), line) for place in places]
