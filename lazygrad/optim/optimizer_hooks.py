"""Hooks of optimisers: what users may have called before and after steps, and around their state
dicts; of one optimiser, or of all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from lazygrad.nn.module_hooks import HookHandle

Hooks = OrderedDict[int, Any]

GLOBAL_PRE_HOOKS: Hooks = OrderedDict()
GLOBAL_POST_HOOKS: Hooks = OrderedDict()


def register_optimizer_step_pre_hook(hook: Callable) -> HookHandle:
    """`hook(optimizer, args, kwargs)` before each step of every optimiser."""
    return HookHandle(GLOBAL_PRE_HOOKS, hook)


def register_optimizer_step_post_hook(hook: Callable) -> HookHandle:
    """`hook(optimizer, args, kwargs)` after each step of every optimiser."""
    return HookHandle(GLOBAL_POST_HOOKS, hook)


class Hooked:
    """The hooks of one optimiser."""

    def __init__(self) -> None:
        self._step_pre_hooks: Hooks = OrderedDict()
        self._step_post_hooks: Hooks = OrderedDict()
        self._state_dict_pre_hooks: Hooks = OrderedDict()
        self._state_dict_post_hooks: Hooks = OrderedDict()
        self._load_state_dict_pre_hooks: Hooks = OrderedDict()
        self._load_state_dict_post_hooks: Hooks = OrderedDict()

    def register_step_pre_hook(self, hook: Callable) -> HookHandle:
        """`hook(optimizer, args, kwargs)` before each step; may return other (args, kwargs)."""
        return HookHandle(self._step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable) -> HookHandle:
        """`hook(optimizer, args, kwargs)` after each step."""
        return HookHandle(self._step_post_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Callable, prepend: bool = False) -> HookHandle:
        """`hook(optimizer)` before state_dict() collects."""
        return HookHandle(self._state_dict_pre_hooks, hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable, prepend: bool = False) -> HookHandle:
        """`hook(optimizer, state_dict)` after state_dict() has collected; it may return another."""
        return HookHandle(self._state_dict_post_hooks, hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable,
                                          prepend: bool = False) -> HookHandle:
        """`hook(optimizer, state_dict)` before load_state_dict() reads; it may return another."""
        return HookHandle(self._load_state_dict_pre_hooks, hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable,
                                           prepend: bool = False) -> HookHandle:
        """`hook(optimizer)` after load_state_dict()."""
        return HookHandle(self._load_state_dict_post_hooks, hook, prepend)

    def _hooked(self, state_dict: dict[str, Any], hooks: Hooks) -> dict[str, Any]:
        """The state dict after the hooks, each of which may replace it."""
        for hook in list(hooks.values()):
            changed = hook(self, state_dict)
            if changed is not None:
                state_dict = changed
        return state_dict

    def _changed_closure(self, hook: Callable, closure: Any) -> Any:
        """Calls a hook before a step; the closure, or the one that the hook gives in its place."""
        changed = hook(self, (closure,), {})
        if changed is None:
            return closure
        if not isinstance(changed, tuple) or len(changed) != 2:
            raise RuntimeError(f"{type(self).__name__}.step: a pre-hook must return None or a "
                               f"tuple (args, kwargs), and it returned {changed!r}")
        arguments, named = changed
        return arguments[0] if arguments else named.get("closure")
