"""`state_dict` and `load_state_dict`: a module's values by dotted name, out and in.

Loading first looks at every key and shape and changes values key by key, like PyTorch: all that is
missing, unexpected or of another size is listed in one error.
"""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import lazygrad as lg
from lazygrad.nn.module_hooks import HookHandle
from lazygrad.nn.parameter import Parameter

EXTRA_STATE_KEY = "_extra_state"


class IncompatibleKeys(namedtuple("IncompatibleKeys", ["missing_keys", "unexpected_keys"])):
    """What `load_state_dict` returns."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return super().__repr__()

    __str__ = __repr__


class ModuleState:
    """The part of `Module` that saves and loads."""

    _version: int = 1
    _parameters: dict
    _buffers: dict
    _modules: dict
    _non_persistent_buffers_set: set
    _state_dict_hooks: OrderedDict
    _state_dict_pre_hooks: OrderedDict
    _load_state_dict_pre_hooks: OrderedDict
    _load_state_dict_post_hooks: OrderedDict

    def get_extra_state(self) -> Any:
        raise RuntimeError(f"{type(self).__name__} has no get_extra_state()")

    def set_extra_state(self, state: Any) -> None:
        raise RuntimeError(f"the state_dict has extra state for {type(self).__name__}, which has "
                           "no set_extra_state()")

    def register_state_dict_pre_hook(self, hook: Callable) -> HookHandle:
        """`hook(module, prefix, keep_vars)` before the state is collected."""
        return HookHandle(self._state_dict_pre_hooks, hook)

    def register_state_dict_post_hook(self, hook: Callable) -> HookHandle:
        """`hook(module, state_dict, prefix, local_metadata)` after it was; changes the dictionary
        in place.
        """
        return HookHandle(self._state_dict_hooks, hook)

    _register_state_dict_hook = register_state_dict_post_hook

    def register_load_state_dict_pre_hook(self, hook: Callable) -> HookHandle:
        """`hook(module, state_dict, prefix, metadata, strict, missing_keys, unexpected_keys,
        error_msgs)`.
        """
        return HookHandle(self._load_state_dict_pre_hooks, hook)

    def _register_load_state_dict_pre_hook(self, hook: Callable,
                                           with_module: bool = False) -> HookHandle:
        """The form that gets the module only on request."""
        if with_module:
            return self.register_load_state_dict_pre_hook(hook)
        return self.register_load_state_dict_pre_hook(lambda module, *rest: hook(*rest))

    def register_load_state_dict_post_hook(self, hook: Callable) -> HookHandle:
        """`hook(module, incompatible_keys)`, which may edit the two lists."""
        return HookHandle(self._load_state_dict_post_hooks, hook)

    # ---- out

    def _own_state(self) -> Iterator[tuple[str, Any]]:
        """This module's own parameters and persistent buffers, by name."""
        for name, parameter in self._parameters.items():
            if parameter is not None:
                yield name, parameter
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._non_persistent_buffers_set:
                yield name, buffer

    def _has_extra_state(self, method: str) -> bool:
        return getattr(type(self), method) is not getattr(ModuleState, method)

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        for name, value in self._own_state():
            destination[prefix + name] = value if keep_vars else value.detach()
        if self._has_extra_state("get_extra_state"):
            destination[prefix + EXTRA_STATE_KEY] = self.get_extra_state()

    def state_dict(self, *, destination: Any = None, prefix: str = "",
                   keep_vars: bool = False) -> Any:
        """All parameters and persistent buffers by dotted name, detached unless `keep_vars`; they
        share storage.
        """
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        local_metadata = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = local_metadata
        for hook in list(self._state_dict_pre_hooks.values()):
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=destination, prefix=f"{prefix}{name}.",
                                  keep_vars=keep_vars)
        for hook in list(self._state_dict_hooks.values()):
            replaced = hook(self, destination, prefix, local_metadata)
            destination = destination if replaced is None else replaced
        return destination

    # ---- in

    def _load_from_state_dict(self, state_dict: dict, prefix: str, local_metadata: dict,
                              strict: bool, missing_keys: list[str], unexpected_keys: list[str],
                              error_msgs: list[str]) -> None:
        """Copies this module's own values in; notes what is missing, unexpected or of another
        size.
        """
        for hook in list(self._load_state_dict_pre_hooks.values()):
            hook(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
                 error_msgs)
        assign = local_metadata.get("assign_to_params_buffers", False)
        own = dict(self._own_state())
        for name, current in own.items():
            key = prefix + name
            if key not in state_dict:
                if strict:
                    missing_keys.append(key)
                continue
            problem = self._load_value(name, key, current, state_dict[key], assign)
            if problem:
                error_msgs.append(problem)
        self._load_extra_state(state_dict, prefix, strict, missing_keys, unexpected_keys)
        if strict:
            for key in state_dict:
                if not key.startswith(prefix) or key == prefix + EXTRA_STATE_KEY:
                    continue
                head, *rest = key[len(prefix):].split(".", 1)
                if (head not in self._modules) if rest else (head not in own):
                    unexpected_keys.append(key)

    def _load_value(self, name: str, key: str, current: Any, value: Any,
                    assign: bool) -> str | None:
        """Copies or assigns one value; returns what is wrong with it, if anything."""
        if not isinstance(value, lg.Tensor):
            return (f'expected a Tensor for "{key}", and got {type(value).__name__}; '
                    "convert it with lazygrad.as_tensor")
        if current.ndim == 0 and tuple(value.shape) == (1,):
            value = value[0]  # as PyTorch does for checkpoints from before version 0.4
        if tuple(value.shape) != tuple(current.shape):
            return (f"size mismatch for {key}: copying a param with shape {tuple(value.shape)} "
                    f"from checkpoint, the shape in current model is {tuple(current.shape)}.")
        with lg.no_grad():
            if not assign:
                current.copy_(value)
            elif name in self._parameters:
                if not isinstance(value, Parameter):
                    value = Parameter(value, requires_grad=current.requires_grad)
                self._parameters[name] = value
            else:
                self._buffers[name] = value
        return None

    def _load_extra_state(self, state_dict: dict, prefix: str, strict: bool,
                          missing_keys: list[str], unexpected_keys: list[str]) -> None:
        key = prefix + EXTRA_STATE_KEY
        if self._has_extra_state("set_extra_state"):
            if key in state_dict:
                self.set_extra_state(state_dict[key])
            elif strict:
                missing_keys.append(key)
        elif strict and key in state_dict:
            unexpected_keys.append(key)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True,
                        assign: bool = False) -> IncompatibleKeys:
        """Copies values in by dotted name; with `assign` the given tensors themselves are taken.

        With `strict` every key must match, else RuntimeError lists the differences.  Sizes must
        always match. Returns (missing_keys, unexpected_keys).
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError("load_state_dict takes a dictionary, as from state_dict(), not "
                            f"{type(state_dict).__name__}")
        metadata = getattr(state_dict, "_metadata", None)
        values = OrderedDict(state_dict)
        missing: list[str] = []
        unexpected: list[str] = []
        problems: list[str] = []

        def load(module: Any, values: dict, prefix: str) -> None:
            local_metadata = dict((metadata or {}).get(prefix[:-1], {}))
            if assign:
                local_metadata["assign_to_params_buffers"] = True
            # Every level works on its own keys only, so that unexpected keys are found once.
            module._load_from_state_dict(values, prefix, local_metadata, True, missing, unexpected,
                                         problems)
            for name, child in module._modules.items():
                if child is not None:
                    child_prefix = f"{prefix}{name}."
                    load(child, {k: v for k, v in values.items() if k.startswith(child_prefix)},
                         child_prefix)
            incompatible = IncompatibleKeys(missing, unexpected)
            for hook in list(module._load_state_dict_post_hooks.values()):
                hook(module, incompatible)

        load(self, values, "")
        if strict:
            if unexpected:
                problems.insert(0,
                                "Unexpected key(s) in state_dict: "
                                + ", ".join(f'"{k}"' for k in unexpected) + ". ")
            if missing:
                problems.insert(0,
                                "Missing key(s) in state_dict: "
                                + ", ".join(f'"{k}"' for k in missing) + ". ")
        if problems:
            raise RuntimeError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t"
                               + "\n\t".join(problems))
        return IncompatibleKeys(missing, unexpected)
