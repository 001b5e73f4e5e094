"""torch.jit's decorators, so that programs which use them run: everything is compiled anyway.

`script` and `trace` give back what they are given; `lazygrad.compile` is what saves recording.
A file of TorchScript code can be neither written nor read.
"""

from __future__ import annotations

from typing import Any, NoReturn

from lazygrad._core.context import fail
from lazygrad.nn.module import Module as ScriptModule

__all__ = ["ScriptModule", "export", "freeze", "ignore", "is_scripting", "is_tracing", "load",
           "optimize_for_inference", "save", "script", "script_method", "trace", "unused"]


def script(obj: Any = None, *arguments: Any, **keywords: Any) -> Any:
    """`obj` itself: a function, a module or a class."""
    return script if obj is None else obj


export = script_method = unused = freeze = optimize_for_inference = script


def ignore(drop: Any = False, **keywords: Any) -> Any:
    """As a decorator, with or without arguments, gives back the function."""
    return drop if callable(drop) else script


def trace(func: Any, example_inputs: Any = None, *arguments: Any, **keywords: Any) -> Any:
    """`func` itself: unlike a trace, it goes on following its Python branches."""
    return func


def is_scripting() -> bool:
    return False


is_tracing = is_scripting


def _no_files(name: str) -> NoReturn:
    raise fail(f"jit.{name}", "TorchScript files are not supported",
               "Save module.state_dict() with lazygrad.save, and load it into a new module.",
               NotImplementedError)


def save(m: Any, f: Any, **keywords: Any) -> NoReturn:
    """Not supported."""
    _no_files("save")


def load(f: Any, *arguments: Any, **keywords: Any) -> NoReturn:
    """Not supported."""
    _no_files("load")
