"""Settings that PyTorch scripts make at their start, where there is something to set.

Results are deterministic always; these functions accept what is true already and refuse the rest.
"""

from __future__ import annotations

from typing import Any

from lazygrad._core import placement
from lazygrad._core.context import fail, now
from lazygrad._core.types import set_default_dtype
from lazygrad._core.values import CPU, Device
from lazygrad_runtime.precision import allow_tf32


def set_default_device(device: Any) -> None:
    """Where tensors are made from now on, when nothing else is said; None: on the CPU."""
    placement.set_default(device)


def get_default_device() -> Device:
    return CPU if now.default_device is None else placement.as_device(now.default_device)


def set_default_tensor_type(t: Any) -> None:
    """Sets the default dtype by a type or its name: "lazygrad.DoubleTensor"."""
    from lazygrad.functional.properties import TYPED
    kind: Any = TYPED.get(t.rpartition(".")[2]) if isinstance(t, str) else t
    if kind not in TYPED.values():
        raise fail("set_default_tensor_type", f"there is no type {t!r}",
                   f"It is one of {', '.join(TYPED)}.", TypeError)
    set_default_dtype(kind.dtype)


class _Deterministic:
    asked = False


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Notes the wish; the same program gives the same bits on a machine either way."""
    _Deterministic.asked = bool(mode)


def are_deterministic_algorithms_enabled() -> bool:
    return _Deterministic.asked


class _Precision:
    asked = "highest"


def set_float32_matmul_precision(precision: str) -> None:
    """How exactly float32 products are computed on a GPU: "highest", in float32, as they are until
    this is called; "high" and "medium" round their operands to tf32, for the tensor cores.  On the
    CPU they are in float32 whatever it is.
    """
    if precision not in ("highest", "high", "medium"):
        raise fail("set_float32_matmul_precision", f"there is no precision {precision!r}",
                   'It is "highest", "high" or "medium".')
    _Precision.asked = precision
    allow_tf32(precision != "highest")


def get_float32_matmul_precision() -> str:
    return _Precision.asked


def set_num_threads(number: int) -> None:
    """How many threads compiled programs run on; results do not depend on it."""
    from lazygrad_runtime import pool
    if number.__class__ is not int or number < 1:
        raise fail("set_num_threads", f"{number!r} threads", "Give a whole number of at least 1.")
    pool.set_num_threads(number)


def get_num_threads() -> int:
    from lazygrad_runtime import pool
    return pool.get_num_threads()
