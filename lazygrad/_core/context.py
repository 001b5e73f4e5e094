"""What holds for the line being recorded: grad mode, the user's line, and errors that name it.

A public operation is a function decorated by `operation` (or `method`, which also puts it on
Tensor).  The outermost one finds the user's line once; everything recorded inside carries it.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import lazygrad_compiler
import lazygrad_runtime
from lazygrad_compiler.ir.node import IRError, Location

Function = TypeVar("Function", bound=Callable[..., Any])


class _Now(threading.local):
    """The state of this thread."""

    grad: bool = True
    inference: bool = False
    recording: Any = None
    """The `Recording` of a function being compiled in this thread."""
    location: Location = ()


now = _Now()

METHODS: dict[str, Callable[..., Any]] = {}
"""Functions that Tensor gets as methods, by name; filled by `method`."""


class TensorError(RuntimeError, ValueError):
    """An operation was given tensors that do not fit together."""


def _folder(path: str) -> str:
    return os.path.dirname(os.path.abspath(path)) + os.sep


_PACKAGES = (
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,
    _folder(str(lazygrad_compiler.__file__)),
    _folder(str(lazygrad_runtime.__file__)),
)
_inside: dict[str, bool] = {}
_UNKNOWN: Location = (("<unknown>", 0),)


def here() -> Location:
    """The innermost line outside these packages."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        inside = _inside.get(name)
        if inside is None:
            inside = _inside[name] = name.startswith(_PACKAGES)
        if not inside:
            return ((name, frame.f_lineno),)
        frame = frame.f_back
    return _UNKNOWN


def line() -> str:
    """The user's line, as errors show it: train.py:12."""
    file, number = (now.location or here())[0]
    return f"{os.path.basename(file)}:{number}"


def fail(name: str, problem: str, hint: str = "",
         kind: Callable[[str], Exception] = TensorError) -> Exception:
    """The exception to raise: names the operation, the problem, the user's line and a way out."""
    return kind(f"[{name}] {problem} ({line()})." + (f" {hint}" if hint else ""))


def operation(function: Function) -> Function:
    """Marks a public operation: its line is found once and its errors name it."""

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        if now.location:
            return function(*arguments, **keywords)
        now.location = here()
        try:
            return function(*arguments, **keywords)
        except IRError as error:
            raise TensorError(f"{error} ({line()})") from None
        finally:
            now.location = ()

    return call  # type: ignore[return-value]


def method(function: Function) -> Function:
    """Like `operation`; Tensor gets the function as a method, too."""
    call = operation(function)
    METHODS[function.__name__] = call
    return call
