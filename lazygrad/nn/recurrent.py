"""Recurrent networks: RNN, LSTM, GRU, and their cells.

The input projections of all steps are one matrix product; the recurrent part is a `scan`, so that
compiling a layer takes the same time for any number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy

import lazygrad as lg
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import shape_of
from lazygrad.nn import functional as F
from lazygrad.nn import init
from lazygrad.nn.containers import MOST_LAYERS
from lazygrad.nn.module import Module
from lazygrad.nn.parameter import Parameter
from lazygrad.nn.utils.rnn import PackedSequence

State = tuple[lg.Tensor, ...]


def _lstm_step(from_input: lg.Tensor, from_hidden: lg.Tensor, state: State) -> State:
    """Gates in PyTorch's order: input, forget, cell, output (Hochreiter and Schmidhuber 1997)."""
    size = from_input.shape[-1] // 4
    gates = from_input + from_hidden
    enter, forget, cell, leave = (gates[..., k * size:(k + 1) * size] for k in range(4))
    memory = lg.sigmoid(forget) * state[1] + lg.sigmoid(enter) * lg.tanh(cell)
    return lg.sigmoid(leave) * lg.tanh(memory), memory


def _gru_step(from_input: lg.Tensor, from_hidden: lg.Tensor, state: State) -> State:
    """Gates in PyTorch's order: reset, update, new (Cho et al. 2014)."""
    size = from_input.shape[-1] // 3
    reset, update = (lg.sigmoid(from_input[..., k * size:(k + 1) * size]
                                + from_hidden[..., k * size:(k + 1) * size]) for k in range(2))
    new = lg.tanh(from_input[..., 2 * size:] + reset * from_hidden[..., 2 * size:])
    return (new + update * (state[0] - new),)


_STEPS: dict[str, Callable[[lg.Tensor, lg.Tensor, State], State]] = {
    "LSTM": _lstm_step,
    "GRU": _gru_step,
    "RNN_TANH": lambda from_input, from_hidden, state: ((from_input + from_hidden).tanh(),),
    "RNN_RELU": lambda from_input, from_hidden, state: (F.relu(from_input + from_hidden),),
}
"""The next state from the projected input, the projected hidden state, and the state."""


@operation
def recurrent_layer(mode: str, projected: lg.Tensor, initial: State, weight: lg.Tensor,
                    bias: lg.Tensor | None, projection: lg.Tensor | None,
                    there: lg.Tensor | None, reverse: bool) -> State:
    """All outputs (steps, batch, size) of a layer in one direction, and the last state.

    projected: what the input brings to the gates.  projection: of the hidden state.  there: which
    sequences take part in a step, (steps, batch, 1).
    """
    def step(state: State, given: tuple[lg.Tensor, ...]) -> tuple[State, lg.Tensor]:
        following = _STEPS[mode](given[0], F.linear(state[0], weight, bias), state)
        if projection is not None:
            following = (F.linear(following[0], projection), *following[1:])
        following = tuple(new.to(old.dtype) for new, old in zip(following, state))
        if there is not None:
            following = tuple(lg.where(given[1], new, old)
                              for new, old in zip(following, state))
        return following, following[0]

    series = (projected,) if there is None else (projected, there)
    last, outputs = lg.scan(step, tuple(initial), series, reverse=reverse)
    return (outputs, *last)


@operation
def recurrent_cell(mode: str, input: lg.Tensor, state: State, weight_ih: lg.Tensor,
                   weight_hh: lg.Tensor, bias_ih: lg.Tensor | None,
                   bias_hh: lg.Tensor | None) -> State:
    """The next state of a cell."""
    return _STEPS[mode](F.linear(input, weight_ih, bias_ih),
                        F.linear(state[0], weight_hh, bias_hh), state)


class RNNBase(Module):
    """Layers and directions of a recurrent network; subclasses say what one step computes."""

    gates = 1
    states = 1

    def __init__(self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1,
                 bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
                 bidirectional: bool = False, proj_size: int = 0, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout should be a number in range [0, 1], not {dropout}")
        if hidden_size <= 0 or num_layers <= 0:
            raise ValueError("hidden_size and num_layers must be greater than zero")
        if num_layers > MOST_LAYERS:
            raise ValueError(f"num_layers is at most {MOST_LAYERS}, not {num_layers}")
        if proj_size and mode != "LSTM":
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        if not 0 <= proj_size < hidden_size:
            raise ValueError("proj_size has to be smaller than hidden_size, zero to disable "
                             "projections")
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        output_size = proj_size or hidden_size
        made = {"device": device, "dtype": dtype}
        rows = self.gates * hidden_size
        for layer in range(num_layers):
            for suffix in self._suffixes(layer):
                columns = input_size if layer == 0 else output_size * (2 if bidirectional else 1)
                setattr(self, f"weight_ih_{suffix}", Parameter(lg.empty(rows, columns, **made)))
                setattr(self, f"weight_hh_{suffix}", Parameter(lg.empty(rows, output_size, **made)))
                if bias:
                    setattr(self, f"bias_ih_{suffix}", Parameter(lg.empty(rows, **made)))
                    setattr(self, f"bias_hh_{suffix}", Parameter(lg.empty(rows, **made)))
                if proj_size:
                    setattr(self, f"weight_hr_{suffix}",
                            Parameter(lg.empty(proj_size, hidden_size, **made)))
        self.reset_parameters()

    def _suffixes(self, layer: int) -> list[str]:
        return [f"l{layer}", f"l{layer}_reverse"] if self.bidirectional else [f"l{layer}"]

    def reset_parameters(self) -> None:
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The weights of each layer and direction, in the order of the state_dict."""
        kinds = ["weight_ih", "weight_hh"] + (["bias_ih", "bias_hh"] if self.bias else []) + (
            ["weight_hr"] if self.proj_size else [])
        return [[getattr(self, f"{kind}_{suffix}") for kind in kinds]
                for layer in range(self.num_layers) for suffix in self._suffixes(layer)]

    def flatten_parameters(self) -> None:
        """Does nothing; PyTorch packs the weights for cuDNN here."""

    # what subclasses written for PyTorch call

    def check_input(self, input: lg.Tensor, batch_sizes: Any = None) -> None:
        """Refuses an input of another rank or number of features than the module takes."""
        rank = 2 if batch_sizes is not None else 3
        if input.ndim != rank or input.shape[-1] != self.input_size:
            raise fail(self._get_name(), f"expects input of {rank} axes, {self.input_size} in the "
                                         f"last one, and got {tuple(input.shape)}")

    def _expected(self, input: lg.Tensor, batch_sizes: Any, size: int) -> tuple[int, int, int]:
        batch = int(batch_sizes[0]) if batch_sizes is not None \
            else input.shape[0 if self.batch_first else 1]
        return self.num_layers * (2 if self.bidirectional else 1), batch, size

    def get_expected_hidden_size(self, input: lg.Tensor,
                                 batch_sizes: Any = None) -> tuple[int, int, int]:
        """The shape of the initial hidden state: (layers * directions, batch, size)."""
        return self._expected(input, batch_sizes, self.proj_size or self.hidden_size)

    def get_expected_cell_size(self, input: lg.Tensor,
                               batch_sizes: Any = None) -> tuple[int, int, int]:
        """The shape of the initial cell state of an LSTM."""
        return self._expected(input, batch_sizes, self.hidden_size)

    def check_hidden_size(self, hx: lg.Tensor, expected_hidden_size: Any,
                          msg: str = "Expected hidden size {}, got {}") -> None:
        """Refuses a state of another shape."""
        if tuple(hx.shape) != tuple(expected_hidden_size):
            raise fail(self._get_name(),
                       msg.format(tuple(expected_hidden_size), list(hx.shape)))

    def check_forward_args(self, input: lg.Tensor, hidden: Any, batch_sizes: Any = None) -> None:
        """Refuses an input or initial state that does not fit."""
        self.check_input(input, batch_sizes)
        expected = self.get_expected_hidden_size(input, batch_sizes)
        if self.states > 1:
            self.check_hidden_size(hidden[0], expected, "Expected hidden[0] size {}, got {}")
            self.check_hidden_size(hidden[1], self.get_expected_cell_size(input, batch_sizes),
                                   "Expected hidden[1] size {}, got {}")
        else:
            self.check_hidden_size(hidden, expected)

    def permute_hidden(self, hx: Any, permutation: lg.Tensor | None) -> Any:
        """States with the sequences of the batch in another order."""
        if permutation is None:
            return hx
        if isinstance(hx, tuple):
            return tuple(part.index_select(1, permutation) for part in hx)
        return hx.index_select(1, permutation)

    def forward(self, input: lg.Tensor, hx: Any = None) -> tuple[lg.Tensor, Any]:
        """input (L, N, features), (N, L, features) with batch_first, or (L, features).  Returns
        (output, last state).
        """
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        name = self._get_name()
        if not isinstance(input, lg.Tensor) or input.ndim not in (2, 3):
            got = tuple(input.shape) if isinstance(input, lg.Tensor) else type(input).__name__
            raise fail(name, f"takes input with 2 or 3 axes, and got {got}")
        if input.shape[-1] != self.input_size:
            raise fail(name, f"{name}({self.extra_repr()}) expects {self.input_size} features in "
                             f"the last axis, and got {input.shape[-1]}: the input has shape "
                             f"{tuple(input.shape)}")
        if not input.shape[-2 if self.batch_first or input.ndim == 2 else 0]:
            raise fail(name, "expects a sequence of at least one step, and the input has shape "
                             f"{tuple(input.shape)}")
        batched = input.ndim == 3
        if not batched:
            input = input.unsqueeze(1)
        elif self.batch_first:
            input = input.transpose(0, 1)
        initial = self._initial(input, input.shape[1], hx, batched)
        output, last = self._layers(input, initial, self._run)
        if not batched:
            output, last = output.squeeze(1), tuple(part.squeeze(1) for part in last)
        elif self.batch_first:
            output = output.transpose(0, 1)
        return output, last if self.states > 1 else last[0]

    def _layers(self, input: lg.Tensor, initial: State,
                run: Callable[..., tuple[lg.Tensor, State]]) -> tuple[lg.Tensor, State]:
        """All layers and directions: the last layer's outputs, and all last states."""
        output, final = input, []
        for layer in range(self.num_layers):
            directions = []
            for direction, suffix in enumerate(self._suffixes(layer)):
                number = len(self._suffixes(layer)) * layer + direction
                outputs, state = run(output, tuple(part[number] for part in initial), suffix,
                                     direction == 1)
                directions.append(outputs)
                final.append(state)
            output = directions[0] if len(directions) == 1 else lg.cat(directions, dim=-1)
            if self.dropout and self.training and layer < self.num_layers - 1:
                output = F.dropout(output, self.dropout)
        return output, tuple(lg.stack(list(parts)) for parts in zip(*final))

    def _forward_packed(self, input: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        """Sequences of different lengths; states are in the order of the batch."""
        sizes = input.sizes
        if input.data.ndim != 2 or input.data.shape[-1] != self.input_size:
            raise fail(self._get_name(), f"expects packed data (total, {self.input_size}), and got "
                                         f"{tuple(input.data.shape)}")
        initial = self._initial(input.data, sizes[0], hx, True)
        if hx is not None and input.sorted_indices is not None:
            initial = tuple(part.index_select(1, input.sorted_indices) for part in initial)
        output, last = self._layers(input.data, initial, partial(self._run_packed, sizes))
        if input.unsorted_indices is not None:
            last = tuple(part.index_select(1, input.unsorted_indices) for part in last)
        return input.with_data(output), last if self.states > 1 else last[0]

    def _run_packed(self, sizes: list[int], data: lg.Tensor, initial: State, suffix: str,
                    reverse: bool) -> tuple[lg.Tensor, State]:
        """`_run` where step t has the first sizes[t] sequences only.

        All sequences take part in every step; the state of one that has ended, or, backwards, has
        not begun yet, stays as it is.
        """
        projected = self._projected(data, suffix)
        steps, batch = len(sizes), sizes[0]
        if sizes[-1] == batch:
            padded = projected.reshape(steps, batch, -1)
            outputs, last = self._loop(padded, initial, suffix, reverse)
            return outputs.reshape(steps * batch, -1), last
        counts = numpy.asarray(sizes)
        there = numpy.arange(batch) < counts[:, None]
        place = numpy.cumsum(counts)[:, None] - counts[:, None] + numpy.arange(batch)
        padded = projected[lg.from_numpy(numpy.where(there, place, 0))]
        outputs, last = self._loop(padded, initial, suffix, reverse,
                                   lg.from_numpy(there[:, :, None]))
        rows = lg.from_numpy(numpy.flatnonzero(there))
        return outputs.reshape(steps * batch, -1)[rows], last

    def _projected(self, input: lg.Tensor, suffix: str) -> lg.Tensor:
        """What the input brings to the gates, of all steps."""
        return F.linear(input, getattr(self, f"weight_ih_{suffix}"),
                        getattr(self, f"bias_ih_{suffix}") if self.bias else None)

    def _loop(self, projected: lg.Tensor, initial: State, suffix: str, reverse: bool,
              there: lg.Tensor | None = None) -> tuple[lg.Tensor, State]:
        """The recurrent part of a layer in one direction: all outputs and the last state.

        there: which sequences take part in a step, (steps, batch, 1).
        """
        outputs, *last = recurrent_layer(
            self.mode, projected, tuple(initial), getattr(self, f"weight_hh_{suffix}"),
            getattr(self, f"bias_hh_{suffix}") if self.bias else None,
            getattr(self, f"weight_hr_{suffix}") if self.proj_size else None, there, reverse)
        return outputs, tuple(last)

    def _initial(self, input: lg.Tensor, batch: int, hx: Any, batched: bool) -> State:
        layers = self.num_layers * (2 if self.bidirectional else 1)
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)[:self.states]
        if hx is None:
            return tuple(lg.zeros(layers, batch, size, dtype=input.dtype) for size in sizes)
        given = tuple(hx) if self.states > 1 else (hx,)
        if len(given) != self.states:
            raise fail(self._get_name(), f"the initial state has {self.states} parts, and got "
                                         f"{len(given)}")
        if not batched:
            given = tuple(part.unsqueeze(1) for part in given)
        for part, size in zip(given, sizes):
            if tuple(part.shape) != (layers, batch, size):
                raise fail(self._get_name(), "expects an initial state of shape "
                                             f"{(layers, batch, size)}, and got "
                                             f"{tuple(part.shape)}")
        return given

    def _run(self, input: lg.Tensor, state: State, suffix: str, reverse: bool) -> tuple[lg.Tensor,
                                                                                        State]:
        """One layer in one direction: all outputs (L, N, size) and the last state."""
        return self._loop(self._projected(input, suffix), state, suffix, reverse)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.proj_size:
            text += f", proj_size={self.proj_size}"
        if self.num_layers != 1:
            text += f", num_layers={self.num_layers}"
        if not self.bias:
            text += f", bias={self.bias}"
        if self.batch_first:
            text += f", batch_first={self.batch_first}"
        if self.dropout:
            text += f", dropout={self.dropout}"
        if self.bidirectional:
            text += f", bidirectional={self.bidirectional}"
        return text


def _mode(nonlinearity: str) -> str:
    """The mode of a plain recurrent network."""
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
    return f"RNN_{nonlinearity.upper()}"


class RNN(RNNBase):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or with relu."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1,
                 nonlinearity: str = "tanh", bias: bool = True, batch_first: bool = False,
                 dropout: float = 0.0, bidirectional: bool = False, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__(_mode(nonlinearity), input_size, hidden_size, num_layers, bias,
                         batch_first, dropout, bidirectional, 0, device, dtype)
        self.nonlinearity = nonlinearity


class LSTM(RNNBase):
    """Long short-term memory; the state is (h, c), and `proj_size` projects h."""

    gates = 4
    states = 2

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
                 proj_size: int = 0, device: Any = None, dtype: Any = None) -> None:
        super().__init__("LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout,
                         bidirectional, proj_size, device, dtype)


class GRU(RNNBase):
    """Gated recurrent unit."""

    gates = 3

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__("GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout,
                         bidirectional, 0, device, dtype)


class RNNCellBase(Module):
    """One step of a recurrent network."""

    mode: str
    states = 1

    def __init__(self, input_size: int, hidden_size: int, bias: bool, num_chunks: int,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = num_chunks * hidden_size
        made = {"device": device, "dtype": dtype}
        self.weight_ih = Parameter(lg.empty(rows, input_size, **made))
        self.weight_hh = Parameter(lg.empty(rows, hidden_size, **made))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(lg.empty(rows, **made)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def forward(self, input: lg.Tensor, hx: Any = None) -> Any:
        shape = shape_of(input)
        if len(shape) not in (1, 2) or shape[-1] != self.input_size:
            name = self._get_name()
            raise fail(name, f"{name}({self.extra_repr()}) takes (N, {self.input_size}) or "
                             f"({self.input_size},), and got shape {tuple(input.shape)}")
        if hx is None:
            zeros = lg.zeros(*input.shape[:-1], self.hidden_size, dtype=input.dtype)
            state: State = (zeros,) * self.states
        else:
            state = tuple(hx) if self.states > 1 else (hx,)
        weights: Any = self._parameters
        state = recurrent_cell(self.mode, input, state, weights["weight_ih"], weights["weight_hh"],
                               weights["bias_ih"], weights["bias_hh"])
        return state if self.states > 1 else state[0]

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias
                                                           else f", bias={self.bias}")


class RNNCell(RNNCellBase):
    """One step of `RNN`."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True,
                 nonlinearity: str = "tanh", device: Any = None, dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.mode = _mode(nonlinearity)
        self.nonlinearity = nonlinearity

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.nonlinearity == "tanh"
                                       else f", nonlinearity={self.nonlinearity}")


class LSTMCell(RNNCellBase):
    """One step of `LSTM`."""

    mode = "LSTM"
    states = 2

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)


class GRUCell(RNNCellBase):
    """One step of `GRU`."""

    mode = "GRU"

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)
