"""softmax(q @ k.mT * s + mask) @ v, written out: recorded as attention, with torch's values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch

import lazygrad as lg
from lazygrad._core.tensor import node_of
from lazygrad_compiler.ir.node import topological
from lazygrad_compiler.pipeline import lower
from lazygrad_compiler.target import host
from lazygrad_runtime.program import pending_graph

RANDOM = numpy.random.default_rng(5)
MASK = RANDOM.standard_normal((70, 90)).astype("float32")
MASK[3] = 9  # a row that attends to nothing where large entries are filled

SCORES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "bare": lambda t, s, m: s,
    "scaled": lambda t, s, m: s * 0.25,
    "divided and added": lambda t, s, m: s / 4 + m,
    "added first": lambda t, s, m: m + 0.25 * s,
    "filled": lambda t, s, m: (0.25 * s).masked_fill(m > 0.5, float("-inf")),
}
OTHERS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "clamped": lambda t, s, m: s.clamp(-1, 1),
    "scaled after the mask": lambda t, s, m: (s + m) * 0.25,
}


def operands(batch: tuple[int, ...]) -> list[numpy.ndarray]:
    shapes = ((70, 16), (90, 16), (90, 24))
    return [RANDOM.standard_normal((*batch, *shape)).astype("float32") for shape in shapes]


def attend(t: Any, scores: Callable[[Any, Any, Any], Any], q: Any, k: Any, v: Any) -> Any:
    return t.softmax(scores(t, q @ k.transpose(-2, -1), t.tensor(MASK)), dim=-1) @ v


def ops_of(*tensors: Any) -> list[str]:
    return [node.op for node in topological([node_of(tensor) for tensor in tensors])]


@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (2, 1, 3)], ids=str)
@pytest.mark.parametrize("name", [*SCORES, *OTHERS])
def test_values_and_gradients(name: str, batch: tuple[int, ...]) -> None:
    scores = (SCORES | OTHERS)[name]
    arrays = operands(batch)
    results = []
    for t in (lg, torch):
        leaves = [t.tensor(array, requires_grad=True) for array in arrays]
        output = attend(t, scores, *leaves)
        if t is lg:
            assert ("attention" in ops_of(output)) == (name in SCORES)
        gradients = t.autograd.grad((output * output).sum(), leaves)
        results.append([value.detach().numpy() for value in (output, *gradients)])
    for have, want in zip(*results, strict=True):
        # rounding errs by the size of the sums: torch's own float32 is as far from float64
        size = float(numpy.nanmax(numpy.abs(want), initial=1.0))
        numpy.testing.assert_allclose(have, want, rtol=2e-4, atol=1e-5 * size)


def test_no_program_holds_the_scores() -> None:
    """Forward and backward in one program need less memory than one head's scores."""
    length = 700
    leaves = [lg.tensor(RANDOM.standard_normal((1, 1, length, 8)).astype("float32"),
                        requires_grad=True) for _ in range(3)]
    output = attend_plain(*leaves)
    gradients = lg.autograd.grad((output * output).sum(), leaves)
    stages = lower(pending_graph([node_of(each) for each in (output, *gradients)])[0], host())
    assert stages.plan.arena_bytes < length * length * 4


def attend_plain(q: Any, k: Any, v: Any) -> Any:
    return lg.softmax(q @ k.mT * 0.3, -1) @ v


def test_weights_that_are_wanted() -> None:
    """Their program has the scores once, and both results."""
    q, k, v = (lg.tensor(array) for array in operands((2, 3)))
    weights = lg.softmax(q @ k.mT * 0.25, -1)
    output = weights @ v
    stages = lower(pending_graph([node_of(weights), node_of(output)])[0], host())
    ops = [node.op for node in topological(stages.opt.outputs)]
    assert "attention" not in ops and ops.count("dot") == 2 and ops.count("exp") == 1
    numpy.testing.assert_allclose(output.numpy(), weights.numpy() @ v.numpy(), atol=1e-5)


def test_short_rows_stay_a_product() -> None:
    q, k, v = (lg.tensor(array[..., :8, :]) for array in operands((2, 3)))
    assert "attention" not in ops_of(lg.softmax(q @ k.mT, -1) @ v)


def test_few_queries_to_many_keys() -> None:
    """Forward it is the kernel of decoding; with gradients products and a softmax."""
    arrays = [RANDOM.standard_normal((2, 3, *shape)).astype("float32")
              for shape in ((1, 16), (200, 16), (200, 24))]
    results = []
    for t in (lg, torch):
        leaves = [t.tensor(array, requires_grad=True) for array in arrays]
        output = t.softmax(leaves[0] @ leaves[1].mT * 0.25, -1) @ leaves[2]
        if t is lg:
            stages = lower(pending_graph([node_of(output)])[0], host())
            assert [launch.kernel.kind for launch in stages.launches] == ["attention"]
        gradients = t.autograd.grad((output * output).sum(), leaves)
        results.append([value.detach().numpy() for value in (output, *gradients)])
    for have, want in zip(*results, strict=True):
        numpy.testing.assert_allclose(have, want, rtol=2e-4, atol=1e-5)
