"""What holds for the line being recorded: grad mode, the user's line, and errors that name it.

A public operation is a function decorated by `operation` (or `method`, which also puts it on
Tensor).  The outermost one finds the user's line once; everything recorded inside carries it.
"""

from __future__ import annotations

import functools
import itertools
import os
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy

import lazygrad_compiler
import lazygrad_runtime
from lazygrad._core.autocast import POLICY, casting
from lazygrad._core.flags import strict
from lazygrad._core.folded import FOLDED, SINGLE
from lazygrad._core.keywords import parameters_of
from lazygrad_compiler.ir.node import IRError, IRTypeError, Location

Function = TypeVar("Function", bound=Callable[..., Any])


class _Now(threading.local):
    """The state of this thread."""

    grad: bool = True
    inference: bool = False
    anomaly: bool = False
    """Whether backward looks for NaN."""
    recording: Any = None
    """The `Recording` of a function being compiled in this thread."""
    traced: Any = None
    """The innermost `Trace`, where a function runs on stand-ins."""
    location: Location = ()
    operation: str = ""
    """The public operation being recorded."""
    autocast: Any = None
    """The dtype that products run in, within `autocast`."""
    device: str | None = None
    """Of the operation under way, once devices are in use (`_core.placement`)."""
    default_device: str | None = None
    """Where tensors are made when nothing is said; None: on the CPU."""


now = _Now()

placing = False
"""Whether another device than the CPU is in use (`placement.start`)."""

record_natively: Callable[..., Any] = lambda recipes, arguments: None  # noqa: E731
"""Native code that records a call by one of the recipes (`native_record`), or gives None; put there
by `_core.plans`.
"""

SAMPLED = 64
"""Of so many calls of operations one is looked at, to be recorded natively from then on."""

calls = itertools.count(1)

METHODS: dict[str, Callable[..., Any]] = {}
"""Functions that Tensor gets as methods, by name; filled by `method`."""


class TensorError(RuntimeError, ValueError):
    """An operation was given tensors that do not fit together."""


class TensorTypeError(TensorError, TypeError):
    """An operation was given tensors of a dtype that it is not defined for."""


def _folder(path: str) -> str:
    return os.path.dirname(os.path.abspath(path)) + os.sep


_PACKAGES = (
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,
    _folder(str(lazygrad_compiler.__file__)),
    _folder(str(lazygrad_runtime.__file__)),
)
_NUMPY = _folder(str(numpy.__file__))
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


_warned: dict[Any, Any] = {}


def warn(message: str) -> None:
    """A warning at the user's line, by default shown once for each."""
    if now.traced is not None:
        now.traced.warned()
    file, number = (now.location or here())[0]
    warnings.warn_explicit(message, UserWarning, file, number, registry=_warned)


def refused(error: IRError, message: str) -> TensorError:
    """What users see of an error of the IR."""
    kind = TensorTypeError if isinstance(error, IRTypeError) else TensorError
    return kind(f"{message} ({line()})")


_PLAIN_ERRORS = (ValueError, TypeError, IndexError, OverflowError, ZeroDivisionError)
TOLD = (IRError, AttributeError, MemoryError, *_PLAIN_ERRORS)
"""Errors that are told with the operation and the line."""


def _plain_kind(error: Exception) -> type[Exception] | None:
    """What to raise an error of Python's or NumPy's as; None for those of others, and ours."""
    kind = type(error)
    if kind.__module__.startswith("numpy"):
        return next(each for each in _PLAIN_ERRORS if isinstance(error, each))
    return kind if kind in _PLAIN_ERRORS else None


def _named(name: str, error: IRError) -> str:
    """The message under the name that the user called, not that of the primitive inside."""
    message = str(error)
    return f"[{name}] {message.partition('] ')[2]}" if message[:1] == "[" else message


def _from_user(error: BaseException) -> bool:
    """Whether an error was raised by code called back: a hook, a custom Function."""
    step = error.__traceback__
    while step is not None:
        name = step.tb_frame.f_code.co_filename
        if not name.startswith((*_PACKAGES, _NUMPY)):
            return True
        step = step.tb_next
    return False


_SPOKEN = {"getitem": "index"}
"""What errors call an operation, where that is not its function's name."""


def _misused(value: Any, arguments: tuple, keywords: dict[str, Any]) -> Any:
    """The argument (or element of one) that is no tensor where one was needed, found by what
    lacked an attribute: itself, a value of its type, or a NumPy value that it led to.
    """
    module = type(value).__module__
    given = [*arguments, *keywords.values()]
    given += [each for nest in given if isinstance(nest, _NESTS) for each in nest]
    for each in given:
        if each is value or (type(each) is type(value) and not module.startswith("lazygrad")) or (
                module.startswith("numpy") and type(each).__module__.startswith("numpy")):
            return each
    return _missing


_NESTS = (list, tuple, range, str, bytes, dict, set)


_missing = object()


def told(name: str, error: Exception, arguments: tuple, keywords: dict[str, Any]
         ) -> Exception | None:
    """An error that names the operation and the user's line, to be raised instead; None where the
    error does, or is not ours.
    """
    if isinstance(error, IRError):
        return refused(error, _named(name, error))
    if isinstance(error, AttributeError):
        wrong = _misused(error.obj, arguments, keywords)
        if wrong is _missing or _from_user(error):
            return None
        return fail(name, f"takes no {type(wrong).__name__} here",
                    "Tensors are made with lazygrad.tensor(...).", TypeError)
    text = str(error)
    if text.startswith("["):
        return None
    if isinstance(error, MemoryError):
        return MemoryError(f"[{name}] {text or 'there is not enough memory for it'} ({line()})")
    kind = _plain_kind(error)
    if kind is None or _from_user(error):
        return None
    better = kind(f"[{name}] {text.removeprefix(f'{name}: ')} ({line()})")
    better.__cause__ = error
    return better


def _in_python_numbers(arguments: tuple, keywords: dict[str, Any]
                       ) -> tuple[tuple, dict[str, Any]] | None:
    """The arguments with Python's integers in place of NumPy's; None where there are none."""
    found = False

    def plain(value: Any) -> Any:
        nonlocal found
        if isinstance(value, numpy.integer):
            found = True
            return int(value)
        if value.__class__ is list or value.__class__ is tuple:
            return value.__class__(plain(each) for each in value)
        return value

    again = tuple(map(plain, arguments)), {name: plain(value) for name, value in keywords.items()}
    return again if found else None


def operation(function: Function) -> Function:
    """Marks a public operation: its line is found once, its errors name it, `out=` is served, and
    PyTorch's names of arguments are understood.
    """
    parameters = parameters_of(function)
    function = strict(function, parameters)
    if function.__name__ in FOLDED:
        from lazygrad._core.folding import folded
        function = folded(function)
    if function.__name__ in POLICY:
        function = casting(function, POLICY[function.__name__], now)  # type: ignore[assignment]
    name = _SPOKEN.get(function.__name__, function.__name__)
    is_signed = function.__name__ in FOLDED or function.__name__ in SINGLE
    recipes: list[Any] = []

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        if recipes and not keywords:
            made = record_natively(recipes, arguments)
            if made is not None:
                return made
        if keywords:
            if parameters is not None and not parameters.names.issuperset(keywords):
                arguments, keywords = parameters.respelled(arguments, keywords)
            if "out" in keywords:
                from lazygrad._core import outputs
                if function.__name__ in outputs.NAMES:
                    return outputs.run(call, function.__name__, arguments, keywords)
        if now.location:
            return function(*arguments, **keywords)
        now.location = here()
        now.operation = name
        try:
            if placing:
                from lazygrad._core.placement import call as placed
                return placed(function, arguments, keywords)
            result = function(*arguments, **keywords)
            if is_signed and not keywords and not next(calls) % SAMPLED:
                from lazygrad._core.recipes import remember
                remember(recipes, name, arguments, result)
            return result
        except TOLD as error:
            again = None if _from_user(error) else _in_python_numbers(arguments, keywords)
            if again is None:
                better = told(name, error, arguments, keywords)
                if better is None:
                    raise
                raise better from better.__cause__
        finally:
            now.location = ()
            if placing:
                now.device = None
        return call(*again[0], **again[1])

    call.recipes = recipes  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


def method(function: Function) -> Function:
    """Like `operation`; Tensor gets the function as a method, too."""
    call = operation(function)
    METHODS[function.__name__] = call
    return call
