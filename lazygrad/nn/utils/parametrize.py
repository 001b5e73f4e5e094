"""Parametrizations: a parameter computed from others each time it is read.

`register_parametrization(module, "weight", f)` moves the parameter to
`module.parametrizations.weight.original` and makes `module.weight` a property that gives
f(original).  The module gets a class of its own for that, a subclass of the one it had.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import lazygrad as lg
from lazygrad.nn.containers import ModuleDict, ModuleList
from lazygrad.nn.module import Module
from lazygrad.nn.parameter import Parameter

__all__ = ["ParametrizationList", "cached", "is_parametrized", "register_parametrization",
           "remove_parametrizations", "type_before_parametrizations"]


class _Cache:
    """Values computed within `cached()`, by module and name; None outside."""

    values: dict[tuple[int, str], lg.Tensor] | None = None


@contextlib.contextmanager
def cached() -> Iterator[None]:
    """Within it each parametrized tensor is computed once."""
    before = _Cache.values
    _Cache.values = {} if before is None else before
    try:
        yield
    finally:
        _Cache.values = before


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor in order, and what they start from: `original`, or
    `original0`, `original1`, … where the first takes several tensors.
    """

    def __init__(self, modules: Sequence[Module], original: lg.Tensor,
                 unsafe: bool = False) -> None:
        super().__init__(modules)
        self.unsafe = unsafe
        value: Any = original
        with lg.no_grad():
            for module in reversed(list(self)):
                inverse = getattr(module, "right_inverse", None)
                value = value if inverse is None else inverse(value)
        self.is_tensor = isinstance(value, lg.Tensor)
        if not self.is_tensor and not isinstance(value, Sequence):
            raise ValueError("'right_inverse' must return a Tensor or a Sequence of tensors, not "
                             f"{type(value).__name__}")
        self.ntensors = 1 if self.is_tensor else len(value)
        for name, part in self._named(value):
            if part is original and isinstance(original, Parameter):
                self.register_parameter(name, original)
            elif isinstance(original, Parameter):
                made = Parameter(part.detach(), requires_grad=original.requires_grad)
                self.register_parameter(name, made)
            else:
                self.register_buffer(name, part)

    def _named(self, value: Any) -> list[tuple[str, lg.Tensor]]:
        if self.is_tensor:
            return [("original", value)]
        return [(f"original{number}", part) for number, part in enumerate(value)]

    def right_inverse(self, value: lg.Tensor) -> None:
        """Sets the originals so that the parametrized tensor becomes `value`, where it can."""
        with lg.no_grad():
            made: Any = value
            for module in reversed(list(self)):
                inverse: Any = getattr(module, "right_inverse", None)
                if inverse is None:
                    raise RuntimeError(f"parametrization {type(module).__name__} has no "
                                       "right_inverse(), so that the tensor cannot be assigned")
                made = inverse(made)
            for name, part in self._named(made):
                getattr(self, name).copy_(part)

    def forward(self) -> lg.Tensor:
        modules = list(self)
        if self.is_tensor:
            value = modules[0](self.original)
        else:
            value = modules[0](*(getattr(self, f"original{number}")
                                 for number in range(self.ntensors)))
        for module in modules[1:]:
            value = module(value)
        return value


def _property(name: str) -> property:
    def get(self: Any) -> lg.Tensor:
        if _Cache.values is None:
            return self.parametrizations[name]()
        key = id(self), name
        if key not in _Cache.values:
            _Cache.values[key] = self.parametrizations[name]()
        return _Cache.values[key]

    def put(self: Any, value: lg.Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    return property(get, put)


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a tensor of the module (or any) is parametrized."""
    found = module._modules.get("parametrizations")
    if not isinstance(found, ModuleDict):
        return False
    return len(found) > 0 if tensor_name is None else tensor_name in found


def type_before_parametrizations(module: Module) -> type:
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def register_parametrization(module: Module, tensor_name: str, parametrization: Module, *,
                             unsafe: bool = False) -> Module:
    """Makes `module.<tensor_name>` the result of a parametrization of it; returns the module.

    Shape and dtype must stay, unless `unsafe`.  Several form a chain.
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        chain = module.parametrizations[tensor_name]
        if not unsafe:
            _check(getattr(module, tensor_name), parametrization, tensor_name)
        inverse = getattr(parametrization, "right_inverse", None)
        if inverse is not None:
            value = inverse(getattr(module, tensor_name).detach())
            if not isinstance(value, lg.Tensor):
                raise ValueError("the right_inverse of a further parametrization returns a tensor")
            chain.right_inverse(value)
        chain.append(parametrization)
        return module
    if tensor_name not in module._parameters and tensor_name not in module._buffers:
        raise ValueError(f"Module '{module}' does not have a parameter, a buffer, or a "
                         f"parametrized element with name '{tensor_name}'")
    original = getattr(module, tensor_name)
    chain = ParametrizationList([parametrization], original, unsafe)
    if not unsafe:
        with lg.no_grad():
            _same(original, chain(), tensor_name)
    delattr(module, tensor_name)
    if not is_parametrized(module):
        kind = type(module)
        module.__class__ = type(f"Parametrized{kind.__name__}", (kind,), {})
        module.parametrizations = ModuleDict()
    setattr(type(module), tensor_name, _property(tensor_name))
    module.parametrizations[tensor_name] = chain
    return module


def _same(before: lg.Tensor, after: Any, name: str) -> None:
    if not isinstance(after, lg.Tensor):
        raise ValueError(f"a parametrization must return a tensor, not {type(after).__name__}")
    if after.shape != before.shape or after.dtype != before.dtype:
        raise ValueError(f"a parametrization of {name!r} must keep dtype and shape: "
                         f"{before.dtype} {tuple(before.shape)} became {after.dtype} "
                         f"{tuple(after.shape)}; pass unsafe=True if that is meant")


def _check(value: lg.Tensor, parametrization: Module, name: str) -> None:
    with lg.no_grad():
        _same(value, parametrization(value), name)


def remove_parametrizations(module: Module, tensor_name: str,
                            leave_parametrized: bool = True) -> Module:
    """Makes the tensor a plain one again, with its parametrized value or its original one."""
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"Module {module} does not have a parametrization on {tensor_name}")
    chain = module.parametrizations[tensor_name]
    if not leave_parametrized and not chain.is_tensor:
        raise ValueError("leave_parametrized=False needs a parametrization of one tensor")
    source = chain.original if chain.is_tensor else chain.original0
    with lg.no_grad():
        value = chain().detach() if leave_parametrized else source
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    if isinstance(source, Parameter):
        kept = value if isinstance(value, Parameter) else Parameter(value, source.requires_grad)
        module.register_parameter(tensor_name, kept)
    else:
        module.register_buffer(tensor_name, value)
    if not is_parametrized(module):
        kind = type(module).__bases__[0]
        delattr(module, "parametrizations")
        module.__class__ = kind
    return module
