"""`compile`: a function recorded once for each signature, then replayed without recording.

The first call with a signature runs the function with everything that it reads held apart: each
argument and each living tensor outside stands on a leaf of its own.  What the function returns and
what it writes (parameters, optimiser state, buffers, gradients) becomes the outputs of one program;
the leaves that it reads become the inputs.  A replay looks up the leaves' present values, runs the
program, and puts the results where they belong.  Results are new tensors each time, never
overwritten.

The recording changes nothing: state goes back to what it was, and the first replay makes the
changes.  A function is recorded anew where a guard fails (`_core.guards`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from lazygrad._core.context import now
from lazygrad._core.guards import NotCapturable, Recording
from lazygrad._core.nests import parts_of
from lazygrad._core.plans import Plan, plan_of
from lazygrad._core.recorder import record
from lazygrad._core.replay import Entry
from lazygrad._core.tensor import Tensor, shape_of
from lazygrad._core.types import default
from lazygrad_compiler.ir import node as nodes
from lazygrad_compiler.ir.node import device_of
from lazygrad_runtime.precision import precision

MOST_ENTRIES = 64
"""Recordings kept for one function; past that the oldest goes."""

MOST_FOR_ONE_SIGNATURE = 16
"""Recordings for one signature; past that its guards are known to keep failing."""

MANY_REPLAYS = 32
"""After so many in Python it is looked whether native code can replay a recording; a power of two,
since it is looked again after twice as many.
"""

MOST_PLANS = 8
"""Of one function; native code tries them in turn."""

KEY_PARTS = ("arguments", "gradients enabled", "autocast", "default dtype", "tf32 allowed",
             "which arguments share memory")
"""What the parts of a signature's key are, for people."""

recorded_callbacks: list[Callable[[CompiledFunction, Any, Sequence[Tensor]], None]] = []
"""Called as callback(function, key, tensors) before a call is recorded."""


def recording() -> Recording | None:
    """The recording under way in this thread, or None."""
    return now.recording


def compile(model: Any = None, *, tune: bool | float = False, **options: Any) -> Any:
    """A function (or module) that is recorded once per signature and then replayed as one native
    program.

    model: the function or `nn.Module`; without it, a decorator.  tune: before the first replay time
    other schedules of the program's kernels, and keep the fastest (docs/tuning.md); takes seconds
    to minutes once, or as many seconds as are given, about, and changes no result.  options:
    accepted for PyTorch's sake and ignored.  Tensor arguments are told apart by shape, dtype and
    whether they require gradients, all others by value (or identity, where they are objects).

    Recorded anew: when the function's own closure and global variables, the attributes of modules
    that it calls, or the settings of optimisers (but for the learning rate, which replays follow)
    change.  Part of the recording: Python values from further away, and data that the function
    itself turns into tensors.  Python side effects happen while recording only.

    A function that looks at values (`.item()`, `print`) or returns tensors with autograd history
    runs as recorded code each time: right, with cached programs, but without replay.
    """
    if model is None:
        return functools.partial(compile, tune=tune, **options)
    return CompiledFunction(model, tune)


def tuning_seconds(tune: bool | float) -> float:
    """What `tune` allows for each program.  TypeError, ValueError for what is neither yes, no, nor
    a time.
    """
    if isinstance(tune, bool):
        return math.inf if tune else 0.0
    if not isinstance(tune, (int, float)):
        raise TypeError(f"[compile] tune is a {type(tune).__name__}; give True, False, or seconds")
    if not tune > 0:
        raise ValueError(f"[compile] tune={tune}: seconds are above 0; for no tuning give False")
    return float(tune)


class CompiledFunction:
    """See `compile`.  `.recordings`: how many signatures are kept; `.reasons`: why calls were not
    replayed, with the line.
    """

    __slots__ = ("__dict__", "__weakref__", "plans")

    plans: tuple[Plan, ...]
    """Recordings that native code replays, where there is any (`_core.plans`)."""

    def __init__(self, function: Callable[..., Any], tune: bool | float = False) -> None:
        self.plans = ()
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._tuning_seconds = tuning_seconds(tune)
        self._entries: dict[Any, list[Entry]] = {}
        self.reasons: list[str] = []
        self._plain: set[Any] = set()

    @property
    def recordings(self) -> int:
        return sum(map(len, self._entries.values()))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._function, name)

    def call_slowly(self, *arguments: Any, **keywords: Any) -> Any:
        """The call, in Python: what native code is not sure of."""
        if now.recording is not None or now.traced is not None:
            return self._function(*arguments, **keywords)
        tensors: list[Tensor] = []
        try:
            signatures: list[Any] = []
            for value in arguments:
                if value.__class__ is Tensor and value._view is None and not nodes.placing:
                    cell = value._cell
                    tensors.append(value)
                    signatures.append((cell.node.dtype, cell.node.shape,
                                       cell.tracked and not value._detached))
                else:
                    signatures.append(_signature(value, tensors))
            key: Any = tuple(signatures)
            if keywords:
                key = (key, _signature(keywords, tensors))
            key = (key, now.grad, now.autocast, default.dtype, precision.tf32,
                   _sharing(tensors))
            for entry in self._entries.get(key, ()):
                if entry.holds(tensors):
                    entry.replays = count = entry.replays + 1
                    if count >= MANY_REPLAYS and not count & (count - 1) and not keywords:
                        self._plan(entry, arguments, tensors)
                    return entry.replay(tensors)
            if key not in self._plain:
                return self._recorded(key, arguments, keywords, tensors).replay(tensors)
        except NotCapturable as reason:
            if str(reason) not in self.reasons:
                self.reasons.append(str(reason))
        return self._function(*arguments, **keywords)

    __call__ = call_slowly

    def _plan(self, entry: Entry, arguments: Sequence[Any], tensors: Sequence[Tensor]) -> None:
        """Has native code replay a recording from now on, if that can be."""
        plan = plan_of(entry, arguments, tensors)
        if plan is not None:
            others = [each for each in self.plans if each.entry is not entry]
            self.plans = (plan, *others[:MOST_PLANS - 1])

    def _recorded(
        self, key: Any, arguments: Any, keywords: Any, tensors: Sequence[Tensor]
    ) -> Entry:
        try:
            kept = self._entries.get(key, ())
            if len(kept) >= MOST_FOR_ONE_SIGNATURE:
                raise NotCapturable(
                    "Python state that the function depends on keeps changing: it "
                    f"was recorded {len(kept)} times for one signature"
                )
            for callback in recorded_callbacks:
                callback(self, key, tensors)
            entry = record(self._function, arguments, keywords, tensors)
            entry.tuning_seconds = self._tuning_seconds
        except NotCapturable:
            self._plain.add(key)
            self._entries.pop(key, None)
            raise
        self._entries.setdefault(key, []).append(entry)
        while self.recordings > MOST_ENTRIES:
            oldest = next(iter(self._entries))
            gone = self._entries[oldest].pop(0)
            self.plans = tuple([plan for plan in self.plans if plan.entry is not gone])
            if not self._entries[oldest]:
                del self._entries[oldest]
        return entry


def _signature(value: Any, tensors: list[Tensor]) -> Any:
    """What a recording depends on in an argument; tensors met are collected."""
    if isinstance(value, Tensor):
        tensors.append(value)
        if nodes.placing:
            return (value.dtype, tuple(value.shape), value.requires_grad,
                    device_of(value._cell.node))
        return (value.dtype, shape_of(value), value.requires_grad)
    kind = type(value)
    if kind is int or kind is str or kind is bool or value is None:
        return (kind, value)
    if isinstance(value, (float, complex, numpy.generic)):
        return (kind, repr(value))
    items = parts_of(value)
    if items is not None:
        names = tuple(value) if isinstance(value, dict) else ()
        return (kind, names, *[_signature(item, tensors) for item in items])
    try:
        hash(value)
    except TypeError:
        raise NotCapturable(
            f"an argument of type {kind.__name__} may change without notice; "
            "pass numbers, tensors, tuples, lists or dicts"
        ) from None
    return (kind, value)


def _sharing(tensors: Sequence[Tensor]) -> Any:
    """Which arguments are the same tensor, and which share memory; None where none do."""
    if len(tensors) < 2 or len({id(tensor._cell) for tensor in tensors}) == len(tensors):
        return None
    first: dict[int, int] = {}
    return tuple(
        (first.setdefault(id(tensor), position), first.setdefault(id(tensor._cell), position))
        for position, tensor in enumerate(tensors)
    )


__all__ = ["CompiledFunction", "NotCapturable", "Recording", "compile", "recording"]
