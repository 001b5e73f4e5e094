"""Errors of what is public and no operation: constructors, `nn.utils`, data sets.

In: a function, or a class.  Out: the same, whose mistakes are told as those of operations are, with
its name and the user's line: `[Conv2d] in_channels 3 and out_channels 4 must be divisible by groups
2 (train.py:12)`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from lazygrad._core.context import TOLD, now, told

Function = TypeVar("Function", bound=Callable[..., Any])
OURS = "lazygrad."


def entry(function: Function) -> Function:
    """A public function whose errors name it."""

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        try:
            return function(*arguments, **keywords)
        except TOLD as error:
            better = None if now.location else told(function.__name__, error, arguments, keywords)
            if better is None:
                raise
            raise better from better.__cause__

    return call  # type: ignore[return-value]


class Entry:
    """Base of classes of ours whose constructors' errors name the class; those of users' own
    constructors are theirs.
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if cls.__module__.startswith(OURS) and "__init__" in vars(cls):
            cls.__init__ = _named(vars(cls)["__init__"])  # type: ignore[method-assign]


def _named(construct: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(construct)
    def __init__(self: Any, *arguments: Any, **keywords: Any) -> None:
        try:
            construct(self, *arguments, **keywords)
        except TOLD as error:
            better = told(_called(self), error, arguments, keywords)
            if better is None:
                raise
            raise better from better.__cause__

    return __init__


def _called(value: Any) -> str:
    """The class's name, or that of the class of ours that a user's class is made of."""
    return next(each.__name__ for each in type(value).__mro__ if each.__module__.startswith(OURS))
