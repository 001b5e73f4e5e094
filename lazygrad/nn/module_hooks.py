"""Hooks around a module's forward: handles that remove them, and the calls themselves."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import Any

_serials = itertools.count()


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
    for hook, with_kwargs in list(module._forward_pre_hooks.values()):
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
    try:
        output = module.forward(*args, **kwargs)
    except Exception:
        for hook, with_kwargs, always_call in list(module._forward_hooks.values()):
            if always_call:
                _call(hook, with_kwargs, module, args, kwargs, None)
        raise
    for hook, with_kwargs, _ in list(module._forward_hooks.values()):
        changed = _call(hook, with_kwargs, module, args, kwargs, output)
        if changed is not None:
            output = changed
    return output


def _call(hook: Any, with_kwargs: bool, module: Any, args: tuple, kwargs: dict, output: Any) -> Any:
    return hook(module, args, kwargs, output) if with_kwargs else hook(module, args, output)
