"""Recurrent networks and packed sequences against PyTorch."""

import pytest
import torch

import lazygrad as lg
from tests.lazygrad.nn_compare import assert_close, compare, copy_state, numbers

LENGTHS = [4, 2, 3]
KINDS = {
    "LSTM": lambda n: n.LSTM(3, 4, 2, bidirectional=True),
    "LSTM projected": lambda n: n.LSTM(3, 4, proj_size=2, batch_first=True),
    "GRU": lambda n: n.GRU(3, 4, bidirectional=True, bias=False),
    "RNN": lambda n: n.RNN(3, 4, nonlinearity="relu"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_network(kind):
    compare(KINDS[kind], numbers(3, 5, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences(kind):
    """Sequences in any order, given initial states, outputs padded again, and all gradients."""
    ours, theirs = KINDS[kind](lg.nn).double(), KINDS[kind](torch.nn).double()
    copy_state(ours, theirs)
    parts = [numbers(length, 3, seed=length) for length in LENGTHS]
    layers = ours.num_layers * (2 if ours.bidirectional else 1)
    sizes = [ours.proj_size or 4, 4][:2 if "LSTM" in kind else 1]
    states = [numbers(layers, 3, size, seed=k) for k, size in enumerate(sizes)]
    results = []
    for library, module in ((lg, ours), (torch, theirs)):
        rnn = library.nn.utils.rnn
        leaves = [library.tensor(part).requires_grad_() for part in parts]
        initial = [library.tensor(state).requires_grad_() for state in states]
        packed = rnn.pack_sequence(leaves, enforce_sorted=False)
        output, last = module(packed, tuple(initial) if len(initial) > 1 else initial[0])
        padded, lengths = rnn.pad_packed_sequence(output, batch_first=True, padding_value=-1.0)
        last = last if isinstance(last, tuple) else (last,)
        (sum((each * each).sum() for each in last) + (padded * padded).sum()).backward()
        results.append([padded, lengths, output.batch_sizes, *last,
                        *(each.grad for each in (*leaves, *initial, *module.parameters()))])
    for k, (a, b) in enumerate(zip(*results, strict=True)):
        assert_close(a, b, f"result {k}")


def test_packing_functions():
    padded = numbers(4, 3, 2)
    results = []
    for library in (lg, torch):
        rnn = library.nn.utils.rnn
        packed = rnn.pack_padded_sequence(library.tensor(padded), library.tensor([4, 3, 1]))
        loose = rnn.pack_padded_sequence(library.tensor(padded), [2, 4, 1], enforce_sorted=False)
        parts = [library.tensor(numbers(length, 2, seed=length)) for length in (1, 3)]
        results.append([
            *packed[:2], *loose, *rnn.pad_packed_sequence(loose, total_length=5),
            rnn.pad_sequence(parts), rnn.pad_sequence(parts, True, 7.0, "left"),
            *rnn.unpad_sequence(rnn.pad_sequence(parts), library.tensor([1, 3])),
            *rnn.unpack_sequence(rnn.pack_sequence(parts, enforce_sorted=False)),
            rnn.invert_permutation(library.tensor([2, 0, 1])),
        ])
    for k, (a, b) in enumerate(zip(*results, strict=True)):
        assert_close(a, b, f"result {k}")


def test_packing_refuses():
    rnn, x = lg.nn.utils.rnn, lg.ones(4, 3, 2)
    for lengths, message in (([1, 2, 3], "enforce_sorted"), ([5, 1, 1], "at most"),
                             ([2, 1, 0], "greater than 0"), ([2, 1], "one length")):
        with pytest.raises(RuntimeError, match=message):
            rnn.pack_padded_sequence(x, lengths)
    with pytest.raises(RuntimeError, match="first axis"):
        rnn.pad_sequence([lg.ones(2, 3), lg.ones(2, 4)])
    packed = rnn.pack_padded_sequence(x, [4, 2, 1])
    with pytest.raises(ValueError, match="total_length"):
        rnn.pad_packed_sequence(packed, total_length=2)
    with pytest.raises(RuntimeError, match="packed data"):
        lg.nn.GRU(5, 4)(packed)
    with pytest.raises(RuntimeError, match="at least one step"):
        lg.nn.GRU(2, 4)(lg.ones(0, 3, 2))


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
def test_cell(name):
    compare(lambda n: getattr(n, name)(3, 4), numbers(2, 3))


def test_weights_are_listed_as_in_pytorch():
    ours, theirs = lg.nn.LSTM(3, 4, proj_size=2), torch.nn.LSTM(3, 4, proj_size=2)
    assert [[tuple(w.shape) for w in row] for row in ours.all_weights] == \
        [[tuple(w.shape) for w in row] for row in theirs.all_weights]


def test_packing_known_lengths_computes_nothing():
    x = lg.rand(4, 3, 2)
    packed = lg.nn.utils.rnn.pack_padded_sequence(x, [4, 2, 1])
    output, _ = lg.nn.RNN(2, 3)(packed)
    lg.nn.utils.rnn.pad_packed_sequence(output)
    assert x._cell.node.op != "input"  # still to be computed
    lg.synchronize()
    assert x._cell.node.op == "input"


def test_the_program_does_not_grow_with_the_steps():
    """Neither in launches nor in kernels, forwards or backwards."""
    from lazygrad_runtime.program import run_callbacks

    sizes = []
    for steps in (4, 200):
        model = lg.nn.LSTM(3, 5, num_layers=2, bidirectional=True)
        launches = []
        run_callbacks.append(lambda program, noted=launches: noted.append(
            (len(program.artifact.launches), len(program.artifact.objects))))
        try:
            model(lg.rand(steps, 2, 3))[0].sum().backward()
            lg.synchronize()
        finally:
            run_callbacks.pop()
        sizes.append(max(launches))
    assert sizes[0] == sizes[1]
