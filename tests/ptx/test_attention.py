"""Attention on a GPU, forward and backward, against the graph's interpreter."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest

from lazygrad_compiler.artifact import Artifact
from lazygrad_compiler.cuda_target import CudaTarget, cuda_target
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, node
from lazygrad_compiler.pipeline import Stages, compile_graph, lower
from lazygrad_compiler.ptx import attention
from tests.compiler.test_attention import (
    MASKS,
    ODD,
    TOLERANCE,
    Shape,
    assert_close,
    heads_of,
    outputs_of,
)
from tests.ptx.assembled import ARCHITECTURES, assembled
from tests.ptx.programs import TARGET, run_artifact
from tests.ptx.support import some


def graph_of(
    shape: Shape, dtype: str, causal: bool = False, mask: tuple[str, tuple[int, ...]] | None = None,
    zero: bool = True, parts: str = "qkv", scale: float = 0.3,
) -> Graph:  # fmt: skip
    """mask: dtype and shape."""
    given = [(dtype, sizes) for sizes in shape.operands] + ([mask] if mask else [])
    leaves = [
        node("input", index=number, dtype=DTYPES[name], shape=sizes)
        for number, (name, sizes) in enumerate(given)
    ]
    return Graph(outputs_of(leaves, scale, causal, zero, parts))


def arrays_of(shape: Shape, dtype: str) -> list[numpy.ndarray]:
    random = numpy.random.default_rng(7)
    return [random.standard_normal(each).astype(DTYPES[dtype].numpy) for each in shape.operands]


def steps_of(stages: Stages) -> list[str]:
    return [launch.kernel.step for launch in stages.launches if launch.kernel.kind == "attention"]


def check(graph: Graph, arrays: list[numpy.ndarray], dtype: str) -> Artifact:
    artifact = compile_graph(graph, TARGET)
    names = " ".join(about for _, about, _ in artifact.launches)
    assert "attention" in names
    with numpy.errstate(all="ignore"):
        expected = interpret(graph, arrays)
    for have, want in zip(run_artifact(artifact, arrays), expected, strict=True):
        assert_close(have, want, TOLERANCE[dtype])
    return artifact


@pytest.mark.parametrize("dtype, causal, size", [
    ("float16", False, 67), ("float16", True, 67), ("bfloat16", True, 40), ("float32", True, 36),
    ("float32", False, 18),
])  # fmt: skip
def test_odd_sizes(dtype: str, causal: bool, size: int) -> None:
    """Several rows of blocks, groups of heads, rows that lie in no whole pieces of 16 bytes."""
    shape = Shape(1, 2, 1, size, size + 5, 20, 24)
    check(graph_of(shape, dtype, causal), arrays_of(shape, dtype), dtype)


@pytest.mark.parametrize("shape, causal", [
    (Shape(1, 1, 1, 16, 70, 16, 128), True),
    (Shape(1, 1, 1, 70, 16, 48, 2), True),
    (Shape(2, 1, 1, 16, 70, 16, 16), False),
], ids=str)  # fmt: skip
def test_more_of_one_than_of_the_other(shape: Shape, causal: bool) -> None:
    check(graph_of(shape, "bfloat16", causal), arrays_of(shape, "bfloat16"), "bfloat16")


@pytest.mark.parametrize("name, kind, zero", [
    ("full", "bool", False), ("full", "added", True), ("of keys", "bool", True),
    ("of keys", "added", False),
])  # fmt: skip
def test_masks(name: str, kind: str, zero: bool) -> None:
    """Also rows where nothing is allowed: 0, or NaN, in output and gradients."""
    check_mask(name, kind, zero, "bfloat16", SMALL)


def test_a_row_without_keys_reaches_the_gradient_of_all_values() -> None:
    check_mask("full", "bool", False, "bfloat16", Shape(1, 2, 1, 20, 150, 16, 16), causal=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("kind", ["bool", "added"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_all_masks(name: str, kind: str, dtype: str) -> None:
    check_mask(name, kind, True, dtype)
    check_mask(name, kind, False, dtype, Shape(2, 3, 3, 46, 80, 64, 32), causal=True)


SMALL = Shape(1, 2, 1, 21, 70, 16, 16)


def check_mask(
    name: str, kind: str, zero: bool, dtype: str, shape: Shape = ODD, causal: bool = False
) -> None:
    random = numpy.random.default_rng(3)
    scores = (shape.batch, shape.heads, shape.queries, shape.keys)
    sizes = tuple(1 if size == 1 else full for size, full in zip(MASKS[name], scores, strict=True))
    mask = random.random(sizes) < 0.5
    if name == "full":
        mask[:, :, 3] = False
        mask[0, 0, :, :66] &= numpy.arange(shape.queries)[:, None] % 2 == 0
    given = "bool"
    if kind == "added":
        given = dtype
        mask = numpy.where(mask, random.standard_normal(sizes), -numpy.inf)
        mask = mask.astype(DTYPES[dtype].numpy)
    graph = graph_of(shape, dtype, causal, (given, sizes), zero)
    check(graph, [*arrays_of(shape, dtype), mask], dtype)


@pytest.mark.parametrize("scale", [-0.2, 0.0])
def test_scales_that_turn_the_order(scale: float) -> None:
    shape = Shape(1, 1, 1, 20, 40, 16, 16)
    check(graph_of(shape, "float16", True, scale=scale), arrays_of(shape, "float16"), "float16")


def test_a_nan_stays_in_its_row_and_huge_scores_stay_numbers() -> None:
    shape = Shape(1, 1, 1, 40, 40, 16, 16)
    arrays = arrays_of(shape, "float32")
    arrays[0][0, 0, 17, 3] = numpy.nan
    arrays[0][0, 0, 5] *= 1e4
    check(graph_of(shape, "float32", parts="q"), arrays, "float32")


@pytest.mark.parametrize("parts", ["q", "k", "v", "qv"])
def test_some_gradients(parts: str) -> None:
    shape = Shape(1, 2, 1, 20, 24, 16, 16)
    graph = graph_of(shape, "bfloat16", parts=parts)
    check(graph, arrays_of(shape, "bfloat16"), "bfloat16")
    steps = [step for step in steps_of(lower(graph, TARGET)) if step.startswith("backward")]
    assert steps == [f"backward {part}" for part in parts]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_random_shapes(seed: int) -> None:
    random = numpy.random.default_rng(seed)
    groups = int(random.integers(1, 4))
    sizes = [int(random.integers(low, high)) for low, high in
             ((16, 200), (16, 200), (1, 129), (1, 129))]
    shape = Shape(int(random.integers(1, 3)), groups * int(random.integers(1, 3)), groups, *sizes)
    dtype = ("float32", "float16", "bfloat16")[seed % 3]
    graph = graph_of(shape, dtype, bool(random.integers(2)))
    check(graph, arrays_of(shape, dtype), dtype)


def test_projections_are_read_where_they_lie() -> None:
    """Heads of a joint projection: one kernel, copied in whole pieces."""
    rows, heads, width = 33, 2, 16
    dtype = DTYPES["float16"]
    array = numpy.random.default_rng(7).standard_normal((1, rows, 3 * heads * width))
    array = array.astype(dtype.numpy)
    joint = node("input", index=0, dtype=dtype, shape=array.shape)
    parts = heads_of(joint, heads)
    graph = Graph((node("attention", *parts, scale=0.3, causal=True, empty_is_zero=False,
                        views=(), dropout=()),))  # fmt: skip
    artifact = check(graph, [array], "float16")
    (text,) = artifact.objects.values()
    assert b"cp.async.cg" in text and b"mma.sync" in text


def test_what_has_no_kernel_is_taken_apart() -> None:
    def kernels(shape: Shape, dtype: str) -> list[str]:
        return steps_of(lower(graph_of(shape, dtype, parts=""), TARGET))

    assert kernels(Shape(1, 1, 1, 64, 64, 64, 64), "bfloat16")
    assert not kernels(Shape(1, 1, 1, 64, 64, 64, 64), "float64")
    assert not kernels(Shape(1, 1, 1, 64, 64, 136, 64), "bfloat16")
    assert not kernels(Shape(1, 1, 1, 15, 64, 64, 64), "bfloat16")


LONG = Shape(4, 16, 8, 2047, 2047, 128, 128)


def test_memory_grows_with_the_length_not_with_its_square() -> None:
    longer = Shape(4, 16, 8, 4094, 4094, 128, 128)
    sizes = [compile_graph(graph_of(shape, "bfloat16", True), TARGET).arena_bytes
             for shape in (LONG, longer)]  # fmt: skip
    assert sizes[1] <= 2 * sizes[0] + 4096
    assert sizes[0] < LONG.batch * LONG.heads * LONG.queries * LONG.keys / 4


def test_tiles_fit_the_machine() -> None:
    for arch, target in ((name, cuda_target(name)) for name in ("sm_80", "sm_86", "sm_90a")):
        for dtype in ("bfloat16", "float32"):
            for kernel in lower(graph_of(LONG, dtype), target).kernels:
                if hasattr(kernel.schedule, "columns"):
                    assert kernel.grid.shared <= target.shared_bytes, (arch, kernel.schedule)
    few = lower(graph_of(Shape(1, 1, 1, 20, 4096, 64, 64), "bfloat16", parts=""), TARGET)
    assert few.kernels[0].schedule.height == 32


def take_to_pieces(shape: Shape, dtype: str, mask: str | None, target: CudaTarget) -> None:
    """No spills, no stack, no call; products on the tensor cores where they are meant to be."""
    sizes = (shape.batch, 1, shape.queries, shape.keys)
    graph = graph_of(shape, dtype, True, mask and (mask, sizes))
    artifact, stages = compile_graph(graph, target), lower(graph, target)
    found = [kernel for kernel in stages.kernels if hasattr(kernel.schedule, "columns")]
    assert len(found) == 3
    for kernel in found:
        text = artifact.objects[kernel.name].decode()
        made = assembled(text, target.arch)
        if dtype != "float32":
            assert "HMMA" in made.sass()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_machine_code(arch: str) -> None:
    take_to_pieces(LONG, "bfloat16", "bool", cuda_target(arch))


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("width", [33, 64, 100, 128])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_machine_code_of_all_tiles(arch: str, width: int, dtype: str) -> None:
    for mask in (None, "bool", dtype):
        for length in (2047, 2048):
            shape = Shape(8, 16, 8, length, length, width, width)
            take_to_pieces(shape, dtype, mask, cuda_target(arch))


def test_why_is_said() -> None:
    (kernel, *_) = [k for k in lower(graph_of(LONG, "bfloat16"), TARGET).kernels
                    if isinstance(k.schedule, attention.AttentionTile)]  # fmt: skip
    assert kernel.schedule.why == "bfloat16, heads of 128: tensor cores"


@pytest.mark.parametrize("shape, causal, mask", [
    (Shape(1, 2, 1, 70, 50, 24, 16), True, None),
    (Shape(1, 1, 1, 33, 65, 20, 128), False, "bool"),
    (Shape(2, 1, 1, 16, 40, 7, 9), True, "float32"),
])  # fmt: skip
def test_float32_on_tensor_cores(shape: Shape, causal: bool, mask: str | None) -> None:
    """Where tf32 was asked for by name: near, and no nearer than tf32 is."""
    target = replace(TARGET, tf32=True)
    sizes = (shape.batch, 1, shape.queries, shape.keys)
    graph = graph_of(shape, "float32", causal, mask and (mask, sizes))
    arrays = arrays_of(shape, "float32")
    if mask:
        random = numpy.random.default_rng(3)
        numbers = random.standard_normal(sizes).astype(numpy.float32)
        arrays.append(numbers > -1 if mask == "bool" else numbers)
    kernels = [kernel for kernel in lower(graph, target).kernels
               if isinstance(kernel.schedule, attention.AttentionTile)]  # fmt: skip
    assert {kernel.schedule.template for kernel in kernels} == {"mma.sync tf32"}
    assert kernels[0].schedule.why == "tf32 was asked for"
    found = run_artifact(compile_graph(graph, target), arrays)
    errors = []
    for have, want in zip(found, interpret(graph, arrays), strict=True):
        difference = numpy.linalg.norm(have.astype(float) - want)
        errors.append(difference / max(numpy.linalg.norm(want.astype(float)), 1e-6))
    assert 1e-6 < max(errors) < 2e-3, errors


@pytest.mark.parametrize("arch", some(((arch,) for arch in ARCHITECTURES),
                                      lambda arch: arch == "sm_90a"))
def test_machine_code_of_float32_on_tensor_cores(arch: str) -> None:
    target = replace(cuda_target(arch), tf32=True)
    graph = graph_of(Shape(8, 16, 8, 2047, 2048, 100, 128), "float32", True)
    artifact = compile_graph(graph, target)
    for kernel in lower(graph, target).kernels:
        if isinstance(kernel.schedule, attention.AttentionTile):
            made = assembled(artifact.objects[kernel.name].decode(), arch)
            assert "TF32" in made.sass()
