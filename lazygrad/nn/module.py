"""`Module`: the base of everything with parameters.

A module owns three registries: `_parameters`, `_buffers` and `_modules`.  Assigning a `Parameter`,
a `Buffer` or a `Module` to an attribute files it there; all walks (`parameters()`, `state_dict()`,
`to()`, `train()`) read them. Names are the dotted attribute path, as in PyTorch, so that state
dictionaries are interchangeable.

An error raised inside a module gets a note that says where in the model it happened.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import lazygrad as lg
from lazygrad._core.context import now
from lazygrad._core.entries import Entry
from lazygrad.nn.module_hooks import (
    EVERY,
    HookHandle,
    run_forward_hooks,
    run_forward_pre_hooks,
    run_with_backward_hooks,
)
from lazygrad.nn.module_hooks import (
    register_module_backward_hook as register_module_backward_hook,
)
from lazygrad.nn.module_hooks import (
    register_module_forward_hook as register_module_forward_hook,
)
from lazygrad.nn.module_hooks import (
    register_module_forward_pre_hook as register_module_forward_pre_hook,
)
from lazygrad.nn.module_hooks import (
    register_module_full_backward_hook as register_module_full_backward_hook,
)
from lazygrad.nn.module_hooks import (
    register_module_full_backward_pre_hook as register_module_full_backward_pre_hook,
)
from lazygrad.nn.module_state import ModuleState
from lazygrad.nn.parameter import Buffer, Parameter
from lazygrad_runtime import ahead

Self = TypeVar("Self", bound="Module")


class Module(ModuleState, Entry):
    """Base class of all layers and models.  Subclasses call `super().__init__()` first and define
    `forward`.
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, lg.Tensor | None]
    _modules: dict[str, Module | None]
    call_super_init = False
    dump_patches = False
    _compiled_call_impl: Callable[..., Any] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args or kwargs:
            given = ", ".join([repr(value) for value in args] + [f"{name}=" for name in kwargs])
            raise TypeError(f"{type(self).__name__}.__init__() got arguments that it does not "
                            f"take: {given}")
        ahead.begin()
        set_plainly = super().__setattr__
        set_plainly("training", True)
        for registry in ("_parameters", "_buffers", "_modules"):
            set_plainly(registry, {})
        set_plainly("_non_persistent_buffers_set", set())
        for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks",
                      "_backward_pre_hooks", "_state_dict_hooks",
                      "_state_dict_pre_hooks", "_load_state_dict_pre_hooks",
                      "_load_state_dict_post_hooks"):
            set_plainly(hooks, OrderedDict())

    # ---- calling

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(
            f"{type(self).__name__} has no forward(); define `def forward(self, ...)` in the class")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._compiled_call_impl is not None and now.recording is None:
            return self._compiled_call_impl(*args, **kwargs)
        return self._call_impl(*args, **kwargs)

    def _call_impl(self, *args: Any, **kwargs: Any) -> Any:
        if now.recording is not None:
            now.recording.watch(self)
            now.recording.watch(EVERY)
        try:
            if self._forward_pre_hooks or EVERY.forward_pre:
                args, kwargs = run_forward_pre_hooks(self, args, kwargs)
            if self._backward_hooks or self._backward_pre_hooks or EVERY.backward \
                    or EVERY.backward_pre:
                return run_with_backward_hooks(self, args, kwargs)
            if not self._forward_hooks and not EVERY.forward:
                return self.forward(*args, **kwargs)
            return run_forward_hooks(self, args, kwargs)
        except AttributeError as error:
            if "_forward_pre_hooks" in str(error) and "_parameters" not in self.__dict__:
                raise AttributeError(f"{type(self).__name__}.__init__() must call "
                                     "super().__init__() before anything else") from None
            _note_where(error, self)
            raise
        except Exception as error:
            _note_where(error, self)
            raise

    # ---- registration

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Files a parameter (or None, a place for one) under `name`."""
        self._check_name(name, "parameter", self._parameters)
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"cannot assign '{type(param).__name__}' as parameter '{name}' of "
                            f"{type(self).__name__}: it takes an nn.Parameter or None")
        if param is not None and not param.is_leaf:
            raise ValueError(f"parameter '{name}' of {type(self).__name__} was computed by "
                             "operations; parameters are leaves: compute its value in forward(), "
                             "or wrap it anew: nn.Parameter(value.detach())")
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: lg.Tensor | None, persistent: bool = True) -> None:
        """Files a tensor that is part of the state but not trained; in `state_dict` unless
        `persistent` is False.
        """
        self._check_name(name, "buffer", self._buffers)
        if tensor is not None and not isinstance(tensor, lg.Tensor):
            raise TypeError(f"cannot assign '{type(tensor).__name__}' as buffer '{name}' of "
                            f"{type(self).__name__}: it takes a Tensor or None")
        self._buffers[name] = tensor
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def register_module(self, name: str, module: Module | None) -> None:
        """The same as `add_module`."""
        self.add_module(name, module)

    def add_module(self, name: str, module: Module | None) -> None:
        """Files a child module under `name`."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not an nn.Module: cannot add it as "
                            f"'{name}' to {type(self).__name__}")
        self._check_name(name, "module", self._modules)
        self._modules[name] = module

    def _check_name(self, name: str, what: str, registry: dict) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"cannot assign a {what} before {type(self).__name__}.__init__() "
                                 "has called super().__init__()")
        if not isinstance(name, str):
            raise TypeError(f"the name of a {what} is a string, not {type(name).__name__}")
        if "." in name:
            raise KeyError(f'the name of a {what} cannot contain ".", and {name!r} does')
        if name == "":
            raise KeyError(f"the name of a {what} cannot be empty")
        if hasattr(self, name) and name not in registry:
            raise KeyError(f"{type(self).__name__} already has an attribute {name!r}")

    # ---- attributes

    def __setattr__(self, name: str, value: Any) -> None:
        fields = self.__dict__
        if isinstance(value, Parameter):
            if "_parameters" not in fields:
                raise AttributeError("cannot assign parameters before "
                                     f"{type(self).__name__}.__init__() has called "
                                     "super().__init__()")
            self._forget(name, keep="_parameters")
            self.register_parameter(name, value)
            return
        parameters = fields.get("_parameters")
        if parameters is not None and name in parameters:
            if value is not None:
                raise TypeError(f"cannot assign '{type(value).__name__}' as parameter '{name}' of "
                                f"{type(self).__name__}: it takes an nn.Parameter or None")
            self.register_parameter(name, None)
            return
        if isinstance(value, Module):
            if "_modules" not in fields:
                raise AttributeError("cannot assign modules before "
                                     f"{type(self).__name__}.__init__() has called "
                                     "super().__init__()")
            self._forget(name, keep="_modules")
            fields["_modules"][name] = value
            return
        modules = fields.get("_modules")
        if modules is not None and name in modules:
            if value is not None:
                raise TypeError(f"cannot assign '{type(value).__name__}' as child module '{name}' "
                                f"of {type(self).__name__}: it takes an nn.Module or None")
            modules[name] = None
            return
        buffers = fields.get("_buffers")
        if buffers is not None and (name in buffers or isinstance(value, Buffer)):
            if value is not None and not isinstance(value, lg.Tensor):
                raise TypeError(f"cannot assign '{type(value).__name__}' as buffer '{name}' of "
                                f"{type(self).__name__}: it takes a Tensor or None")
            if isinstance(value, Buffer):
                self._forget(name, keep="_buffers")
                self.register_buffer(name, value, getattr(value, "persistent", True))
            else:
                buffers[name] = value
            return
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        for registry in ("_parameters", "_buffers", "_modules"):
            found = self.__dict__.get(registry)
            if found is not None and name in found:
                return found[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __delattr__(self, name: str) -> None:
        for registry in (self._parameters, self._buffers, self._modules):
            if name in registry:
                del registry[name]
                self._non_persistent_buffers_set.discard(name)
                return
        super().__delattr__(name)

    def _forget(self, name: str, keep: str) -> None:
        """Removes an attribute from everywhere but the registry that is about to take it."""
        self.__dict__.pop(name, None)
        for registry in ("_parameters", "_buffers", "_modules"):
            if registry != keep and registry in self.__dict__:
                self.__dict__[registry].pop(name, None)
        if keep != "_buffers":
            self.__dict__["_non_persistent_buffers_set"].discard(name)

    def __dir__(self) -> list[str]:
        names = [*super().__dir__(), *self._parameters, *self._buffers, *self._modules]
        return sorted({name for name in names if not name[:1].isdigit()})

    # ---- walks

    def _named_members(self, members_of: Callable[[Module], Any], prefix: str, recurse: bool,
                       remove_duplicate: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        modules = self.named_modules(prefix=prefix,
                                     remove_duplicate=remove_duplicate) if recurse else [(prefix,
                                                                                          self)]
        for module_prefix, module in modules:
            for name, member in members_of(module):
                if member is None or id(member) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(member))
                yield f"{module_prefix}.{name}" if module_prefix else name, member

    def named_parameters(self, prefix: str = "", recurse: bool = True,
                         remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        return self._named_members(lambda module: module._parameters.items(), prefix, recurse,
                                   remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(self, prefix: str = "", recurse: bool = True,
                      remove_duplicate: bool = True) -> Iterator[tuple[str, lg.Tensor]]:
        return self._named_members(lambda module: module._buffers.items(), prefix, recurse,
                                   remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[lg.Tensor]:
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def named_children(self) -> Iterator[tuple[str, Module]]:
        seen: set[Module] = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        for _, module in self.named_children():
            yield module

    def named_modules(self, memo: set[Module] | None = None, prefix: str = "",
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name,
                                                remove_duplicate)

    def modules(self) -> Iterator[Module]:
        for _, module in self.named_modules():
            yield module

    def get_submodule(self, target: str) -> Module:
        """The module at a dotted path; the empty path is this module."""
        current: Module = self
        for part in target.split(".") if target else ():
            found = getattr(current, part, None)
            if found is None:
                raise AttributeError(f"{type(current).__name__} has no attribute `{part}`, on the "
                                     f"way to {target!r}; its modules are "
                                     f"{', '.join(current._modules) or 'none'}")
            if not isinstance(found, Module):
                raise AttributeError(f"`{part}`, on the way to {target!r}, is not an nn.Module")
            current = found
        return current

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Replaces the module at a dotted path; with `strict` it must exist already."""
        if target == "":
            raise ValueError("cannot replace the module itself: the path is empty")
        parent, _, name = target.rpartition(".")
        owner = self.get_submodule(parent)
        if strict and name not in owner._modules:
            raise AttributeError(f"{type(owner).__name__} has no module `{name}`")
        setattr(owner, name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path."""
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        if name not in owner._parameters:
            raise AttributeError(f"{type(owner).__name__} has no parameter `{name}`")
        return owner._parameters[name]  # type: ignore[return-value]

    def get_buffer(self, target: str) -> lg.Tensor:
        """The buffer at a dotted path."""
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        if name not in owner._buffers:
            raise AttributeError(f"{type(owner).__name__} has no buffer `{name}`")
        return owner._buffers[name]  # type: ignore[return-value]

    # ---- changes to everything inside

    def apply(self: Self, fn: Callable[[Module], None]) -> Self:
        """Calls `fn` on every module inside, then on this one."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def xpu(self: Self, device: Any = None) -> Self:
        return self._to_device("xpu", device)

    def ipu(self: Self, device: Any = None) -> Self:
        return self._to_device("ipu", device)

    def mtia(self: Self, device: Any = None) -> Self:
        return self._to_device("mtia", device)

    def _to_device(self: Self, kind: str, device: Any) -> Self:
        return self.to(kind if device is None else f"{kind}:{device}" if isinstance(device, int)
                       else device)

    def _apply(self: Self, fn: Callable[[lg.Tensor], lg.Tensor], recurse: bool = True) -> Self:
        """Replaces the values of all parameters, their gradients and the buffers; parameters stay
        the same objects.
        """
        if recurse:
            for module in self.children():
                module._apply(fn)
        with lg.no_grad():
            for parameter in self._parameters.values():
                if parameter is None:
                    continue
                parameter.data = fn(parameter.data)
                if parameter.grad is not None:
                    gradient, parameter.grad = parameter.grad, None
                    parameter.grad = fn(gradient)
            for name, buffer in self._buffers.items():
                if buffer is not None:
                    self._buffers[name] = fn(buffer)
        return self

    def _apply_to_floating(self: Self, dtype: Any) -> Self:
        return self._apply(lambda tensor: tensor.to(dtype) if tensor.is_floating_point()
                           else tensor)

    def float(self: Self) -> Self:
        return self._apply_to_floating(lg.float32)

    def double(self: Self) -> Self:
        return self._apply_to_floating(lg.float64)

    def half(self: Self) -> Self:
        return self._apply_to_floating(lg.float16)

    def bfloat16(self: Self) -> Self:
        return self._apply_to_floating(lg.bfloat16)

    def type(self: Self, dst_type: Any) -> Self:
        return self._apply(lambda tensor: tensor.type(dst_type))

    def to(self: Self, *args: Any, **kwargs: Any) -> Self:
        """Moves or casts: `to(device)`, `to(dtype)`, `to(device, dtype)`, `to(tensor)`.

        A dtype applies to floating-point parameters and buffers only, and must be a floating-point
        dtype.
        """
        device, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
        kwargs.pop("memory_format", None)
        options = {"non_blocking": kwargs.pop("non_blocking", False),
                   "copy": kwargs.pop("copy", False)}
        if kwargs:
            raise TypeError(f"Module.to() does not take {', '.join(kwargs)}")
        for value in args:
            if isinstance(value, bool):
                continue
            if isinstance(value, lg.Tensor):
                device, dtype = value.device, value.dtype
            elif isinstance(value, lg.dtype):
                dtype = value
            elif value is not None:
                device = value
        if dtype is not None and not dtype.is_floating_point and not dtype.is_complex:
            raise TypeError(f"Module.to() takes a floating-point dtype, not {dtype}: parameters "
                            "need gradients")

        def convert(tensor: lg.Tensor) -> lg.Tensor:
            target = dtype if tensor.is_floating_point() else None
            if device is None:
                return tensor if target is None else tensor.to(target)
            return tensor.to(device, **options) if target is None else tensor.to(device, target,
                                                                                 **options)

        return self._apply(convert)

    def cpu(self: Self) -> Self:
        return self.to("cpu")

    def cuda(self: Self, device: Any = None) -> Self:
        return self._to_device("cuda", device)

    def train(self: Self, mode: bool = True) -> Self:
        """Sets training mode (dropout on, batch statistics) here and everywhere inside."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        """Sets evaluation mode: dropout off, running statistics used."""
        return self.train(False)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.parameters():
            if parameter.grad is not None:
                if set_to_none:
                    parameter.grad = None
                else:
                    parameter.grad = lg.zeros_like(parameter.grad)

    def share_memory(self: Self) -> Self:
        """Refused, as `Tensor.share_memory_` is: processes get copies."""
        for tensor in (*self.parameters(), *self.buffers()):
            tensor.share_memory_()
        return self

    def to_empty(self: Self, *, device: Any, recurse: bool = True) -> Self:
        """Moves parameters and buffers without their values."""
        return self._apply(lambda tensor: lg.empty_like(tensor, device=device), recurse)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """From now on calls of this module go through `lazygrad.compile`."""
        compiled = lg.compile(self._call_impl, *args, **kwargs)
        object.__setattr__(self, "_compiled_call_impl", compiled)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop("_compiled_call_impl", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Modules stored by earlier versions lack the hooks that came later."""
        fresh: dict[str, Any] = {}
        for name in ("_backward_hooks", "_backward_pre_hooks"):
            fresh[name] = OrderedDict()
        self.__dict__.update({**fresh, **state})

    # ---- hooks

    def register_full_backward_hook(self, hook: Callable, prepend: bool = False) -> HookHandle:
        """`hook(module, grad_input, grad_output)` when the gradients of the module's inputs are
        there; what it returns (unless None) replaces grad_input.

        grad_input has an entry for each positional argument, None where no gradient flows.
        """
        return HookHandle(self._backward_hooks, hook, prepend)

    register_backward_hook = register_full_backward_hook

    def register_full_backward_pre_hook(self, hook: Callable,
                                        prepend: bool = False) -> HookHandle:
        """`hook(module, grad_output)` ahead of the module's backward; what it returns (unless None)
        replaces grad_output.
        """
        return HookHandle(self._backward_pre_hooks, hook, prepend)


    def register_forward_pre_hook(self, hook: Callable, *, prepend: bool = False,
                                  with_kwargs: bool = False) -> HookHandle:
        """`hook(module, args)` before forward; what it returns (unless None) replaces the
        arguments.

        With `with_kwargs`: `hook(module, args, kwargs)`, returning None or (args, kwargs).
        """
        return HookHandle(self._forward_pre_hooks, (hook, with_kwargs), prepend)

    def register_forward_hook(self, hook: Callable, *, prepend: bool = False,
                              with_kwargs: bool = False, always_call: bool = False) -> HookHandle:
        """`hook(module, args, output)` after forward; what it returns (unless None) replaces the
        output.
        """
        return HookHandle(self._forward_hooks, (hook, with_kwargs, always_call), prepend)

    # ---- text

    def extra_repr(self) -> str:
        """What stands in the parentheses of the repr; override in layers."""
        return ""

    def _get_name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        extra = self.extra_repr()
        extra_lines = extra.split("\n") if extra else []
        child_lines = [f"({name}): {_indented(repr(module))}" for name,
                       module in self._modules.items()]
        lines = extra_lines + child_lines
        if len(extra_lines) == 1 and not child_lines:
            return f"{self._get_name()}({extra_lines[0]})"
        if not lines:
            return f"{self._get_name()}()"
        return self._get_name() + "(\n  " + "\n  ".join(lines) + "\n)"


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")


class _Origin(NamedTuple):
    """Where an error came from: the innermost module, and the note already put on the error."""

    module: Module
    note: str


def _note_where(error: Exception, module: Module) -> None:
    """Puts (or lengthens) the note that names the failing module by its path from the outermost
    module called.
    """
    origin = getattr(error, "_lazygrad_origin", None)
    innermost = origin.module if origin is not None else module
    path = next((name for name, inner in module.named_modules() if inner is innermost), None)
    if path is None:
        return
    where = f"{type(module).__name__}.{path}" if path else type(module).__name__
    note = f"in module {where}: {innermost._get_name()}({innermost.extra_repr()})"
    if origin is not None:
        error.__notes__ = [text for text in getattr(error, "__notes__", []) if text != origin.note]
    error.add_note(note)
    # An exception class with __slots__ refuses: the note of the innermost module has to do.
    with contextlib.suppress(AttributeError):
        error._lazygrad_origin = _Origin(innermost, note)  # type: ignore[attr-defined]
