"""CUDA without a GPU: the driver's functions over the PTX interpreter, for a `with` block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from lazygrad._core import cell, context, placement, tensor, values
from lazygrad.functional import elementwise
from lazygrad_compiler.ir import node
from lazygrad_runtime.cuda import driver
from lazygrad_runtime.cuda.context import Device
from lazygrad_runtime.program import forget_programs
from tests.ptx.driver import FakeDriver

ERRORS = {
    "invalid value": 1, "initialization": 3, "shutting down": 4, "no device": 100,
    "no binary": 209, "invalid PTX": 218, "unsupported PTX": 222, "invalid handle": 400,
    "launch resources": 701, "unknown": 999,
}  # fmt: skip
"""Codes that any call may return; 2 (out of memory) and lost contexts have tests of their own."""


@contextlib.contextmanager
def switched_off() -> Iterator[None]:
    """Afterwards no device is in use, as before."""
    try:
        yield
    finally:
        forget_programs()
        cell._pending.clear()  # an exception that pytest keeps may hold tensors of a device
        cell._with_history.clear()
        for module in (node, context, tensor, values, elementwise):
            module.placing = False
        context.now.device = context.now.default_device = None
        placement.set_current_index(0)


@contextlib.contextmanager
def fake_cuda(**settings: Any) -> Iterator[FakeDriver]:
    """A fake driver as the process's, and everything back as it was afterwards."""
    fake = FakeDriver(**settings)
    driver.install(fake)
    try:
        with switched_off():
            yield fake
    finally:
        driver.install(None)


def first_device() -> Device:
    return driver.driver().devices[0]
