"""Programs compiled for CUDA and run by the interpreter equal the IR's interpreter."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lazygrad_compiler.artifact import Artifact
from lazygrad_compiler.cuda_target import ARCHITECTURES, UnknownArchitecture, cuda_target
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.pipeline import compile_graph, lower, stages_of
from tests.compiler.error_bounds import check as compare
from tests.ptx.programs import TARGET, run_graph


def leaf(index: int, dtype: dtypes.DType, *shape: int) -> Node:
    return node("input", index=index, dtype=dtype, shape=shape)


def softmax(rows: int, columns: int) -> Graph:
    x = leaf(0, dtypes.float32, rows, columns)

    def along(value: Node) -> Node:
        return node("expand", node("reshape", value, shape=(rows, 1)), shape=x.shape)

    raised = node("exp", node("sub", x, along(node("max", x, axes=(1,)))))
    return Graph((node("div", raised, along(node("sum", raised, axes=(1,)))),))


def test_targets_are_found_by_name():
    assert cuda_target("cuda:sm_90a") is cuda_target("sm_90a") is ARCHITECTURES["sm_90a"]
    assert cuda_target("cuda:sm_90a").has("wgmma")
    assert not cuda_target("cuda:sm_80").has("wgmma")
    with pytest.raises(UnknownArchitecture, match=r"no CUDA target 'cuda:sm_7'; there are .*sm_80"):
        cuda_target("cuda:sm_7")


def test_an_artifact_survives_json():
    artifact = compile_graph(softmax(3, 5), TARGET)
    described = json.loads(json.dumps(artifact.description()))
    assert Artifact.from_description(described, artifact.objects) == artifact
    assert artifact.device == "cuda" and len(artifact.grid) == len(artifact.launches) == 1


def test_every_stage_can_be_read():
    stages = lower(softmax(3, 5), TARGET)
    texts = {name: stages.render(name) for name in stages_of(TARGET)}
    assert "ptx_kernel" in texts["llvm"] and "ptx_kernel" in texts["llvm-opt"]
    assert ".visible .entry" in texts["ptx"]


@pytest.mark.parametrize("columns", [1, 2, 7, 32, 100, 129, 1024, 1027, 9001])
def test_softmax(columns):
    """One thread a row, part of a warp, a warp, a block, a block in a loop."""
    x = np.random.default_rng(columns).standard_normal((5, columns)).astype(np.float32)
    compare(softmax(5, columns), [x], run_graph(softmax(5, columns), [x]))
