"""What wgmma and the copy engine are told, bit by bit, against the tables of the PTX ISA (matrix
descriptor, section 9.7.15.5.1) and of the driver's reference (`cuTensorMapEncodeTiled`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lazygrad_compiler.artifact import TensorMap
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Graph
from lazygrad_compiler.llvm.builder import const
from lazygrad_compiler.loops.index import Affine
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.pipeline import compile_graph, lower
from lazygrad_compiler.ptx import warpgroup
from lazygrad_compiler.ptx.builder import KernelModule
from lazygrad_compiler.ptx.compile import compile_ptx
from lazygrad_compiler.ptx.contraction_wgmma import TILES
from lazygrad_compiler.ptx.operands import sides
from lazygrad_compiler.ptx.tensor_map import mapped
from tests.ptx.machine import Module
from tests.ptx.memory import DeviceMemory
from tests.ptx.programs import TARGET
from tests.ptx.test_contraction import matmul


def descriptor(address: int, leading: int) -> int:
    """As a kernel computes it."""
    module = KernelModule()
    f = module.kernel("kernel", 1, 32)
    f.store(warpgroup.descriptor(f, const("i32", address), leading), f.parameters[0], 8)
    f.ret()
    memory = DeviceMemory()
    place = memory.allocate(8)
    Module(compile_ptx(module.text(), TARGET), memory).launch(
        "kernel", (1, 1, 1), (32, 1, 1), [place, place, 0], 0
    )
    return int(memory.read_array(place, np.dtype(np.uint64), (1,))[0])


@pytest.mark.parametrize("address, leading", [(0, 16), (1024, 8192), (0x2C400, 16), (1056, 8192)])
def test_fields_of_a_matrix_descriptor(address: int, leading: int) -> None:
    bits = descriptor(address, leading)
    assert bits & 0x3FFF == address >> 4  # start, in 16 bytes
    assert bits >> 16 & 0x3FFF == leading >> 4
    assert bits >> 32 & 0x3FFF == 1024 >> 4  # stride: eight rows of 128 bytes
    assert bits >> 49 & 7 == 0  # base offset: boxes begin where the swizzle does
    assert bits >> 62 == 1  # swizzle of 128 bytes
    used = 0x3FFF | 0x3FFF << 16 | 0x3FFF << 32 | 7 << 49 | 3 << 62
    assert not bits & ~used


def maps_of(graph: Graph) -> tuple[TensorMap, ...]:
    return tuple(each for launch in compile_graph(graph, TARGET).grid for each in launch.maps)


@pytest.mark.parametrize("turned", [(False, False), (True, True), (True, False)])
def test_tensor_maps_are_what_the_driver_takes(turned: tuple[bool, bool]) -> None:
    """Ranges and multiples that its reference documents, for the swizzle of 128 bytes."""
    maps = maps_of(Graph((matmul(dtypes.bfloat16, 264, 136, 200, *turned),)))
    assert len(maps) == 2
    for each in maps:
        assert 1 <= len(each.sizes) <= 5 and all(0 < size <= 1 << 32 for size in each.sizes)
        assert len(each.strides) == len(each.sizes) - 1 and each.offset % 16 == 0
        assert all(step % 16 == 0 and step < 1 << 40 for step in each.strides)
        assert each.strides[0] >= 2 * each.sizes[0]
        assert all(0 < size <= 256 for size in each.box) and 2 * each.box[0] == 128


@pytest.mark.parametrize("step, is_one", [(256, True), (264, True), (64, False), (248, False)])
def test_rows_that_overlap_are_no_tensor(step: int, is_one: bool) -> None:
    """As windows do: rows of 256 elements, so many elements after each other."""
    (launch,) = lower(Graph((matmul(dtypes.bfloat16, 256, 256, 256),)), TARGET).launches
    kernel = launch.kernel
    assert isinstance(kernel, ContractionKernel)
    left = sides(kernel)[0]
    instr = kernel.values[left.result]
    windows = Affine(0, ((kernel.k, 1), (kernel.m, step)))
    values = list(kernel.values)
    values[left.result] = replace(instr, data=(instr.data[0], windows))
    found = mapped(replace(kernel, values=tuple(values)), left, 128)
    assert (found is not None) == is_one
    if found is not None:
        assert found.map.sizes[:2] == (256, 256) and found.map.strides[0] == 2 * step


@pytest.mark.parametrize("tile", [tile for tile, _ in TILES], ids=str)
def test_tiles_fit(tile) -> None:
    """A block's threads, registers and shared memory on sm_90; warpgroups of four whole warps."""
    assert tile.threads % 128 == 0 and tile.threads <= 1024
    assert tile.shared_bytes <= TARGET.shared_bytes == 227 * 1024
    assert tile.slice_bytes % 1024 == 0 and tile.m * tile.depth * 2 % 1024 == 0
    assert tile.stages & (tile.stages - 1) == 0
    assert tile.slice_bytes < 1 << 20  # what a barrier can expect
