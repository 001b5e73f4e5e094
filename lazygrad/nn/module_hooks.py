"""Hooks around a module's forward and backward: handles that remove them, and the calls
themselves.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from lazygrad._core import graph
from lazygrad._core.engine import Boundary, cut
from lazygrad._core.nests import replace, tensors_in
from lazygrad._core.tensor import Tensor, node_of, wrap
from lazygrad_compiler.ir.node import Node

_serials = itertools.count()


class _Every:
    """Hooks of every module, which run ahead of a module's own."""

    def __init__(self) -> None:
        self.forward_pre: OrderedDict = OrderedDict()
        self.forward: OrderedDict = OrderedDict()
        self.backward: OrderedDict = OrderedDict()
        self.backward_pre: OrderedDict = OrderedDict()


EVERY = _Every()


class HookHandle:
    """What registering a hook returns; `remove()` takes the hook off, and so does leaving a `with`
    block.
    """

    def __init__(self, hooks: OrderedDict, entry: Any, prepend: bool = False) -> None:
        self.id = next(_serials)
        self._hooks = hooks
        hooks[self.id] = entry
        if prepend:
            hooks.move_to_end(self.id, last=False)

    def remove(self) -> None:
        self._hooks.pop(self.id, None)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


def run_forward_pre_hooks(module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Runs the hooks in order; each sees what the one before made of the arguments."""
    for hook, with_kwargs in [*EVERY.forward_pre.values(),
                              *module._forward_pre_hooks.values()]:
        if with_kwargs:
            changed = hook(module, args, kwargs)
            if changed is not None:
                if not isinstance(changed, tuple) or len(changed) != 2:
                    raise RuntimeError("a forward pre-hook with kwargs returns None or (args, "
                                       f"kwargs), not {changed!r}")
                args, kwargs = changed
        else:
            changed = hook(module, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
    return args, kwargs


def run_forward_hooks(module: Any, args: tuple, kwargs: dict) -> Any:
    """Calls forward, then the hooks in order.  Hooks marked `always_call` run even where forward
    raised.
    """
    hooks = [*EVERY.forward.values(), *module._forward_hooks.values()]
    try:
        output = module.forward(*args, **kwargs)
    except Exception:
        for hook, with_kwargs, always_call in hooks:
            if always_call:
                _call(hook, with_kwargs, module, args, kwargs, None)
        raise
    for hook, with_kwargs, _ in [*EVERY.forward.values(), *module._forward_hooks.values()]:
        changed = _call(hook, with_kwargs, module, args, kwargs, output)
        if changed is not None:
            output = changed
    return output


def _call(hook: Any, with_kwargs: bool, module: Any, args: tuple, kwargs: dict, output: Any) -> Any:
    return hook(module, args, kwargs, output) if with_kwargs else hook(module, args, output)


def run_with_backward_hooks(module: Any, args: tuple, kwargs: dict) -> Any:
    """The call between two boundaries of the backward pass: where the gradients of the outputs
    arrive, and where those of the inputs (positional tensors) leave.
    """
    state = _Passing(module, args)
    args = state.inputs_behind_boundary(args)
    if module._forward_hooks or EVERY.forward:
        output = run_forward_hooks(module, args, kwargs)
    else:
        output = module.forward(*args, **kwargs)
    return state.outputs_behind_boundary(output)


class _Passing:
    """One pass through a module with backward hooks."""

    def __init__(self, module: Any, args: tuple) -> None:
        self.module = module
        self.count = len(args)
        self.places = [number for number, each in enumerate(args)
                       if isinstance(each, Tensor) and each.requires_grad]
        self.outputs: list[bool] = []
        self.grad_output: tuple = ()

    def inputs_behind_boundary(self, args: tuple) -> tuple:
        if not self.places:
            return args
        nodes = [node_of(args[place]) for place in self.places]
        marked = cut(nodes, Boundary(self._leave, nodes))
        changed = list(args)
        for place, node in zip(self.places, marked, strict=True):
            changed[place] = wrap(node)
        return tuple(changed)

    def outputs_behind_boundary(self, output: Any) -> Any:
        found = list(tensors_in(output))
        self.outputs = [each.requires_grad for each in found]
        tracked = [each for each in found if each.requires_grad]
        if not tracked:
            return output
        nodes = [node_of(each) for each in tracked]
        self.zeros = [graph.like(0, node) for node in nodes]
        marked = iter(cut(nodes, Boundary(self._arrive, nodes)))
        return replace(output, lambda tensor: wrap(next(marked)) if tensor.requires_grad
                       else tensor)

    def _arrive(self, gradients: list[Node | None]) -> Sequence[Node | None]:
        """At the outputs: zeros where nothing flows, then the hooks ahead of backward."""
        given = iter([wrap(zero if gradient is None else gradient)
                      for gradient, zero in zip(gradients, self.zeros, strict=True)])
        self.grad_output = tuple(next(given) if tracked else None for tracked in self.outputs)
        for hook in [*EVERY.backward_pre.values(),
                     *self.module._backward_pre_hooks.values()]:
            changed = hook(self.module, self.grad_output)
            if changed is not None:
                self.grad_output = _matching(changed, self.grad_output, "grad_output")
        if not self.places:
            self._call_hooks((None,) * self.count)
        return [None if each is None else node_of(each)
                for each, tracked in zip(self.grad_output, self.outputs, strict=True) if tracked]

    def _leave(self, gradients: list[Node | None]) -> Sequence[Node | None]:
        given = {place: wrap(gradient) for place, gradient
                 in zip(self.places, gradients, strict=True) if gradient is not None}
        grad_input = tuple(given.get(number) for number in range(self.count))
        grad_input = self._call_hooks(grad_input)
        leaving = [grad_input[place] for place in self.places]
        return [None if each is None else node_of(each) for each in leaving]

    def _call_hooks(self, grad_input: tuple) -> tuple:
        for hook in [*EVERY.backward.values(), *self.module._backward_hooks.values()]:
            changed = hook(self.module, grad_input, self.grad_output)
            if changed is not None:
                grad_input = _matching(changed, grad_input, "grad_input")
        return grad_input


def _matching(changed: Any, before: tuple, what: str) -> tuple:
    result = changed if isinstance(changed, tuple) else (changed,)
    if len(result) != len(before):
        raise RuntimeError(f"a backward hook returned {len(result)} gradients in place of the "
                           f"{len(before)} of {what}")
    return result


# ---- hooks of every module


def register_module_forward_pre_hook(hook: Any) -> HookHandle:
    """Calls `hook(module, args)` ahead of every module's forward."""
    return HookHandle(EVERY.forward_pre, (hook, False))


def register_module_forward_hook(hook: Any, *, with_kwargs: bool = False,
                                 always_call: bool = False) -> HookHandle:
    """Calls `hook(module, args, output)` after every module's forward."""
    return HookHandle(EVERY.forward, (hook, with_kwargs, always_call))


def register_module_full_backward_pre_hook(hook: Any) -> HookHandle:
    """Calls `hook(module, grad_output)` ahead of every module's backward."""
    return HookHandle(EVERY.backward_pre, hook)


def register_module_full_backward_hook(hook: Any) -> HookHandle:
    """Calls `hook(module, grad_input, grad_output)` after every module's backward."""
    return HookHandle(EVERY.backward, hook)


register_module_backward_hook = register_module_full_backward_hook
