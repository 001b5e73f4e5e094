"""Adaptive softmax (Grave et al. 2017): frequent classes at once, rare ones in clusters."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from typing import Any

import lazygrad as lg
from lazygrad._core.context import fail
from lazygrad.nn import functional as F
from lazygrad.nn.containers import ModuleList, Sequential
from lazygrad.nn.linear import Linear
from lazygrad.nn.module import Module

Result = namedtuple("ASMoutput", ["output", "loss"])  # type: ignore[name-match]


class AdaptiveLogSoftmaxWithLoss(Module):
    """The log-probability of each sample's target, and its negative mean as the loss.

    cutoffs: where clusters of classes begin.  The head scores the classes below the first cutoff
    and every cluster; each cluster projects the features to a smaller size first.

    All clusters are computed for all samples and the right one is picked, so that nothing has to be
    looked at; PyTorch selects the samples of each cluster.  Targets out of range are an IndexError
    when the value is computed.
    """

    def __init__(self, in_features: int, n_classes: int, cutoffs: Sequence[int],
                 div_value: float = 4.0, head_bias: bool = False, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        borders = list(cutoffs)
        if not borders:
            raise ValueError("cutoffs should be a sequence of length larger than 0")
        if borders != sorted(set(borders)) or borders[0] <= 0 or borders[-1] > n_classes - 1 \
                or any(int(each) != each for each in borders):
            raise ValueError("cutoffs should be a sequence of unique, positive integers sorted in "
                             "an increasing order, where each value is between 1 and n_classes-1")
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*borders, n_classes]
        self.div_value = div_value
        self.head_bias = head_bias
        self.shortlist_size = self.cutoffs[0]
        self.n_clusters = len(self.cutoffs) - 1
        self.head_size = self.shortlist_size + self.n_clusters
        made = {"device": device, "dtype": dtype}
        self.head = Linear(in_features, self.head_size, bias=head_bias, **made)
        self.tail = ModuleList()
        for number in range(self.n_clusters):
            hidden = int(in_features // (div_value ** (number + 1)))
            count = self.cutoffs[number + 1] - self.cutoffs[number]
            self.tail.append(Sequential(Linear(in_features, hidden, bias=False, **made),
                                        Linear(hidden, count, bias=False, **made)))

    def reset_parameters(self) -> None:
        self.head.reset_parameters()
        for projection in self.tail:
            for layer in projection:  # type: ignore[attr-defined]
                layer.reset_parameters()

    def forward(self, input_: lg.Tensor, target_: lg.Tensor) -> Any:
        """input (N, in_features) and target (N,), or (in_features,) and ()."""
        if target_.ndim not in (0, 1) or input_.ndim != target_.ndim + 1 \
                or tuple(input_.shape[:-1]) != tuple(target_.shape):
            raise fail("AdaptiveLogSoftmaxWithLoss", f"input {tuple(input_.shape)} and target "
                       f"{tuple(target_.shape)} do not fit",
                       "They are (N, in_features) and (N,), or (in_features,) and ().")
        batched = target_.ndim == 1
        input = input_ if batched else input_.unsqueeze(0)
        target = target_ if batched else target_.unsqueeze(0)
        output = self.log_prob(input).gather(1, target.unsqueeze(1)).squeeze(1)
        loss = (-output).mean()
        return Result(output if batched else output.squeeze(0), loss)

    def log_prob(self, input: lg.Tensor) -> lg.Tensor:
        """(N, in_features) to (N, n_classes)."""
        head = F.log_softmax(self.head(input), dim=1)
        parts = [head[:, :self.shortlist_size]]
        for number, projection in enumerate(self.tail):
            place = self.shortlist_size + number
            parts.append(F.log_softmax(projection(input), dim=1) + head[:, place:place + 1])
        return lg.cat(parts, dim=1)

    def predict(self, input: lg.Tensor) -> lg.Tensor:
        """The likeliest class of each sample: (N,)."""
        return lg.argmax(self.log_prob(input), dim=1)
