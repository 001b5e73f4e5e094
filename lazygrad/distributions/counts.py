"""Distributions over whole numbers; they are not drawn differentiably."""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad._core.context import fail
from lazygrad.distributions.base import Distribution, Shape, broadcast, checked, sum_last
from lazygrad.distributions.gammas import standard_gamma
from lazygrad.nn import functional as F


def _one_of(name: str, probs: Any, logits: Any) -> None:
    if (probs is None) == (logits is None):
        raise fail(name, "needs either probs or logits, not both or neither", kind=ValueError)


class _Binary(Distribution):
    """A probability for each element, given as such or as logits."""

    def __init__(self, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None) -> None:
        _one_of(type(self).__name__, probs, logits)
        if logits is None:
            given, = broadcast(probs)
            given = checked(type(self).__name__, given, (given >= 0) & (given <= 1), validate_args)
            small = lg.finfo(given.dtype).eps
            clamped = given.clamp(small, 1 - small)  # as PyTorch: log_prob stays finite
            self.probs, self.logits = given, clamped.log() - (-clamped).log1p()
            self.arg_names = ("probs",)
        else:
            logits, = broadcast(logits)
            self.logits = checked(type(self).__name__, logits, logits == logits, validate_args)
            self.probs = self.logits.sigmoid()
            self.arg_names = ("logits",)
        super().__init__(self.probs.shape)

    def expand(self, batch_shape: Any) -> Any:
        made = super().expand(batch_shape)
        made.probs, made.logits = (each.expand(*batch_shape) for each in (self.probs, self.logits))
        return made


class Bernoulli(_Binary):
    """1 with probability `probs`, else 0."""

    @property
    def mean(self) -> lg.Tensor:
        return self.probs

    @property
    def mode(self) -> lg.Tensor:
        return lg.where(self.probs == 0.5, lg.nan, (self.probs >= 0.5).to(self.probs.dtype))

    @property
    def variance(self) -> lg.Tensor:
        return self.probs * (1 - self.probs)

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        return lg.bernoulli(self.probs.expand(shape))

    def log_prob(self, value: Any) -> lg.Tensor:
        logits, value = lg.broadcast_tensors(self.logits, lg.as_tensor(value))
        return -F.binary_cross_entropy_with_logits(logits, value.to(logits.dtype),
                                                   reduction="none")

    def entropy(self) -> lg.Tensor:
        return F.binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")


class Geometric(_Binary):
    """The number of failures before the first success."""

    @property
    def mean(self) -> lg.Tensor:
        return 1 / self.probs - 1

    @property
    def variance(self) -> lg.Tensor:
        return (1 / self.probs - 1) / self.probs

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        tiny = lg.finfo(self.probs.dtype).tiny
        uniform = lg.rand(shape, dtype=self.probs.dtype).clamp(min=tiny)
        return (uniform.log() / (-self.probs).log1p()).floor()

    def log_prob(self, value: Any) -> lg.Tensor:
        return lg.xlogy(lg.as_tensor(value).to(self.probs.dtype), 1 - self.probs) + self.probs.log()

    def entropy(self) -> lg.Tensor:
        return F.binary_cross_entropy_with_logits(self.logits, self.probs,
                                                  reduction="none") / self.probs


class Binomial(Distribution):
    """The number of successes in `total_count` trials."""

    arg_names = ("total_count", "probs")

    def __init__(self, total_count: Any = 1, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None) -> None:
        _one_of("Binomial", probs, logits)
        trial = Bernoulli(probs, logits, validate_args)
        self.total_count, self.probs = broadcast(total_count, trial.probs)
        self.logits = trial.logits.expand(self.probs.shape)
        super().__init__(self.probs.shape)

    @property
    def mean(self) -> lg.Tensor:
        return self.total_count * self.probs

    @property
    def variance(self) -> lg.Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        return lg.binomial(self.total_count.expand(shape), self.probs.expand(shape))

    def log_prob(self, value: Any) -> lg.Tensor:
        value = lg.as_tensor(value).to(self.probs.dtype)
        n = self.total_count
        ways = lg.lgamma(n + 1) - lg.lgamma(value + 1) - lg.lgamma(n - value + 1)
        return ways + value * F.logsigmoid(self.logits) + (n - value) * F.logsigmoid(-self.logits)


class Poisson(Distribution):
    """How many events happen where `rate` are expected."""

    arg_names = ("rate",)

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        rate, = broadcast(rate)
        self.rate = checked("Poisson", rate, rate >= 0, validate_args)
        super().__init__(self.rate.shape)

    @property
    def mean(self) -> lg.Tensor:
        return self.rate

    @property
    def mode(self) -> lg.Tensor:
        return self.rate.floor()

    @property
    def variance(self) -> lg.Tensor:
        return self.rate

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        return lg.poisson(self.rate.expand(shape))

    def log_prob(self, value: Any) -> lg.Tensor:
        value = lg.as_tensor(value).to(self.rate.dtype)
        return lg.xlogy(value, self.rate) - self.rate - lg.lgamma(value + 1)


class Categorical(Distribution):
    """The numbers 0 to K-1, by `probs` (normalised over the last axis) or `logits`: (..., K)."""

    def __init__(self, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None) -> None:
        _one_of("Categorical", probs, logits)
        given = lg.as_tensor(logits if probs is None else probs)
        if given.ndim < 1:
            raise fail("Categorical", "probs and logits need an axis of categories, and got a 0-d "
                       "tensor", kind=ValueError)
        if probs is None:
            given = checked("Categorical", given, ~given.isnan(), validate_args)
            self.logits = F.log_softmax(given, -1)
            self.probs = self.logits.exp()
            self.arg_names = ("logits",)
        else:
            given = checked("Categorical", given, given >= 0, validate_args)
            self.probs = given / given.sum(-1, keepdim=True)
            small = lg.finfo(self.probs.dtype).eps
            self.logits = self.probs.clamp(small, 1 - small).log()
            self.arg_names = ("probs",)
        super().__init__(given.shape[:-1])

    @property
    def _num_events(self) -> int:
        return int(self.logits.shape[-1])

    @property
    def param_shape(self) -> Any:
        return self.logits.shape

    @property
    def mean(self) -> lg.Tensor:
        return lg.full(self._batch_shape, lg.nan, dtype=self.probs.dtype)

    variance = mean

    @property
    def mode(self) -> lg.Tensor:
        return self.probs.argmax(-1)

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        count = 1
        for size in shape[:len(shape) - len(self._batch_shape)]:
            count *= size
        flat = self.probs.reshape(-1, self._num_events)
        return lg.multinomial(flat, count, replacement=True).T.reshape(shape)

    def log_prob(self, value: Any) -> lg.Tensor:
        index = lg.as_tensor(value).long()
        shape = lg.broadcast_shapes(index.shape, self._batch_shape)
        logits = self.logits.expand(*shape, self._num_events)
        return logits.gather(-1, index.expand(shape).unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> lg.Tensor:
        smallest = lg.finfo(self.logits.dtype).min
        return -(self.logits.clamp(min=smallest) * self.probs).sum(-1)

    def expand(self, batch_shape: Any) -> Any:
        made = super().expand(batch_shape)
        made.probs, made.logits = (each.expand(*batch_shape, self._num_events)
                                   for each in (self.probs, self.logits))
        return made


class OneHotCategorical(Distribution):
    """`Categorical`, its values as one-hot vectors."""

    def __init__(self, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None) -> None:
        self._categorical = Categorical(probs, logits, validate_args)
        self.probs, self.logits = self._categorical.probs, self._categorical.logits
        self.arg_names = self._categorical.arg_names
        super().__init__(self._categorical.batch_shape, self.probs.shape[-1:])

    @property
    def mean(self) -> lg.Tensor:
        return self.probs

    @property
    def variance(self) -> lg.Tensor:
        return self.probs * (1 - self.probs)

    @property
    def mode(self) -> lg.Tensor:
        return F.one_hot(self.probs.argmax(-1), self.probs.shape[-1]).to(self.probs.dtype)

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        drawn = self._categorical._draw(shape[:-1])
        return F.one_hot(drawn, shape[-1]).to(self.probs.dtype)

    def log_prob(self, value: lg.Tensor) -> lg.Tensor:
        return sum_last(self.logits * value, 1)

    def entropy(self) -> lg.Tensor:
        return self._categorical.entropy()


class OneHotCategoricalStraightThrough(OneHotCategorical):
    """One-hot samples whose gradient is that of the probabilities (Bengio et al. 2013)."""

    has_rsample = True

    def rsample(self, sample_shape: Shape = ()) -> lg.Tensor:
        return self.sample(sample_shape) + (self.probs - self.probs.detach())


class Multinomial(Distribution):
    """How often each category came up in `total_count` draws: (..., K)."""

    def __init__(self, total_count: int = 1, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None) -> None:
        self.total_count = total_count
        self._categorical = Categorical(probs, logits, validate_args)
        self.probs, self.logits = self._categorical.probs, self._categorical.logits
        self.arg_names = self._categorical.arg_names
        super().__init__(self._categorical.batch_shape, self.probs.shape[-1:])

    @property
    def mean(self) -> lg.Tensor:
        return self.probs * self.total_count

    @property
    def variance(self) -> lg.Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        drawn = self._categorical._draw((self.total_count, *shape[:-1]))
        return F.one_hot(drawn, shape[-1]).sum(0).to(self.probs.dtype)

    def log_prob(self, value: lg.Tensor) -> lg.Tensor:
        logits, value = lg.broadcast_tensors(self.logits, value)
        impossible = (value == 0) & (logits == -lg.inf)
        chances = lg.where(impossible, 0.0, logits) * value
        return (lg.lgamma(value.sum(-1) + 1) - lg.lgamma(value + 1).sum(-1)) + chances.sum(-1)


class NegativeBinomial(Distribution):
    """The number of successes before `total_count` failures: a Poisson of a gamma variable."""

    arg_names = ("total_count", "probs")

    def __init__(self, total_count: Any, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None) -> None:
        _one_of("NegativeBinomial", probs, logits)
        trial = Bernoulli(probs, logits, validate_args)
        self.total_count, self.probs = broadcast(total_count, trial.probs)
        self.logits = trial.logits.expand(self.probs.shape)
        super().__init__(self.probs.shape)

    @property
    def mean(self) -> lg.Tensor:
        return self.total_count * self.logits.exp()

    @property
    def mode(self) -> lg.Tensor:
        return ((self.total_count - 1) * self.logits.exp()).floor().clamp(min=0)

    @property
    def variance(self) -> lg.Tensor:
        return self.mean / (-self.logits).sigmoid()

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        rate = standard_gamma(self.total_count.expand(shape)) * self.logits.exp()
        return lg.poisson(rate)

    def log_prob(self, value: Any) -> lg.Tensor:
        value = lg.as_tensor(value).to(self.probs.dtype)
        n = self.total_count
        ways = lg.lgamma(n + value) - lg.lgamma(1 + value) - lg.lgamma(n)
        return n * F.logsigmoid(-self.logits) + value * F.logsigmoid(self.logits) + lg.where(
            n + value == 0, 0.0, ways)
