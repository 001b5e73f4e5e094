"""The driver's table against its own header, cuda.h, where a wheel or a toolkit has brought one:
signatures, numbers of enumerations, and the layout of structures.
"""

from __future__ import annotations

import ctypes
import functools
import re
import sys
from collections.abc import Mapping
from ctypes import c_char_p, c_int, c_size_t, c_ubyte, c_uint, c_uint64, c_void_p
from pathlib import Path

import pytest

from lazygrad_compiler.ptx.builder import TENSOR_MAP
from lazygrad_runtime.cuda import context, errors, module, stream, tensor_maps
from lazygrad_runtime.cuda.context import ATTRIBUTES
from lazygrad_runtime.cuda.driver import SIGNATURES
from lazygrad_runtime.cuda.graph import KernelNode

EARLIER = {"cuEventElapsedTime", "cuCtxSynchronize"}
"""Functions whose newer version is not what we call: the first one stays in the library."""

SCALARS = {
    "int": c_int, "unsigned int": c_uint, "cuuint32_t": c_uint, "size_t": c_size_t,
    "cuuint64_t": c_uint64, "unsigned long long": c_uint64, "unsigned char": c_ubyte,
    "CUdeviceptr": c_uint64, "CUdevice": c_int,
}  # fmt: skip


@functools.cache
def header() -> str:
    """Without comments; skips where there is none."""
    places = [Path(folder).glob("nvidia/cu*/include/cuda.h") for folder in sys.path]
    places.append(Path("/usr/local/cuda/include").glob("cuda.h"))
    found = next((path for place in places for path in place), None)
    if found is None:
        pytest.skip("no cuda.h on this machine")
    text = found.read_text(errors="replace")
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.DOTALL)


@functools.cache
def enumerations() -> Mapping[str, int]:
    """Every name of every `typedef enum`, with its number."""
    known: dict[str, int] = {
        name: int(value, 0)
        for name, value in re.findall(r"#define\s+(CU_\w+)\s+(0x[0-9a-fA-F]+|\d+)\s", header())
    }
    for body in re.findall(r"enum\s+\w+\s*\{(.*?)\}", header(), re.DOTALL):
        following = 0
        for entry in filter(None, (each.strip() for each in body.split(","))):
            name, _, value = (part.strip() for part in entry.partition("="))
            if value:
                try:
                    following = sum(_number(term, known) for term in value.split("+"))
                except KeyError:
                    continue  # an expression of another kind, of which we use none
            known[name] = following
            following += 1
    return known


def _number(term: str, known: Mapping[str, int]) -> int:
    term = term.strip()
    return int(term, 0) if re.fullmatch(r"0x[0-9a-fA-F]+|\d+", term) else known[term]


def kind_of(parameter: str) -> type:
    """The type that ctypes passes for a C parameter; handles are pointers."""
    parameter = parameter.replace("const ", "").strip()
    if "*" in parameter:
        return c_void_p
    type_ = re.sub(r"\s*\w+$", "", parameter) if " " in parameter else parameter
    if type_ in SCALARS:
        return SCALARS[type_]
    if re.search(rf"typedef struct \w+ ?\*\s*{type_};", header()):
        return c_void_p
    assert re.search(rf"\}}\s*{type_};", header()), type_
    return c_int


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name: str) -> None:
    renamed = re.search(rf"#define (\w+)\s+(?:__CUDA_API_PTSZ\()?{name}\b", header())
    base = renamed[1] if renamed else name
    newest = re.search(rf"#define {base}\s+(?:__CUDA_API_PTSZ\()?(\w+)", header())
    if newest and base not in EARLIER:
        assert newest[1] == name
    given = re.search(rf"CUresult\s+CUDAAPI\s+{base}\(([^)]*)\)", header())
    assert given, name
    wanted = [] if given[1].strip() == "void" else [kind_of(each) for each in given[1].split(",")]
    ours = [_register(kind) for kind in SIGNATURES[name]]
    assert ours == [_register(kind) for kind in wanted], f"{name}({given[1]})"


def _register(kind: type) -> type:
    """Addresses are passed as numbers, too: a call does not know them apart."""
    return c_uint64 if kind in (c_void_p, c_char_p, c_size_t) else kind


def test_attributes_of_devices() -> None:
    spelled = {
        "L2_cache_size": "L2_CACHE_SIZE", "major": "COMPUTE_CAPABILITY_MAJOR",
        "minor": "COMPUTE_CAPABILITY_MINOR", "multi_processor_count": "MULTIPROCESSOR_COUNT",
        "memory_bus_width": "GLOBAL_MEMORY_BUS_WIDTH",
        "max_threads_per_multi_processor": "MAX_THREADS_PER_MULTIPROCESSOR",
        "shared_memory_per_multiprocessor": "MAX_SHARED_MEMORY_PER_MULTIPROCESSOR",
        "shared_memory_per_block_optin": "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN",
        "regs_per_multiprocessor": "MAX_REGISTERS_PER_MULTIPROCESSOR",
    }  # fmt: skip
    for name, number in ATTRIBUTES.items():
        named = f"CU_DEVICE_ATTRIBUTE_{spelled.get(name, name.upper())}"
        assert enumerations()[named] == number, named


NUMBERS = {
    "CU_JIT_INFO_LOG_BUFFER": module.INFO_LOG,
    "CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES": module.INFO_LOG_BYTES,
    "CU_JIT_ERROR_LOG_BUFFER": module.ERROR_LOG,
    "CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES": module.ERROR_LOG_BYTES,
    "CU_JIT_TARGET": module.TARGET,
    "CU_JIT_INPUT_PTX": module.INPUT_PTX,
    "CU_TARGET_COMPUTE_90A": module.ACCELERATED + 90,
    "CU_TARGET_COMPUTE_100A": module.ACCELERATED + 100,
    "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES": module.MAX_DYNAMIC_SHARED,
    "CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL": context.DEVICE_OF_POINTER,
    "CUDA_ERROR_INVALID_VALUE": errors.INVALID_VALUE,
    "CU_EVENT_DISABLE_TIMING": stream.DISABLE_TIMING,
    "CU_TENSOR_MAP_DATA_TYPE_FLOAT16": tensor_maps.DATA_TYPES["float16"],
    "CU_TENSOR_MAP_DATA_TYPE_FLOAT32": tensor_maps.DATA_TYPES["float32"],
    "CU_TENSOR_MAP_DATA_TYPE_FLOAT64": tensor_maps.DATA_TYPES["float64"],
    "CU_TENSOR_MAP_DATA_TYPE_BFLOAT16": tensor_maps.DATA_TYPES["bfloat16"],
    "CU_TENSOR_MAP_SWIZZLE_128B": tensor_maps.SWIZZLE_128,
    "CU_TENSOR_MAP_L2_PROMOTION_L2_256B": tensor_maps.PROMOTE_256,
    "CU_TENSOR_MAP_INTERLEAVE_NONE": 0,
    "CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE": 0,
    "CUDA_ERROR_OUT_OF_MEMORY": errors.OUT_OF_MEMORY,
    "CUDA_ERROR_NOT_READY": errors.NOT_READY,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name: str) -> None:
    assert enumerations()[name] == NUMBERS[name]


STICKY = {
    "ECC_UNCORRECTABLE", "NVLINK_UNCORRECTABLE", "CONTAINED", "ILLEGAL_ADDRESS", "LAUNCH_TIMEOUT",
    "CONTEXT_IS_DESTROYED", "ASSERT", "HARDWARE_STACK_ERROR", "ILLEGAL_INSTRUCTION",
    "MISALIGNED_ADDRESS", "INVALID_ADDRESS_SPACE", "INVALID_PC", "LAUNCH_FAILED",
    "TENSOR_MEMORY_LEAK", "UNKNOWN",
}  # fmt: skip


def test_codes_that_lose_a_context_are_those_that_the_header_says_leave_it_unusable() -> None:
    assert {enumerations()[f"CUDA_ERROR_{name}"] for name in STICKY} == errors.LOSING
    assert set(errors.ADVICE) <= set(enumerations().values())


def test_parameters_of_a_kernel_node_lie_where_the_header_puts_them() -> None:
    body = re.search(r"typedef struct CUDA_KERNEL_NODE_PARAMS_v2_st \{(.*?)\}", header(), re.DOTALL)
    assert body
    kinds = [kind_of(each) for each in filter(None, (part.strip() for part in body[1].split(";")))]
    fields = tuple((f"field{number}", kind) for number, kind in enumerate(kinds))
    wanted = type("Wanted", (ctypes.Structure,), {"_fields_": fields})
    assert ctypes.sizeof(wanted) == ctypes.sizeof(KernelNode)
    offsets = [getattr(wanted, name).offset for name, _ in fields]
    ours = {name: getattr(KernelNode, name).offset for name, *_ in KernelNode._fields_}
    assert ours == {
        "function": offsets[0], "grid": offsets[1], "block": offsets[4], "shared": offsets[7],
        "parameters": offsets[8], "extra": offsets[9], "kernel": offsets[10],
        "context": offsets[11],
    }  # fmt: skip


def test_a_tensor_map_is_as_large_and_as_aligned_as_the_header_says() -> None:
    body = re.search(r"typedef struct CUtensorMap_st \{(.*?)\} CUtensorMap;", header(), re.DOTALL)
    assert body
    aligned = re.search(r"alignas\((\d+)\)", body[1])
    assert aligned and tensor_maps.ALIGNMENT % int(aligned[1]) == 0
    assert f"align {tensor_maps.ALIGNMENT} " in TENSOR_MAP
    words = re.search(r"opaque\[(\w+)\]", body[1])
    assert words and 8 * enumerations()[words[1]] == tensor_maps.BYTES
