"""Choices made soft, so that gradients pass through samples (Maddison et al. 2017, Jang et al.
2017): the lower the temperature, the nearer to 0 and 1.
"""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad.distributions.base import Distribution
from lazygrad.distributions.counts import Bernoulli, Categorical
from lazygrad.nn import functional as F


def _uniform(like: lg.Tensor, shape: tuple[int, ...]) -> lg.Tensor:
    """Draws from the inside of 0..1: neither end's logarithm is infinite."""
    numbers = lg.finfo(like.dtype)
    return lg.rand(shape, dtype=like.dtype).clamp(numbers.tiny, 1 - numbers.eps)


class RelaxedBernoulli(Distribution):
    """The sigmoid of (logits + logistic noise) / temperature: values from 0 to 1."""

    has_rsample = True

    def __init__(self, temperature: Any, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None) -> None:
        choice = Bernoulli(probs, logits, validate_args)
        self.temperature = lg.as_tensor(temperature, dtype=choice.probs.dtype)
        self.probs, self.logits, self.arg_names = choice.probs, choice.logits, choice.arg_names
        super().__init__(choice.batch_shape)

    def expand(self, batch_shape: Any) -> Any:
        made = super().expand(batch_shape)
        made.probs, made.logits = (each.expand(*batch_shape) for each in (self.probs, self.logits))
        return made

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        noise = _uniform(self.logits, shape).logit()
        return ((self.logits + noise) / self.temperature).sigmoid()

    def log_prob(self, value: Any) -> lg.Tensor:
        """Formula 26 of Maddison et al., for the logit of the value, and back."""
        at = lg.as_tensor(value).logit()
        away = self.logits - at * self.temperature
        density = self.temperature.log() + away - 2 * F.softplus(away)
        return density + F.softplus(-at) + F.softplus(at)


class RelaxedOneHotCategorical(Distribution):
    """The softmax of (logits + Gumbel noise) / temperature: probabilities over the last axis."""

    has_rsample = True

    def __init__(self, temperature: Any, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None) -> None:
        choice = Categorical(probs, logits, validate_args)
        self.temperature = lg.as_tensor(temperature, dtype=choice.probs.dtype)
        self.probs, self.logits, self.arg_names = choice.probs, choice.logits, choice.arg_names
        super().__init__(choice.batch_shape, self.logits.shape[-1:])

    def expand(self, batch_shape: Any) -> Any:
        made = super().expand(batch_shape)
        made.probs, made.logits = (each.expand(*batch_shape, *self._event_shape)
                                   for each in (self.probs, self.logits))
        return made

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        noise = -(-_uniform(self.logits, shape).log()).log()
        return ((self.logits + noise) / self.temperature).softmax(-1)

    def log_prob(self, value: Any) -> lg.Tensor:
        """Formula 22 of Maddison et al."""
        logits, value = lg.broadcast_tensors(self.logits, lg.as_tensor(value))
        count = self._event_shape[-1]
        score = F.log_softmax(logits - self.temperature * value.log(), -1).sum(-1)
        scale = lg.lgamma(lg.full_like(self.temperature, count)) \
            + (count - 1) * self.temperature.log()
        return score + scale - value.log().sum(-1)
