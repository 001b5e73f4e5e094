"""The contestants: how each takes arrays, runs a function, waits, and gives values back.

A name ("lazygrad", "torch", "torch.compile", "jax") goes in.  torch's namespace and lazygrad's are
the same, so one function `program(torch, *tensors)` serves three contestants; JAX has its own,
`program(jax, *arrays)`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.benchmarks.registry import CONTESTANTS, Benchmark, Run, register

THREADS = 2


def missing(contestant: str) -> str | None:
    """Why a contestant cannot take part, or None."""
    module = contestant.partition(".")[0]
    return None if importlib.util.find_spec(module) else f"{module} is not installed"


def framework(contestant: str) -> Any:
    """The contestant's module, set to two threads."""
    module = importlib.import_module(contestant.partition(".")[0])
    if module.__name__ == "torch":
        module.set_num_threads(THREADS)
    return module


def from_numpy(contestant: str, array: np.ndarray) -> Any:
    """The contestant's own copy of an array, where its own allocator puts it: NumPy's large arrays
    begin 16 bytes past a cache line, so that each vector that is read out of them lies on two.
    """
    if contestant == "jax":
        return importlib.import_module("jax.numpy").array(array)
    return framework(contestant).from_numpy(array).clone()


def to_numpy(contestant: str, value: Any) -> np.ndarray:
    """A result as an array; bfloat16, which NumPy does not know, as float32."""
    if contestant.startswith("torch"):
        value = value.detach()
        value = (value.float() if "bfloat16" in str(value.dtype) else value).numpy()
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def compiled(contestant: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function through the contestant's compiler, where the contestant stands for one."""
    if contestant == "jax":
        return framework(contestant).jit(function)
    if contestant == "torch.compile":
        torch = framework(contestant)
        torch._dynamo.reset()  # a function seen with other shapes would get dynamic ones
        return torch.compile(function)
    return function


def waiting(contestant: str, function: Callable[..., Any], tensors: Sequence[Any]) -> Run:
    """A callable that calls the function and waits for its values."""
    module = framework(contestant)
    if contestant == "jax":
        return lambda: module.block_until_ready(function(*tensors))
    if contestant == "lazygrad":
        def run() -> Any:
            result = function(*tensors)
            module.synchronize()
            return result
        return run
    return lambda: function(*tensors)


def register_function(
    *, name: str, about: str, arrays: Callable[[], Sequence[np.ndarray]],
    program: Callable[..., Any], jax_program: Callable[..., Any], flops: int = 0, nbytes: int = 0,
    replay: bool = False, tolerance: float = 1e-4, dtype: str = "",
    contestants: Sequence[str] = CONTESTANTS,
) -> Benchmark:
    """Registers a function of arrays.

    arrays: makes the inputs.  replay: lazygrad goes through `lg.compile`; else it records the
    function anew in each call, as plain user code does.  dtype: what the arrays are turned into
    beforehand.  contestants: who can do it.
    """

    def make(contestant: str) -> Run:
        module = framework(contestant)
        code = jax_program if contestant == "jax" else program

        def function(*tensors: Any) -> Any:
            return code(module, *tensors)

        tensors = [from_numpy(contestant, array) for array in _made(arrays)]
        if dtype and contestant == "jax":
            tensors = [tensor.astype(dtype) for tensor in tensors]
        elif dtype:
            tensors = [tensor.to(getattr(module, dtype)) for tensor in tensors]
        if contestant == "lazygrad":
            module.synchronize()
        if contestant == "lazygrad" and replay:
            return waiting(contestant, module.compile(function), tensors)
        return waiting(contestant, compiled(contestant, function), tensors)

    return register(Benchmark(name=name, about=about, make=make, flops=flops, nbytes=nbytes,
                              tolerance=tolerance, contestants=tuple(contestants)))


@functools.lru_cache(maxsize=1)
def _made(arrays: Callable[[], Sequence[np.ndarray]]) -> Sequence[np.ndarray]:
    """The inputs of the row under way, made once for all contestants."""
    return arrays()


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal numbers, float32."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def uniform(*shape: int, seed: int = 0) -> np.ndarray:
    """Numbers from 0 to 1, float32."""
    return np.random.default_rng(seed).random(shape, dtype=np.float32)
