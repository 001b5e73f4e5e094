"""Custom operations: a forward and a backward written by the user."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, now, operation
from lazygrad._core.engine import Boundary, cut
from lazygrad._core.modes import no_grad
from lazygrad._core.tensor import Tensor, node_of, shape_of, wrap
from lazygrad_compiler.ir.node import Node


class Context:
    """What forward leaves for backward."""

    def __init__(self) -> None:
        self.saved_tensors: tuple[Any, ...] = ()
        self.needs_input_grad: tuple[bool, ...] = ()
        self._no_gradient: tuple[int, ...] = ()

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        self._no_gradient = tuple(map(id, tensors))

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Accepted: in-place changes are functional here."""

    def set_materialize_grads(self, value: bool) -> None:
        """Accepted: gradients are always there."""


class Function:
    """Subclass with static `forward(ctx, …)` and `backward(ctx, …)`; call by `apply`."""

    @staticmethod
    def forward(*arguments: Any, **keywords: Any) -> Any:
        raise NotImplementedError("a Function needs a static forward")

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise NotImplementedError("a Function needs a static backward to be differentiated")

    @classmethod
    def apply(cls, *arguments: Any, **keywords: Any) -> Any:
        """Runs forward; gradients will come from backward."""
        context = Context()
        inputs = [each if isinstance(each, Tensor) else None for each in arguments]
        context.needs_input_grad = tuple(each is not None and each.requires_grad for each in inputs)
        nodes = [None if each is None else node_of(each) for each in inputs]
        with no_grad():
            if hasattr(cls, "setup_context"):
                results = cls.forward(*arguments, **keywords)
                cls.setup_context(context, arguments, results)
            else:
                results = cls.forward(context, *arguments, **keywords)
        if not (now.grad and any(context.needs_input_grad)):
            return results
        return _behind_boundary(cls, context, nodes, results)


@operation
def _behind_boundary(function: type[Function], context: Context, nodes: list[Node | None],
                     results: Any) -> Any:
    several = isinstance(results, (tuple, list))
    outputs = list(results) if several else [results]
    through = [each for each in outputs if isinstance(each, Tensor)
               and each.dtype.is_differentiable and id(each) not in context._no_gradient]

    def run(gradients: list[Node | None]) -> list[Node | None]:
        given: list[Tensor | None] = []
        by_output = dict(zip(map(id, through), gradients, strict=True))
        for each in outputs:
            gradient = by_output.get(id(each))
            if gradient is None and isinstance(each, Tensor):
                gradient = graph.const(0, each.dtype, shape_of(each))
            given.append(None if gradient is None else wrap(gradient))
        returned = function.backward(context, *given)
        if not isinstance(returned, (tuple, list)):
            returned = (returned,)
        if len(returned) < len(nodes):
            raise fail(function.__name__, f"backward returned {len(returned)} gradients for "
                       f"{len(nodes)} inputs", "Return one for each argument of forward, None for "
                       "those without.")
        return [None if each is None else node_of(each)
                for each, node in zip(returned, nodes) if node is not None]

    made = _marked(outputs, through, Boundary(run, [node for node in nodes if node is not None]))
    return tuple(made) if several else made[0]


def _marked(outputs: list[Any], through: list[Tensor], boundary: Boundary) -> list[Any]:
    """The outputs, those of `through` behind the boundary."""
    marked = dict(zip(map(id, through), cut([node_of(each) for each in through], boundary),
                      strict=True))
    return [wrap(marked[id(each)]) if id(each) in marked else each for each in outputs]


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """For a `backward` whose results are no differentiable formula: to differentiate them again is
    an error instead of a wrong value.
    """
    @functools.wraps(backward)
    def once(context: Context, *gradients: Any) -> Any:
        with no_grad():
            results = backward(context, *gradients)
        return results if not now.grad else _refusing(results, gradients)
    return once


@operation
def _refusing(results: Any, gradients: tuple[Any, ...]) -> Any:
    """The results, behind a boundary that no second derivative passes."""
    def refuse(_: list[Node | None]) -> list[Node | None]:
        raise fail("backward", "differentiates a function twice that is marked with "
                   "@once_differentiable")

    several = isinstance(results, (tuple, list))
    outputs = list(results) if several else [results]
    through = [each for each in outputs if isinstance(each, Tensor)
               and each.dtype.is_differentiable]
    sources = [node_of(each) for each in gradients if isinstance(each, Tensor)]
    made = _marked(outputs, through, Boundary(refuse, sources))
    return tuple(made) if several else made[0]
