"""A distribution seen through invertible functions."""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad.distributions.base import Distribution, Shape, sum_last


class TransformedDistribution(Distribution):
    """Samples of `base_distribution`, passed through each of `transforms` in turn."""

    def __init__(self, base_distribution: Distribution, transforms: Any,
                 validate_args: bool | None = None) -> None:
        self.base_dist = base_distribution
        self.transforms = list(transforms) if isinstance(transforms, (list, tuple)) \
            else [transforms]
        self.has_rsample = base_distribution.has_rsample
        super().__init__(base_distribution.batch_shape, base_distribution.event_shape)

    def _through(self, value: lg.Tensor) -> lg.Tensor:
        for transform in self.transforms:
            value = transform(value)
        return value

    def sample(self, sample_shape: Shape = ()) -> lg.Tensor:
        with lg.no_grad():
            return self._through(self.base_dist.sample(sample_shape))

    def rsample(self, sample_shape: Shape = ()) -> lg.Tensor:
        return self._through(self.base_dist.rsample(sample_shape))

    def log_prob(self, value: lg.Tensor) -> lg.Tensor:
        correction: Any = 0.0
        for transform in reversed(self.transforms):
            before = transform.inv(value)
            correction = correction - sum_last(transform.log_abs_det_jacobian(before, value),
                                               len(self._event_shape))
            value = before
        total: lg.Tensor = self.base_dist.log_prob(value) + correction
        return total

    def cdf(self, value: lg.Tensor) -> lg.Tensor:
        """For transforms that increase."""
        for transform in reversed(self.transforms):
            value = transform.inv(value)
        return self.base_dist.cdf(value)
