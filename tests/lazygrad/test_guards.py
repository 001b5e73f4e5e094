"""Guards on attributes, looked at together: `merged` holds exactly while each of them holds."""

from __future__ import annotations

from typing import Any

import pytest

import lazygrad as lg
from lazygrad._core.guards import merged, watch_attributes


class Part:
    def __init__(self) -> None:
        self.rate = 0.5
        self.name = "part"
        self.weight = lg.randn(3)
        self.table: dict[str, Any] = {"bias": lg.randn(2), "size": 3}
        self.hooks: dict[int, Any] = {}
        self.steps = [lg.randn(2), 7]
        self.fixed = (lg.randn(1), 1)


def replaced_memory(part: Part) -> None:
    part.table["bias"].data = lg.randn(2)


def replaced_memory_in_a_tuple(part: Part) -> None:
    part.fixed[0].data = lg.randn(1)


CHANGES = {
    "number": lambda part: setattr(part, "rate", 0.25),
    "string": lambda part: setattr(part, "name", "other"),
    "tensor": lambda part: setattr(part, "weight", lg.randn(3)),
    "attribute gone": lambda part: delattr(part, "rate"),
    "tensor gone": lambda part: delattr(part, "weight"),
    "entry": lambda part: part.table.update(bias=lg.randn(2)),
    "entry added": lambda part: part.table.update(more=1),
    "entry of an empty dict": lambda part: part.hooks.update({0: print}),
    "memory": replaced_memory,
    "memory in a tuple": replaced_memory_in_a_tuple,
    "item of a list": lambda part: part.steps.__setitem__(1, "x"),
    "shorter list": lambda part: part.steps.pop(),
}

HARMLESS = {
    "the same number anew": lambda part: setattr(part, "rate", float("0.5")),
    "a value written": lambda part: part.weight.mul_(2),
    "a longer list": lambda part: part.steps.append(1),
    "an attribute more": lambda part: setattr(part, "other", 1),
    "another handle on the same memory": lambda part: part.table.update(
        bias=part.table["bias"].detach()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_fails_the_guard(change: str) -> None:
    first, second = Part(), Part()
    guards = [watch_attributes(first), watch_attributes(second)]
    holds = merged(guards)
    assert holds()
    CHANGES[change](second)
    assert not all(guard() for guard in guards)
    assert not holds()


@pytest.mark.parametrize("change", HARMLESS)
def test_what_is_the_same_holds(change: str) -> None:
    part = Part()
    guards = [watch_attributes(part)]
    holds = merged(guards)
    HARMLESS[change](part)
    assert all(guard() for guard in guards)
    assert holds() and holds()


def test_other_guards_are_asked_each_time() -> None:
    answers = [True, False, True]
    asked = iter(answers)
    holds = merged([watch_attributes(Part()), lambda: next(asked)])
    assert [holds() for _ in answers] == answers
    assert merged([])()


def test_no_value_is_compared() -> None:
    """Tensors are compared by identity: nothing is recorded or computed by a guard."""
    part = Part()
    holds = merged([watch_attributes(part)])
    before = len(lg._core.cell._pending)
    part.table["bias"] = lg.randn(2)
    assert not holds()
    assert len(lg._core.cell._pending) <= before + 1
