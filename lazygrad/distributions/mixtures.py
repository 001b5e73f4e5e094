"""Mixtures: one of several distributions of a kind, chosen anew for each sample."""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad._core.context import fail
from lazygrad.distributions.base import Distribution, Shape, sum_last
from lazygrad.distributions.counts import Categorical


class MixtureSameFamily(Distribution):
    """Component k of the last batch axis of `component_distribution`, with the probability that
    `mixture_distribution` gives k: mixtures of Gaussians, of logistics.
    """

    def __init__(self, mixture_distribution: Categorical, component_distribution: Distribution,
                 validate_args: bool | None = None) -> None:
        if not isinstance(mixture_distribution, Categorical):
            raise fail("MixtureSameFamily", "the mixture is a Categorical, not a "
                       f"{type(mixture_distribution).__name__}", kind=ValueError)
        batch = component_distribution.batch_shape
        count = mixture_distribution.probs.shape[-1]
        if not batch or batch[-1] != count:
            raise fail("MixtureSameFamily", f"{count} probabilities for components of batch shape "
                       f"{tuple(batch)}: their last axis counts the components", kind=ValueError)
        self.mixture_distribution = mixture_distribution
        self.component_distribution = component_distribution
        shape = lg.broadcast_shapes(mixture_distribution.batch_shape, batch[:-1])
        super().__init__(shape, component_distribution.event_shape)

    def _along_events(self, probabilities: lg.Tensor) -> lg.Tensor:
        """With an axis of size 1 for each of the event's."""
        return probabilities.reshape(*probabilities.shape, *(1 for _ in self._event_shape))

    def _mixed(self, values: lg.Tensor) -> lg.Tensor:
        """The mean over the components, which are the axis before the event's."""
        weights = self._along_events(self.mixture_distribution.probs)
        return (weights * values).sum(-1 - len(self._event_shape))

    @property
    def mean(self) -> lg.Tensor:
        return self._mixed(self.component_distribution.mean)

    @property
    def variance(self) -> lg.Tensor:
        """The mean of the variances, and the variance of the means."""
        own = self.component_distribution.mean
        between = own - self.mean.unsqueeze(-1 - len(self._event_shape))
        return self._mixed(self.component_distribution.variance + between.square())

    def sample(self, sample_shape: Shape = ()) -> lg.Tensor:
        with lg.no_grad():
            chosen = self.mixture_distribution.expand(self._batch_shape).sample(sample_shape)
            drawn = self.component_distribution.sample(sample_shape)
            axis = chosen.ndim
            index = self._along_events(chosen.unsqueeze(-1))
            shape = (*chosen.shape, 1, *self._event_shape)
            drawn = drawn.expand(*chosen.shape, drawn.shape[axis], *self._event_shape)
            return drawn.gather(axis, index.expand(shape)).squeeze(axis)

    def log_prob(self, value: Any) -> lg.Tensor:
        each = self.component_distribution.log_prob(
            lg.as_tensor(value).unsqueeze(-1 - len(self._event_shape)))
        return lg.logsumexp(each + self.mixture_distribution.logits, -1)

    def cdf(self, value: Any) -> lg.Tensor:
        each = self.component_distribution.cdf(lg.as_tensor(value).unsqueeze(-1))
        return sum_last(each * self.mixture_distribution.probs, 1)

    def expand(self, batch_shape: Shape) -> MixtureSameFamily:
        count = self.mixture_distribution.probs.shape[-1]
        return MixtureSameFamily(self.mixture_distribution.expand(batch_shape),
                                 self.component_distribution.expand((*batch_shape, count)))

    def __repr__(self) -> str:
        return f"MixtureSameFamily({self.mixture_distribution}, {self.component_distribution})"
