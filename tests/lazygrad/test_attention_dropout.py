"""Attention with dropout, called by name and written out: one kernel, the bits of dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch

import lazygrad as lg
from lazygrad._core.folding import forget_recipes
from lazygrad._core.tensor import node_of
from lazygrad.nn import functional as F
from lazygrad_compiler.cuda_target import cuda_target
from lazygrad_compiler.fusion.partition import Reason
from lazygrad_compiler.ir.node import topological
from lazygrad_compiler.pipeline import lower
from lazygrad_compiler.target import host
from lazygrad_runtime.program import pending_graph

RANDOM = numpy.random.default_rng(5)
P = 0.3


def operands(*batch: int, length: int = 70, keys: int = 90) -> list[numpy.ndarray]:
    shapes = ((length, 16), (keys, 16), (keys, 24))
    return [RANDOM.standard_normal((*batch, *shape)).astype("float32") for shape in shapes]


def by_name(q: Any, k: Any, v: Any) -> Any:
    return F.scaled_dot_product_attention(q, k, v, dropout_p=P)


def written_out(q: Any, k: Any, v: Any) -> Any:
    return F.dropout(lg.softmax(q @ k.mT * 0.25, -1), P) @ v


def causal(q: Any, k: Any, v: Any) -> Any:
    return F.scaled_dot_product_attention(q, k, v, dropout_p=P, is_causal=True)


WAYS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "by name": by_name, "written out": written_out, "causal": causal,
}


def ops_of(*tensors: Any) -> list[str]:
    return [node.op for node in topological([node_of(tensor) for tensor in tensors])]


@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (2, 1, 3)], ids=str)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("keys", [88, 91])
def test_values_and_gradients(way: str, batch: tuple[int, ...], keys: int) -> None:
    """Against torch with the mask that a dropout of the weights draws from the same seed."""
    arrays = operands(*batch, keys=keys)
    lg.manual_seed(11)
    mask = F.dropout(lg.ones(*batch, 70, keys), P).numpy()
    lg.manual_seed(11)
    leaves = [lg.tensor(array, requires_grad=True) for array in arrays]
    output = WAYS[way](*leaves)
    assert "attention" in ops_of(output)
    found = [output, *lg.autograd.grad((output * output).sum(), leaves)]
    others = [torch.tensor(array, requires_grad=True, dtype=torch.float64) for array in arrays]
    q, k, v = others
    scores = q @ k.mT * 0.25
    if way == "causal":
        scores = scores.masked_fill(~torch.ones(70, keys).tril().bool(), -numpy.inf)
    expected = (torch.softmax(scores, -1) * torch.tensor(mask)) @ v
    wanted = [expected, *torch.autograd.grad((expected * expected).sum(), others)]
    for have, want in zip(found, wanted, strict=True):
        want = want.detach().numpy()
        size = float(numpy.abs(want).max())
        numpy.testing.assert_allclose(have.detach().numpy(), want, atol=1e-5 * size)


def test_the_state_moves_on_as_ever() -> None:
    """What is drawn afterwards does not depend on how the weights were dropped."""
    after = []
    forget_recipes()
    for way in (by_name, lambda q, k, v: F.dropout(q @ k.mT, P)):
        lg.manual_seed(3)
        way(*(lg.tensor(array) for array in operands(2, 3)))
        after.append(lg.rand(5).numpy())
    numpy.testing.assert_array_equal(*after)


def test_chance_of_one() -> None:
    output = F.scaled_dot_product_attention(*map(lg.tensor, operands(2, 3)), dropout_p=1.0)
    assert not output.numpy().any()


def test_replays_differ() -> None:
    compiled = lg.compile(by_name)
    tensors = [lg.tensor(array) for array in operands(2, 3)]
    results = [compiled(*tensors).numpy() for _ in range(3)]
    assert not numpy.array_equal(results[1], results[2])


def test_no_program_holds_the_scores() -> None:
    """Forward and backward in one program need less memory than one head's scores."""
    length = 700
    leaves = [lg.tensor(RANDOM.standard_normal((1, 1, length, 8)).astype("float32"),
                        requires_grad=True) for _ in range(3)]
    output = by_name(*leaves)
    gradients = lg.autograd.grad((output * output).sum(), leaves)
    stages = lower(pending_graph([node_of(each) for each in (output, *gradients)])[0], host())
    assert stages.plan.arena_bytes < length * length * 4


def test_a_gpu_takes_it_apart_and_says_why() -> None:
    graph = pending_graph([node_of(by_name(*map(lg.tensor, operands(2, 3))))])[0]
    stages = lower(graph, cuda_target("cuda:sm_90a"))
    assert all(launch.kernel.kind != "attention" for launch in stages.launches)
    assert Reason.ATTENTION_DROPOUT in {reason for _, _, reason in stages.refusals()}
    assert not any("attention" in str(reason) for _, _, reason in lower(graph, host()).refusals())


def test_vmap() -> None:
    arrays = operands(5, 3)
    tensors = [lg.tensor(array) for array in arrays]
    with pytest.raises(RuntimeError, match="randomness"):
        lg.func.vmap(by_name)(*tensors)
    for randomness, shape in (("same", (3, 70, 90)), ("different", (5, 3, 70, 90))):
        lg.manual_seed(11)
        if randomness == "different":  # one item's bits were drawn and are not used
            F.dropout(lg.ones(3, 70, 90), P)
        mask = F.dropout(lg.ones(*shape), P).numpy()
        lg.manual_seed(11)
        found = lg.func.vmap(by_name, randomness=randomness)(*tensors)
        assert "attention" in ops_of(found)
        q, k, v = (torch.tensor(array) for array in arrays)
        want = (torch.softmax(q @ k.mT * 0.25, -1) * torch.tensor(mask)) @ v
        numpy.testing.assert_allclose(found.numpy(), want.numpy(), atol=1e-5)


def test_second_derivatives() -> None:
    """A gradient of a gradient draws the same bits again."""
    arrays = operands(1, 2, length=33, keys=65)
    lg.manual_seed(11)
    mask = F.dropout(lg.ones(1, 2, 33, 65), P).numpy()
    results = []
    lg.manual_seed(11)
    for t in (lg, torch):
        leaves = [t.tensor(array, requires_grad=True) for array in arrays]
        if t is lg:
            output = by_name(*leaves)
        else:
            q, k, v = leaves
            output = (torch.softmax(q @ k.mT * 0.25, -1) * torch.tensor(mask)) @ v
        (first,) = t.autograd.grad((output * output).sum(), leaves[:1], create_graph=True)
        second = t.autograd.grad((first * first).sum(), leaves)
        results.append([value.detach().numpy() for value in second])
    for have, want in zip(*results, strict=True):
        numpy.testing.assert_allclose(have, want, atol=2e-4 * float(numpy.abs(want).max()))


def test_multihead_attention_without_weights() -> None:
    attention = lg.nn.MultiheadAttention(32, 2, dropout=0.2, batch_first=True)
    x = lg.tensor(RANDOM.standard_normal((2, 64, 32)).astype("float32"))
    assert "attention" in ops_of(attention(x, x, x, need_weights=False)[0])
