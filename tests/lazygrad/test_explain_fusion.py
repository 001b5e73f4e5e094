"""Seams in the steps of loops, and why attention is not one kernel: what `explain fusion` says."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

import lazygrad as lg
from lazygrad import nn
from lazygrad.dump.tensors import recorded_graph
from lazygrad.explain import fusion
from lazygrad_compiler.cuda_target import cuda_target
from lazygrad_compiler.pipeline import Stages, lower
from lazygrad_compiler.target import host

softmax, attend = lg.softmax, nn.functional.scaled_dot_product_attention


def stages_of(*tensors: lg.Tensor) -> Stages:
    return lower(recorded_graph(list(tensors))[0], host())


def leaf(*shape: int, grad: bool = False) -> lg.Tensor:
    made = lg.rand(*shape, requires_grad=grad)
    lg.synchronize()
    return made


# ---- loops





def lstm() -> lg.Tensor:
    return nn.LSTM(3, 14)(leaf(5, 2, 3))[0]


def gru() -> lg.Tensor:
    return nn.GRU(3, 14)(leaf(5, 2, 3))[0]


def rnn_backward() -> lg.Tensor:
    layer, x = nn.RNN(3, 14), leaf(5, 2, 3)
    layer(x)[0].sum().backward()
    return layer.weight_hh_l0.grad


def ctc_backward() -> lg.Tensor:
    x = leaf(5, 2, 7, grad=True)
    lengths = lg.tensor([5, 5]), lg.tensor([2, 3])
    targets = lg.tensor([[1, 2, 0], [3, 4, 5]])
    nn.functional.ctc_loss(lg.log_softmax(x, 2), targets, *lengths).backward()
    return x.grad


@pytest.mark.parametrize("make", [lstm, gru, rnn_backward, ctc_backward])
def test_seams_in_the_steps_of_a_loop_are_listed(make: Callable[[], lg.Tensor]) -> None:
    """Every pair of kernels of a step that share a value, with reason, lines and bytes."""
    stages = stages_of(make())
    described = fusion.describe(stages)
    inside = [seam for seam in described if seam["loops"]]
    assert inside
    for seam in described:
        assert seam["reason"] != "unknown"
        ends = seam["producer"], seam["consumer"]
        assert all(any(line.startswith("test_explain_fusion.py:") for line in end["lines"])
                   for end in ends)
        assert ends[0]["kernel"] != ends[1]["kernel"] and seam["saved_bytes"] > 0
    in_steps = {number for number, launch in enumerate(stages.launches) if launch.repeats}
    assert {end["kernel"] for seam in inside
            for end in (seam["producer"], seam["consumer"])} <= in_steps
    refused = stages.render("fused").count("not fused: ")
    assert refused >= len(inside)


def test_bytes_of_a_loop_are_those_of_all_steps() -> None:
    """The product of the state (2x14) and its weights (14x56) is written and read in each step."""
    described = fusion.describe(stages_of(lstm()))
    inside = [seam for seam in described if seam["loops"]]
    assert {seam["producer"]["type"] for seam in inside} == {"float32[2, 56]"}
    written_and_read = 2 * 4 * 2 * 56
    assert {seam["saved_bytes"] for seam in inside} == {5 * written_and_read}
    assert all(len(seam["loops"]) == 1 and seam["loops"][0]["steps"] == 5 for seam in inside)
    shown = fusion.text(described)
    assert re.search(r"; fusing would save 4.4 KiB in 5 steps of \w+ "
                     r"\(test_explain_fusion.py:\d+\)$", shown, re.M)


# ---- attention


def heads(length: int, grad: bool = False) -> list[lg.Tensor]:
    return [leaf(2, 3, length, 16, grad=grad) for _ in range(3)]


def few_queries() -> lg.Tensor:
    return attend(*heads(16), is_causal=True)


def written_out_and_small() -> lg.Tensor:
    q, k, v, mask = *heads(28), leaf(28, 28)
    return softmax(q @ k.mT / 4 + mask, -1) @ v


def weights_wanted() -> tuple[lg.Tensor, ...]:
    q, k, v = heads(64)
    weights = softmax(q @ k.mT * 0.25, -1)
    return weights @ v, weights


def with_dropout() -> lg.Tensor:
    return attend(*heads(64), dropout_p=0.1)


def clamped() -> lg.Tensor:
    q, k, v = heads(64)
    return softmax((q @ k.mT).clamp(-1, 1), -1) @ v


def masked_before_scaling() -> lg.Tensor:
    q, k, v, mask = *heads(64), leaf(64, 64)
    return softmax((q @ k.mT + mask) * 0.25, -1) @ v


def backward_of(make: Callable[..., lg.Tensor]) -> tuple[lg.Tensor, ...]:
    leaves = heads(16, grad=True)
    return lg.autograd.grad(make(*leaves).square().sum(), leaves)


APART = {
    few_queries: "attention_small", written_out_and_small: "attention_small",
    weights_wanted: "attention_read", clamped: "attention_scores",
    masked_before_scaling: "attention_scores",
}


def seams_of(*tensors: lg.Tensor) -> list[tuple[str, str, str]]:
    return [(seam["producer"]["op"], seam["consumer"]["op"], seam["reason"])
            for seam in fusion.describe(stages_of(*tensors))]


@pytest.mark.parametrize("make", APART, ids=lambda make: make.__name__)
def test_attention_that_is_several_kernels_says_why(make: Callable) -> None:
    made = make()
    stages = stages_of(*(made if isinstance(made, tuple) else (made,)))
    described = fusion.describe(stages)
    between = {seam["reason"] for seam in described
               if "dot" in (seam["producer"]["op"], seam["consumer"]["op"])}
    assert between == {APART[make]}, described
    assert f": {described[0]['because']}" in stages.render("fused"), "the stage says it, too"


def test_dropout_is_part_of_the_kernel() -> None:
    assert fusion.describe(stages_of(with_dropout())) == []


def test_a_target_without_the_kernel() -> None:
    """A GPU's kernels are for heads of up to 128."""
    leaves = [leaf(1, 2, 64, 160) for _ in range(3)]
    graph = recorded_graph([attend(*leaves)])[0]
    described = fusion.describe(lower(graph, cuda_target("sm_80")))
    assert {seam["reason"] for seam in described} == {"attention_target"}
    assert fusion.describe(lower(graph, host())) == [], "one kernel here"


def test_gradients_of_attention_say_it_too() -> None:
    found = seams_of(*backward_of(attend))
    assert [seam for seam in found if seam[2] == "attention_small" and "mul" in seam]
    assert {reason for _, _, reason in found} <= {"attention_small", "kind"}
    assert ("dot", "sum", "kind") in found, "of the output's square, which is no part of it"


@pytest.mark.parametrize("others", ["cross entropy", "softmax layer", "attention"])
def test_what_is_no_attention_is_not_called_so(others: str) -> None:
    x, w = leaf(32, 64, grad=True), leaf(64, 10, grad=True)
    if others == "cross entropy":
        loss = nn.functional.cross_entropy(x @ w, lg.tensor([1] * 32))
    elif others == "softmax layer":
        loss = softmax(x @ w, 1).square().sum()
    else:
        operands = heads(64)
        loss = attend(*operands).sum() + (x @ w).sum()
    found = seams_of(loss, *lg.autograd.grad(loss, [x, w]))
    assert not [reason for _, _, reason in found if reason.startswith("attention")]


# ---- what is computed twice


def test_values_computed_twice_are_listed_with_their_reason() -> None:
    """gelu(h) is kept neither in whole nor in part: its gradient's kernel reads h and has both."""
    x = leaf(1024, 64)
    layers = [nn.Linear(64, 1024), nn.Linear(1024, 64)]
    y = layers[1](nn.functional.gelu(layers[0](x)))
    (y * y).sum().backward()
    stages = stages_of(layers[0].weight.grad, layers[1].weight.grad)
    described = fusion.describe_again(stages)
    peak, = (each for each in described if each["reason"] == "peak")
    assert peak["value"]["type"] == "float32[1024, 1024]"
    assert peak["saved_bytes"] == 4 << 20
    assert [source["op"] for source in peak["sources"]] == ["add"], "h, with its bias"
    assert any(each["reason"] == "readers" for each in described)
    shown = fusion.text_again(described)
    assert re.search(r"^mul float32\[1024, 1024\] \(test_explain_fusion.py:\d+\) is computed "
                     r"again from add float32\[1024, 1024\]", shown, re.M)
    assert "it would be kept where the program holds most; saves 4.0 MiB" in shown
