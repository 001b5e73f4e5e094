"""The driver: every stage can be read, artifacts survive JSON, equal kernels are compiled once, the
same graph gives the same bytes everywhere, and code comes out for machines one is not on.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys

import llvmlite.binding as llvm
import numpy
import pytest

from lazygrad_compiler.artifact import Artifact, canonical_graph
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.ir.ops import ELEMENTARY_UNARY
from lazygrad_compiler.ir.text import parse_graph, print_graph
from lazygrad_compiler.llvm.compile import assembly, optimize_text
from lazygrad_compiler.loops.kernel import ContractionKernel, LoopKernel, ScatterKernel
from lazygrad_compiler.loops.kernel import text as kernel_text
from lazygrad_compiler.pipeline import STAGES, compile_graph, lower
from lazygrad_compiler.target import Target, host
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.program import Program
from tests.compiler.random_graphs import random_graph

RENDERED = [stage for stage in STAGES if stage != "grad"]
"""`grad` is what the front end records; the compiler gets it as `graph`."""

TARGETS = {
    "avx2": Target(
        "x86_64-unknown-linux-gnu",
        "haswell",
        "+avx,+avx2,+fma,+f16c,-avx512f,-avx512vl,-avx512bw,-avx512dq",
        32,
        16,
    ),
    "sse": Target("x86_64-unknown-linux-gnu", "x86-64", "+sse2,-avx,-avx2,-fma", 16, 16),
    "neon": Target("aarch64-unknown-linux-gnu", "neoverse-n1", "+neon,+fullfp16", 16, 32),
}


def leaf(index: int, *shape: int, dtype: str = "float32") -> Node:
    return node("input", index=index, dtype=DTYPES[dtype], shape=shape)


def matmul(left: Node, right: Node) -> Node:
    return node(
        "dot", left, right, left_batch=(), right_batch=(), left_contract=(1,), right_contract=(0,)
    )


def layer(value: Node, weight: Node, line: int = 1) -> Node:
    where = (("model.py", line),)
    product = node(
        "dot",
        value,
        weight,
        left_batch=(),
        right_batch=(),
        left_contract=(1,),
        right_contract=(0,),
        location=where,
    )
    return node("tanh", product, location=where)


def two_layers() -> Graph:
    first = layer(leaf(0, 20, 32), leaf(1, 32, 32), 10)
    return Graph((layer(first, leaf(2, 32, 32), 11),))


def one_of_each() -> Graph:
    """Row kernels, a contraction, a gather and a scatter, in several dtypes."""
    value = leaf(0, 33, 17)
    index = leaf(1, 9, dtype="int64")
    rows = node("gather", value, index, axes=(0,))
    product = matmul(rows, node("permute", value, order=(1, 0)))
    spread = node("scatter", value, rows, index, axes=(0,), mode="add")
    narrow = node("cast", node("exp", value), dtype=DTYPES["bfloat16"])
    return Graph(
        (product, spread, node("sum", narrow, axes=(1,)), node("argmax", value, axes=(0,)))
    )


# ---- stages


@pytest.mark.parametrize("stage", RENDERED)
def test_every_stage_renders(stage: str) -> None:
    stages = lower(one_of_each(), host())
    rendered = stages.render(stage)
    marks = {
        "graph": "graph(",
        "opt": "graph(",
        "fused": "kernel 0",
        "loops": "contraction over",
        "llvm": "define void @program",
        "llvm-opt": "define void @k_",
        "asm": "ret",
    }
    assert marks[stage] in rendered
    assert rendered == lower(one_of_each(), host()).render(stage)


def test_unknown_stages_are_errors() -> None:
    with pytest.raises(KeyError):
        lower(two_layers(), host()).render("nonsense")


def test_graph_stages_parse_back() -> None:
    stages = lower(one_of_each(), host())
    for stage, graph in (("graph", stages.graph), ("opt", stages.opt)):
        assert parse_graph(stages.render(stage)).outputs == graph.outputs


def test_fused_names_the_users_lines_and_the_reasons() -> None:
    rendered = lower(two_layers(), host()).render("fused")
    assert "model.py:10" in rendered and "model.py:11" in rendered
    assert "not fused: " in rendered


def test_every_kind_of_kernel_is_there() -> None:
    kinds = {type(kernel.kernel) for kernel in lower(one_of_each(), host()).kernels}
    assert kinds == {LoopKernel, ContractionKernel, ScatterKernel}


def test_emitted_llvm_verifies() -> None:
    for seed in range(15):
        stages = lower(random_graph(seed)[0], host())
        for kernel in stages.kernels:
            llvm.parse_assembly(kernel.llvm).verify()
        llvm.parse_assembly(stages.entry).verify()


def test_times_of_all_steps_are_kept() -> None:
    stages = lower(two_layers(), host())
    assert {"opt", "fused", "loops", "llvm", "plan"} <= set(stages.times)


# ---- artifacts


def test_an_artifact_survives_json() -> None:
    artifact = compile_graph(one_of_each(), host())
    described = json.loads(json.dumps(artifact.description()))
    assert described["objects"] == list(artifact.objects)
    assert Artifact.from_description(described, artifact.objects) == artifact


def test_an_artifact_read_back_runs() -> None:
    graph = two_layers()
    artifact = compile_graph(graph, host())
    again = Artifact.from_description(
        json.loads(json.dumps(artifact.description())), dict(artifact.objects)
    )
    numbers = numpy.random.default_rng(0)
    inputs = [numbers.random(n.shape).astype(numpy.float32) * 0.1 for n in graph.inputs()]
    (buffer,) = Program(again).run([Buffer.from_numpy(array) for array in inputs])
    got = buffer.as_numpy(numpy.float32, (20, 32))
    expected = numpy.tanh(numpy.tanh(inputs[0] @ inputs[1]) @ inputs[2])
    numpy.testing.assert_allclose(got, expected, rtol=1e-5)


def test_unused_inputs_still_count() -> None:
    graph = Graph((node("neg", leaf(3, 5)),))
    assert compile_graph(graph, host()).inputs == 4


def test_canonical_graphs_number_their_leaves() -> None:
    first, second = leaf(7, 3), leaf(2, 3)
    graph = canonical_graph([node("add", first, second)], [first, second])
    assert [n.attrs[0] for n in graph.outputs[0].inputs] == [0, 1]


# ---- kernels compiled once


def test_equal_kernels_are_compiled_once() -> None:
    value = leaf(0, 20, 32)
    for number in range(6):
        value = layer(value, leaf(1 + number, 32, 32), number)
    compiled: list[str] = []

    def compile_kernel(name: str, text: str, target: Target) -> bytes:
        compiled.append(name)
        return b""

    artifact = compile_graph(Graph((value,)), host(), compile_kernel)
    assert len(artifact.launches) == 6
    assert len(compiled) == len(set(compiled)) == 1
    assert {name for name, _, _ in artifact.launches} == set(compiled)
    # yet each launch names its own line
    for number, (_, _, where) in enumerate(artifact.launches):
        assert ("model.py", number) in where
        assert ("model.py", number + 1) not in where


def test_who_comes_first_takes_chunks_of_contractions_and_large_kernels_only() -> None:
    x = leaf(0, 1 << 12, 1 << 11)
    for graph, grains in (
        (Graph((node("exp", leaf(0, 64, 32)),)), "+"),
        (Graph((node("exp", x),)), "-"),
        (Graph((layer(leaf(0, 64, 32), leaf(1, 32, 32), 0),)), "-"),
    ):
        bound = lower(graph, host()).bound
        assert "".join("+" if launch.grain > 0 else "-" for launch in bound) == grains


def test_kernels_that_differ_have_names_that_differ() -> None:
    seen: dict[str, str] = {}
    for seed in range(40):
        for kernel in lower(random_graph(seed)[0], host()).kernels:
            assert seen.setdefault(kernel.name, kernel.llvm) == kernel.llvm
    assert len(seen) > 60
    assert len(set(seen.values())) > len(seen) // 2


def test_the_target_is_part_of_a_kernels_name() -> None:
    names = {lower(two_layers(), target).kernels[0].name for target in TARGETS.values()}
    assert len(names) == len(TARGETS)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: node("const", value=0.0, dtype=v.dtype, shape=v.shape),
        lambda v: node("const", value=-0.0, dtype=v.dtype, shape=v.shape),
        lambda v: node("const", value=0.1, dtype=v.dtype, shape=v.shape),
        lambda v: node("const", value=float("nan"), dtype=v.dtype, shape=v.shape),
    ],
)
def test_constants_are_part_of_the_kernels_text(change: object) -> None:
    value = leaf(0, 5)
    made = node("maximum", value, change(value))  # type: ignore[operator]
    texts = [kernel_text(launch.kernel) for launch in lower(Graph((made,)), host()).launches]
    other = node("maximum", value, node("const", value=7.0, dtype=value.dtype, shape=(5,)))
    assert texts != [kernel_text(x.kernel) for x in lower(Graph((other,)), host()).launches]


# ---- the same bytes in every process

IN_A_PROCESS = """
import hashlib, sys
sys.path[:0] = {path!r}
from lazygrad_compiler.ir.text import parse_graph
from lazygrad_compiler.pipeline import compile_graph
from lazygrad_compiler.target import host
for text in {texts!r}:
    artifact = compile_graph(parse_graph(text), host())
    for name, code in artifact.objects.items():
        print(name, hashlib.sha256(code).hexdigest())
    print(artifact.arena_bytes, artifact.scratch_bytes, artifact.launches)
"""


def test_two_processes_make_the_same_bytes() -> None:
    graphs = [one_of_each(), two_layers(), *(random_graph(seed)[0] for seed in range(12))]
    code = IN_A_PROCESS.format(path=sys.path, texts=[print_graph(graph) for graph in graphs])
    outputs = []
    for seed in ("0", "1", "12345"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] == outputs[2]
    assert outputs[0].count("program") == len(graphs)


def test_two_compilations_in_one_process_make_the_same_bytes() -> None:
    first, second = (compile_graph(one_of_each(), host()).objects for _ in range(2))
    assert first == second
    digests = {hashlib.sha256(code).hexdigest() for code in first.values()}
    assert len(digests) == len(first)


# ---- other machines


def called(text: str) -> set[str]:
    """What the assembly calls, on either architecture; our own functions (lg.*, k_*) left out."""
    names = set()
    for line in text.splitlines():
        found = re.match(r"\s+(call[lq]?|jmp[lq]?|bl|b)\s+([A-Za-z_][\w.]*)(@PLT)?\s*$", line)
        if found and not found[2].startswith((".L", "lg.", "k_")):
            names.add(found[2])
    return names


def test_the_reader_of_calls_sees_them() -> None:
    text = "\tcallq\texpf@PLT\n\tbl\tsinf\n\tjmp\t.LBB0_1\n\tb\t.LBB0_2\n\tjmp\tpowf@PLT\n"
    text += "\tcallq\tlg.exp.v8f32\n\tbl\tk_0f.tile_6x2_8\n"
    assert called(text) == {"expf", "sinf", "powf"}


def everything_elementary() -> Graph:
    """Every elementary function and conversion, in each float dtype."""
    outputs = []
    for number, dtype in enumerate(("float32", "float64", "bfloat16", "float16")):
        value = leaf(number, 37, dtype=dtype)
        outputs += [node(op, value) for op in ELEMENTARY_UNARY]
        outputs += [node(op, value) for op in ("sqrt", "floor", "ceil", "trunc", "round")]
        outputs += [node(op, value, node("neg", value)) for op in ("pow", "atan2", "rem", "div")]
        outputs += [node("cast", value, dtype=DTYPES[to]) for to in ("int64", "uint8", "float64")]
    return Graph(tuple(outputs))


@pytest.mark.parametrize("name", TARGETS)
def test_code_for_other_machines(name: str) -> None:
    target = TARGETS[name]
    for graph in (one_of_each(), two_layers(), *(random_graph(seed)[0] for seed in range(6))):
        stages = lower(graph, target)
        text = stages.render("asm")
        allowed = {"memset", "memcpy", "memmove"}
        if name == "sse":  # without FMA and SSE 4.1 some instructions do not exist
            allowed |= {"fma", "fmaf", "trunc", "truncf", "floor", "floorf", "ceil", "ceilf"}
            allowed |= {"rint", "rintf", "roundeven", "roundevenf"}
        assert called(text) <= allowed
        for kernel in stages.kernels:
            assert f"{kernel.name}:" in text
        registers = set(re.findall(r"%([xyz]mm)\d+", text))
        assert "zmm" not in registers
        if name == "avx2" and graph.outputs[0].size > 100:
            assert "ymm" in registers
        if name == "sse":
            assert "ymm" not in registers
        if name == "neon":
            assert not registers


@pytest.mark.parametrize("name", ["avx2", "neon"])
def test_elementary_functions_call_no_library(name: str) -> None:
    text = lower(everything_elementary(), TARGETS[name]).render("asm")
    assert called(text) == set()


def test_a_contraction_uses_the_machines_multiply_add() -> None:
    graph = Graph((matmul(leaf(0, 64, 64), leaf(1, 64, 64)),))
    assert "vfmadd" in lower(graph, TARGETS["avx2"]).render("asm")
    assert re.search(r"fmla\s+v\d+\.4s", lower(graph, TARGETS["neon"]).render("asm"))


@pytest.mark.parametrize("name, machine", [("avx2", 62), ("neon", 183)])
def test_objects_are_for_the_machine(name: str, machine: int) -> None:
    objects = compile_graph(two_layers(), TARGETS[name]).objects
    for code in objects.values():
        assert code[:4] == b"\x7fELF"
        assert int.from_bytes(code[18:20], "little") == machine


ASSEMBLE = """
import sys
import llvmlite.binding as llvm
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
llvm.initialize_native_asmparser()
machine = llvm.Target.from_triple(sys.argv[1]).create_target_machine(sys.argv[2], sys.argv[3])
print(len(machine.emit_object(llvm.parse_assembly(sys.stdin.read()))))
"""


@pytest.mark.skipif("x86_64" not in host().triple, reason="the parser at hand is the host's")
def test_assembly_assembles_again() -> None:
    """The text is assembly that LLVM's own parser takes, as the module-level asm of a module.

    In a process of its own: what the parser refuses ends the process.
    """
    target = TARGETS["avx2"]
    for kernel in lower(one_of_each(), target).kernels:
        text = assembly(optimize_text(kernel.llvm, target), target)
        lines = [line.split("#")[0].replace("\t", " ") for line in text.splitlines()]
        quoted = [line.replace("\\", "\\5C").replace('"', "\\22") for line in lines]
        asm = "\n".join(f'module asm "{line}"' for line in quoted)
        done = subprocess.run(
            [sys.executable, "-c", ASSEMBLE, target.triple, target.cpu, target.features],
            input=f'target triple = "{target.triple}"\n{asm}\n',
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-1000:]
        assert int(done.stdout) > 500


def test_lanes_follow_the_register_width() -> None:
    assert [TARGETS[name].lanes(32) for name in TARGETS] == [8, 4, 4]
    assert host().lanes(host().simd_bytes * 16) == 1
