"""Whole programs on the interpreter: an artifact's launches, in order, over device memory.

This is what the runtime does with a GPU, without its driver: inputs and outputs in allocations of
their own, one arena, an error block.  Fresh memory is poisoned, so what nobody wrote is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lazygrad_compiler.artifact import Artifact, TensorMap
from lazygrad_compiler.cuda_target import CudaTarget, cuda_target
from lazygrad_compiler.ir.dtypes import dtype_named
from lazygrad_compiler.ir.node import Graph
from lazygrad_compiler.llvm.entry import LIBRARY_SYMBOL
from lazygrad_compiler.pipeline import compile_graph
from tests.ptx.machine import Module
from tests.ptx.memory import DeviceMemory
from tests.ptx.tensor_copies import TensorMap as EncodedMap

TARGET = cuda_target("cuda:sm_90a")
ERROR_BYTES = 64


class ReportedError(Exception):
    """The error block after a run: (index, size, axis, launch)."""


def encoded(tensor: TensorMap, argument: int) -> bytes:
    """A tensor map as the interpreter's driver writes it."""
    data_type = {"float16": 6, "float32": 7, "bfloat16": 9}[tensor.dtype]
    steps = (1,) * len(tensor.box)
    return EncodedMap(
        data_type, argument + tensor.offset, tensor.sizes, tensor.strides, tensor.box, steps,
        swizzle=3,
    ).encode()  # fmt: skip


def run_artifact(artifact: Artifact, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs, as arrays.  ReportedError where a kernel reported an index out of range."""
    memory = DeviceMemory()
    table = [memory.upload(np.ascontiguousarray(array)) for array in inputs[: artifact.inputs]]
    results = []
    for name, shape in artifact.outputs:
        dtype = dtype_named(name).numpy
        size = int(np.prod(shape, dtype=np.int64))
        results.append((memory.allocate(max(size * dtype.itemsize, 1)), dtype, shape))
    table += [address for address, _, _ in results]
    table.append(memory.allocate(max(artifact.arena_bytes, 1)))
    error = memory.upload(np.zeros(ERROR_BYTES // 8, np.int64))
    modules: dict[str, Module] = {}
    for launch in artifact.grid:
        if launch.kernel == LIBRARY_SYMBOL:
            pytest.skip("library calls are the runtime's")
        if 0 in launch.grid:
            continue
        if launch.kernel not in modules:
            text = artifact.objects[launch.kernel].decode()
            modules[launch.kernel] = Module(text, memory)
        addresses = [table[slot] + offset for slot, offset in launch.arguments]
        maps = [encoded(each, addresses[each.argument]) for each in launch.maps]
        modules[launch.kernel].launch(
            launch.kernel, launch.grid, launch.block, [*addresses, error, launch.number, *maps],
            launch.shared
        )
    report = memory.read_array(error, np.dtype(np.int64), (ERROR_BYTES // 8,))
    if report[0]:
        raise ReportedError(*(int(value) for value in report[1:5]))
    return [memory.read_array(address, dtype, shape) for address, dtype, shape in results]


def run_graph(
    graph: Graph, inputs: Sequence[np.ndarray], target: CudaTarget = TARGET
) -> list[np.ndarray]:
    artifact = compile_graph(graph, target)
    described = Artifact.from_description(artifact.description(), artifact.objects)
    assert described == artifact
    return run_artifact(artifact, inputs)


def save(graph: Graph, folder: Path, target: CudaTarget = TARGET) -> list[Path]:
    """The PTX of a graph's kernels as files."""
    artifact = compile_graph(graph, target)
    paths = []
    for name, text in artifact.objects.items():
        paths.append(folder / f"{name}.ptx")
        paths[-1].write_bytes(text)
    return paths
