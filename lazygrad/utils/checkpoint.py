"""`checkpoint`, for scripts that use it.

PyTorch's checkpoint keeps only a function's inputs and runs the function again in backward.  Here
the compiler decides what to keep: forward and backward are one program, and where values are looked
at in between, a minimum cut chooses what is stored (`lazygrad_compiler.autodiff.residuals`).  So
the function is simply called; results and gradients are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["checkpoint", "checkpoint_sequential"]


def checkpoint(function: Callable[..., Any], *args: Any, use_reentrant: bool | None = None,
               context_fn: Any = None, determinism_check: str = "default", debug: bool = False,
               early_stop: bool = True, preserve_rng_state: bool = True, **kwargs: Any) -> Any:
    """function(*args, **kwargs); the settings are accepted."""
    return function(*args, **kwargs)


def checkpoint_sequential(functions: Any, segments: int, input: Any,
                          use_reentrant: bool | None = None, preserve_rng_state: bool = True,
                          **kwargs: Any) -> Any:
    """The functions one after the other.  ValueError unless there are at least `segments`."""
    steps: Sequence[Callable[..., Any]] = list(
        functions.children() if hasattr(functions, "children") else functions)
    if not 1 <= segments <= max(len(steps), 1):
        raise ValueError(f"[checkpoint_sequential] {len(steps)} functions do not make {segments} "
                         "segments")
    for step in steps:
        input = step(input, **kwargs)
    return input
