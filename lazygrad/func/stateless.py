"""Modules as functions of their parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lazygrad._core.tensor import Tensor


def functional_call(
    module: Any,
    parameter_and_buffer_dicts: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Calls a module with some of its parameters and buffers replaced, by dotted name.

    args: one argument, or a tuple of them.  tie_weights: a tensor known by several names is
    replaced under all of them.  strict: every parameter and buffer must be given.

    Raises KeyError for names that the module does not have.
    """
    given = parameter_and_buffer_dicts
    replacements: dict[str, Tensor] = {}
    for part in [given] if isinstance(given, Mapping) else given:
        twice = replacements.keys() & part.keys()
        if twice:
            raise ValueError(f"[functional_call] {sorted(twice)[0]!r} is given twice")
        replacements.update(part)
    arguments = () if args is None else args if isinstance(args, tuple) else (args,)
    with _replaced(module, replacements, tie_weights, strict):
        return module(*arguments, **(kwargs or {}))


@contextmanager
def _replaced(
    module: Any, replacements: Mapping[str, Tensor], tie_weights: bool, strict: bool
) -> Iterator[None]:
    own = dict(module.named_parameters(remove_duplicate=False))
    own.update(module.named_buffers(remove_duplicate=False))
    unknown = replacements.keys() - own.keys()
    if unknown:
        raise KeyError(f"[functional_call] the module has no parameter or buffer "
                       f"{sorted(unknown)[0]!r}; it has {', '.join(sorted(own))}")
    missing = own.keys() - replacements.keys()
    if strict and missing:
        raise RuntimeError(f"[functional_call] {sorted(missing)[0]!r} is not given (strict=True)")
    wanted = dict(replacements)
    if tie_weights:
        by_identity = {id(own[name]): value for name, value in replacements.items()}
        for name, tensor in own.items():
            if name not in wanted and id(tensor) in by_identity:
                wanted[name] = by_identity[id(tensor)]
    undo = []
    try:
        for name, value in wanted.items():
            path, _, last = name.rpartition(".")
            owner = module.get_submodule(path)
            table = owner._parameters if last in owner._parameters else owner._buffers
            undo.append((table, last, table[last]))
            table[last] = value
        yield
    finally:
        for table, last, value in reversed(undo):
            table[last] = value


def stack_module_state(models: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and buffers of several modules of one kind, stacked along a new first axis: for
    `vmap` over an ensemble.
    """
    from lazygrad.functional.joining import stack

    if not models:
        raise ValueError("[stack_module_state] needs at least one model")
    if any(type(model) is not type(models[0]) for model in models):
        raise ValueError("[stack_module_state] the models are not all of one class")
    if any(model.training is not models[0].training for model in models):
        raise ValueError("[stack_module_state] some models are in training mode and some are not")

    def stacked(tables: list[dict[str, Tensor]], leaves: bool) -> dict[str, Any]:
        result = {}
        for name, tensor in tables[0].items():
            joined = stack([table[name].detach() for table in tables])
            result[name] = joined.requires_grad_(leaves and tensor.requires_grad)
        return result

    return (stacked([dict(model.named_parameters()) for model in models], True),
            stacked([dict(model.named_buffers()) for model in models], False))
