"""einops takes our tensors: `rearrange`, `reduce`, `repeat`, `pack`, `unpack`, `einsum`, `asnumpy`.

einops finds the frameworks that it serves among the subclasses of its `AbstractBackend`. Ours is
defined once einops is there, whether it is imported before lazygrad or after.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

MODULE = "einops._backends"

_kept: list[type] = []
"""Holds the class: its base does not."""


def define_backend(backends: ModuleType) -> None:
    """Defines the backend by subclassing the `AbstractBackend` of einops' module of backends."""
    import lazygrad as lg

    class LazygradBackend(backends.AbstractBackend):  # type: ignore[name-defined, misc]
        framework_name = "lazygrad"

        def is_appropriate_type(self, tensor: Any) -> bool:
            return isinstance(tensor, lg.Tensor)

        def from_numpy(self, x: Any) -> lg.Tensor:
            return lg.from_numpy(x)

        def to_numpy(self, x: lg.Tensor) -> Any:
            return x.detach().numpy()

        def arange(self, start: int, stop: int) -> lg.Tensor:
            return lg.arange(start, stop)

        def shape(self, x: lg.Tensor) -> tuple[int, ...]:
            return tuple(x.shape)

        def transpose(self, x: lg.Tensor, axes: Sequence[int]) -> lg.Tensor:
            return x.permute(*axes)

        def reduce(self, x: lg.Tensor, operation: str, axes: Sequence[int]) -> lg.Tensor:
            axes = tuple(axes)
            if operation == "min":
                return x.amin(axes)
            if operation == "max":
                return x.amax(axes)
            if operation in ("sum", "mean"):
                return getattr(x, operation)(axes)
            if operation in ("any", "all", "prod"):
                for axis in sorted(axes, reverse=True):
                    x = getattr(x, operation)(axis)
                return x
            raise NotImplementedError(f"einops asks for an unknown reduction: {operation}")

        def stack_on_zeroth_dimension(self, tensors: list[lg.Tensor]) -> lg.Tensor:
            return lg.stack(tensors)

        def add_axis(self, x: lg.Tensor, new_position: int) -> lg.Tensor:
            return x.unsqueeze(new_position)

        def tile(self, x: lg.Tensor, repeats: Sequence[int]) -> lg.Tensor:
            return x.repeat(*repeats)

        def concat(self, tensors: list[lg.Tensor], axis: int) -> lg.Tensor:
            return lg.cat(tensors, dim=axis)

        def is_float_type(self, x: lg.Tensor) -> bool:
            return x.is_floating_point() or x.is_complex()

        def einsum(self, pattern: str, *x: lg.Tensor) -> lg.Tensor:
            return lg.einsum(pattern, *x)

    _kept.append(LazygradBackend)


class _Then(Loader):
    """A loader that defines the backend when the module has been run."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        define_backend(module)


class _WhenImported(MetaPathFinder):
    """Waits for einops, once."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Then(spec.loader)
        return spec


def watch() -> None:
    """Defines the backend now where einops is there, else when it comes."""
    there = sys.modules.get(MODULE)
    if there is not None:
        define_backend(there)
    else:
        sys.meta_path.insert(0, _WhenImported())
