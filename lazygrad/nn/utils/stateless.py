"""Calling a module with other parameters than its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import lazygrad as lg
from lazygrad.nn.module import Module

__all__ = ["functional_call"]


@contextlib.contextmanager
def _reparametrized(module: Module, values: Mapping[str, lg.Tensor]) -> Iterator[None]:
    """The module with some parameters and buffers exchanged, within the block."""
    before: list[tuple[dict, str, Any]] = []
    try:
        for path, value in values.items():
            prefix, _, name = path.rpartition(".")
            owner = module.get_submodule(prefix)
            registry = next((each for each in (owner._parameters, owner._buffers)
                             if name in each), None)
            if registry is None:
                raise AttributeError(f"{type(module).__name__} has no parameter or buffer "
                                     f"{path!r}")
            before.append((registry, name, registry[name]))
            registry[name] = value  # type: ignore[assignment]
        yield
    finally:
        for registry, name, value in reversed(before):
            registry[name] = value


def functional_call(module: Module, parameters_and_buffers: Any, args: Any = None,
                    kwargs: dict[str, Any] | None = None, *, tie_weights: bool = True,
                    strict: bool = False) -> Any:
    """module(*args, **kwargs) with the given tensors in place of its own, by dotted name.

    parameters_and_buffers: a dictionary, or several that are merged.  tie_weights: a tensor that
    the module knows under several names is exchanged under all of them.  strict: all names must be
    given.
    """
    values: dict[str, lg.Tensor] = {}
    for part in ([parameters_and_buffers] if isinstance(parameters_and_buffers, Mapping)
                 else parameters_and_buffers):
        values.update(part)
    named = {**dict(module.named_parameters(remove_duplicate=False)),
             **dict(module.named_buffers(remove_duplicate=False))}
    unexpected = [name for name in values if name not in named]
    missing = [name for name in named if name not in values]
    if unexpected:
        raise RuntimeError(f"Unexpected key(s): {', '.join(unexpected)}.")
    if missing and strict:
        raise RuntimeError(f"Missing key(s): {', '.join(missing)}.")
    if tie_weights:
        owners = {id(named[name]): value for name, value in values.items()}
        for name in missing:
            if id(named[name]) in owners:
                values[name] = owners[id(named[name])]
    arguments = () if args is None else args if isinstance(args, tuple) else (args,)
    with _reparametrized(module, values):
        return module(*arguments, **(kwargs or {}))
