"""Switching the recording of history: no_grad and its kin, as context managers and decorators."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from lazygrad._core.context import now


class _Mode:
    """Sets grad mode within a `with` block or a decorated function."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(now.grad)
        now.grad = self.enabled

    def __exit__(self, *_: object) -> None:
        now.grad = self._before.pop()

    def __call__(self, function: Any) -> Any:
        if inspect.isgeneratorfunction(function):
            @functools.wraps(function)
            def generate(*arguments: Any, **keywords: Any) -> Any:
                iterator = function(*arguments, **keywords)
                while True:
                    with _Mode(self.enabled):
                        try:
                            value = next(iterator)
                        except StopIteration as stop:
                            return stop.value
                    yield value
            return generate

        @functools.wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            with _Mode(self.enabled):
                return function(*arguments, **keywords)
        return call


class no_grad(_Mode):
    """Nothing computed inside has history."""

    def __new__(cls, function: Any = None) -> Any:
        made = object.__new__(cls)
        if function is None:
            return made
        _Mode.__init__(made, False)
        return made(function)

    def __init__(self, function: Any = None) -> None:
        super().__init__(False)


class enable_grad(_Mode):
    """History is recorded again, within no_grad."""

    def __new__(cls, function: Any = None) -> Any:
        made = object.__new__(cls)
        if function is None:
            return made
        _Mode.__init__(made, True)
        return made(function)

    def __init__(self, function: Any = None) -> None:
        super().__init__(True)


class inference_mode(_Mode):
    """Like no_grad."""

    def __new__(cls, mode: Any = True) -> Any:
        made = object.__new__(cls)
        if callable(mode):
            _Mode.__init__(made, False)
            return made(mode)
        return made

    def __init__(self, mode: bool = True) -> None:
        super().__init__(not mode)
        self._was: list[bool] = []

    def __enter__(self) -> None:
        super().__enter__()
        self._was.append(now.inference)
        now.inference = not self.enabled

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        now.inference = self._was.pop()


class set_grad_enabled(_Mode):
    """Switches at once; as a context manager, until its end."""

    def __init__(self, mode: bool) -> None:
        super().__init__(mode)
        self._before.append(now.grad)
        now.grad = mode

    def __enter__(self) -> None:
        now.grad = self.enabled

    def __call__(self, function: Any) -> Any:
        now.grad = self._before.pop()
        return super().__call__(function)


def is_grad_enabled() -> bool:
    return now.grad


def is_inference_mode_enabled() -> bool:
    return now.inference
